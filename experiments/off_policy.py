"""``python -m experiments.off_policy log=FILE run=FOLDER``: estimates what saved agents would have earned on a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, find_runs, write_json
from experiments.runs.logs import log_on
from experiments.runs.progress import tracked
from experiments.runs.tables import Table, format_table

if TYPE_CHECKING:
    from jobrec_gym import Interactions
    from jobrec_gym.off_policy import Doubt, Estimate, Method

__all__ = ["estimates_table"]


@command(config_path="../conf", config_name="off_policy")
def main(cfg: DictConfig) -> None:
    """Estimates the one-step value of each run's agent and of a uniform choice, and writes ``off_policy.json``."""
    # Not at the top: `--help` is answered without torch.
    import torch

    from experiments.runs.saved import load_run
    from jobrec_gym import ObservationForm
    from jobrec_gym.off_policy import estimate_all, require_options

    torch.set_num_threads(cfg.threads)
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    found: list[tuple[str, dict[Method, Estimate]]] = []
    of_markets: dict[str, tuple[str, Interactions, dict[Method, Estimate]]] = {}
    how = {name: options[name] for name in ("clip", "n_folds", "level", "n_resamples")}
    try:
        require_options(options["methods"], epsilon=cfg.epsilon, **how)
        if cfg.log is None:
            raise RunError("`log` must be given: log=FILE (csv, jsonl, parquet), or a saved folder.")
        runs = find_runs(options["run"], "run")
        for run in tracked(runs, "off-policy estimates", "run"):
            setup, agent = load_run(run, {}, cfg.trust)
            # Runs on one market share it, and a log is read once for each market.
            known = next((log for _, log, _ in of_markets.values() if log.market is setup.market), None)
            log = log_on(setup.market, options).split(cfg.split) if known is None else known
            methods = options["methods"]
            of_all = {"form": ObservationForm.of(setup.env), "seed": cfg.seed, **how}
            of_agent = {"baseline": "uniform", "epsilon": cfg.epsilon, **of_all}
            found.append((str(run.folder), estimate_all(agent, log, methods, **of_agent)))
            # The log's rows and the value of a uniform choice depend on the market, and runs may have several markets.
            if known is None and (market := setup.market.fingerprint()) not in of_markets:
                of_markets[market] = str(run.folder), log, estimate_all(None, log, methods, **of_all)
    except (RunError, ValueError, ImportError) as error:
        raise SystemExit(f"error: {error}") from error
    said = []
    for folder, log, uniform in of_markets.values():
        where = "" if len(of_markets) == 1 else f" on the market of {folder}"
        found.append((f"uniform{where}", uniform))
        answered = log.reward[log.answered]
        said.append(f"The log's own mean reward{where} is {answered.mean():.4f}, over {len(answered):,} answers.")
    header, rows = estimates_table(found, cfg.level)
    print(format_table(header, rows, left=2))
    print("\n" + "\n".join(said))
    for doubt, which in _doubts(found).items():
        print(f"{', '.join(which)}: not reliable, {doubt}")
    for name, methods_found in found:
        one = next(iter(methods_found.values()))
        if one.never_recommended:
            favours = ", ".join(f"{job.key} ({job.share:.1%})" for job in one.never_recommended)
            print(
                f"{name}: {one.never_recommended_share:.1%} of its recommendations are of jobs of which the log has no "
                f"answered recommendation: {favours}"
            )
    path = Path(cfg.folder) / "off_policy.json"
    content = {"options": options, "commit": commit_of_checkout()}
    write_json(path, {**content, "tables": [{"header": header, "rows": rows}]})
    print(f"\nnumbers  {path}")


def estimates_table(found: Sequence[tuple[str, dict[Method, Estimate]]], level: float) -> Table:
    """A table with a row for each pair of a named policy and a method."""
    header = ["policy", "method", "value", f"{level:.0%} interval", "less uniform", "effective size"]
    header += ["effective people", "mean weight", "largest weight", "reliable"]
    rows = []
    for policy, methods in found:
        for method, one in methods.items():
            weighted = [
                f"{one.effective_sample_size:,.0f}",
                f"{one.effective_people:,.1f} of {one.n_people:,}",
                f"{one.mean_weight:.2f}",
                f"{one.largest_weight:.1f}",
            ]
            rows.append(
                [
                    policy,
                    method,
                    f"{one.value:.4f}",
                    f"[{one.low:.4f}, {one.high:.4f}]",
                    "-" if one.difference is None else str(one.difference),
                    *(["-"] * len(weighted) if method == "dm" else weighted),  # it uses no weights
                    "yes" if one.reliable else f"no: {'; '.join(doubt.what for doubt in one.doubts)}",
                ]
            )
    return header, rows


def _doubts(found: Sequence[tuple[str, dict[Method, Estimate]]]) -> dict[Doubt, list[str]]:
    """The rows of the table to which each doubt applies, ``policy (methods)``."""
    rows: dict[Doubt, list[str]] = {}
    for policy, methods in found:
        of_policy: dict[Doubt, list[str]] = {}
        for method, one in methods.items():
            for doubt in one.doubts:
                of_policy.setdefault(doubt, []).append(method)
        for doubt, named in of_policy.items():
            rows.setdefault(doubt, []).append(f"{policy} ({', '.join(named)})")
    return rows


if __name__ == "__main__":
    main()
