"""``python -m experiments.studies.career_values``: what the best policy and the best bandit earn in a career."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.careers import evenly_spread
from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, write_json
from experiments.runs.numbers import require_known
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from experiments.studies.career_plan import require_free
from jobrec_gym import RuleSimulator
from jobrec_gym.career import EPISODE_STEPS
from jobrec_gym.dynamics import CareerStart
from jobrec_gym.oracle import CareerOracle

__all__ = ["Return", "policies_table", "returns_of", "variants_table"]

Ids = NDArray[np.int64]

_NOISE = 0.5
_NAMES = {
    "best": "best policy",
    "myopic": "best myopic policy",
    "cosine": "most similar job",
    "random": "any job",
}


@command(config_path="../../conf", config_name="career_values")
def main(cfg: DictConfig) -> None:
    """Solves the environment exactly, prints a table of policies and one of variants, and writes both as JSON."""
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    try:
        require_known("policies", options["policies"], list(_NAMES), "the exact policies")
        if "best" not in options["policies"]:
            raise RunError("`policies` must name best, by whose return others are divided, such as policies=[best].")
        require_known("starts", options["starts"], get_args(CareerStart), "the levels of a beginning")
        require_free("env", options["env"], dict.fromkeys(("simulator", "dynamics"), "change it by variants={...}"))
        everybody = gym.make("JobRecCareer-v0", **options["env"]).unwrapped.problem.applicant_ids  # type: ignore[attr-defined]
        people, fewer = (
            evenly_spread(everybody, name, options[name]) for name in ("n_applicants", "variant_applicants")
        )
        starts, variants = options["starts"], {"as it is": {}, **options["variants"]}
        n = len(starts) * len(options["policies"]) * len(people) + len(variants) * len(_COMPARED) * len(fewer)
        with Progress(n, "exact values", "applicant") as progress:
            by_start = {
                start: returns_of(
                    {"start": start}, options["env"], people, options["policies"], options["n_sets"], progress
                )
                for start in starts
            }
            by_variant = {
                name: returns_of(
                    {"start": starts[0], **changes},
                    options["env"],
                    fewer,
                    _COMPARED,
                    options["variant_sets"],
                    progress,
                )
                for name, changes in variants.items()
            }
    except (RunError, ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    tables = [policies_table(by_start), variants_table(by_variant)]
    for header, rows in tables:
        print(format_table(header, rows) + "\n")
    path = Path(cfg.folder) / "career_values.json"
    content = {"options": options, "commit": commit_of_checkout()}
    write_json(path, {**content, "tables": [{"header": header, "rows": rows} for header, rows in tables]})
    print(f"numbers  {path}")


_COMPARED = ("best", "myopic", "cosine")


@dataclass(frozen=True, slots=True)
class Return:
    """The return of a policy in an episode.

    Attributes:
        mean: Mean over applicants.
        error: Standard error of the mean, due to the sampled candidate sets.
        n: Number of applicants.
    """

    mean: float
    error: float
    n: int


def returns_of(
    changes: Mapping[str, Any],
    env: Mapping[str, Any],
    applicant_ids: Ids,
    policies: Sequence[str],
    n_sets: int,
    progress: Progress | None = None,
) -> dict[str, Return]:
    """Exact returns of policies, by name.

    Args:
        changes: Changed numbers: those of ``CareerDynamics``, ``reach`` of the simulator, ``horizon``.
        env: Other arguments of the environment.
        applicant_ids: (n,), the applicants over whom means are taken.
        policies: Names of policies, see :class:`~jobrec_gym.oracle.CareerOracle`.
        n_sets: Number of candidate sets, see :class:`~jobrec_gym.oracle.CareerOracle`.
        progress: Display that is updated for each applicant of each policy.
    """
    numbers = dict(changes)
    horizon = numbers.pop("horizon", EPISODE_STEPS)
    simulator = RuleSimulator(seed=0, noise=_NOISE, **({"reach": numbers.pop("reach")} if "reach" in numbers else {}))
    made = gym.make("JobRecCareer-v0", **env, simulator=simulator, dynamics={"type": "career", **numbers})
    returns = {}
    for policy in policies:
        oracle = CareerOracle(made, policy, n_sets=n_sets, horizon=horizon)  # type: ignore[arg-type]
        found = []
        for applicant_id in applicant_ids.tolist():
            found.append([values[0] for values in oracle.values([applicant_id])])
            if progress is not None:
                progress.update()
        values, errors = np.array(found).T
        error = float(np.sqrt((errors**2).sum()) / len(applicant_ids))
        returns[policy] = Return(float(values.mean()), error, len(applicant_ids))
    return returns


def policies_table(by_start: Mapping[str, Mapping[str, Return]]) -> Table:
    """A row for each policy, two columns for each start."""
    header = ["policy", *(f"{start}: {what}" for start in by_start for what in ("return", "share of the best"))]
    rows = []
    for policy in next(iter(by_start.values())):
        row = [_NAMES[policy]]
        for returns in by_start.values():
            one = returns[policy]
            row += [f"{one.mean:.2f} ± {one.error:.2f}", _share(one, returns["best"])]
        rows.append(row)
    return header, rows


def variants_table(by_variant: Mapping[str, Mapping[str, Return]]) -> Table:
    """A row for each variant: the best policy's return, and the share of it that each other policy earns."""
    rows = []
    for name, returns in by_variant.items():
        best = returns["best"]
        shares = [_share(returns[policy], best) for policy in ("myopic", "cosine")]
        rows.append([name, f"{best.mean:.2f} ± {best.error:.2f}", *shares])
    return ["what is changed", "return of the best", "myopic, share", "cosine, share"], rows


def _share(one: Return, best: Return) -> str:
    """The share of the best return; empty if that is not above 0, because then no share says who earned more."""
    return f"{one.mean / best.mean:.2f}" if best.mean > 0 else ""


if __name__ == "__main__":
    main()
