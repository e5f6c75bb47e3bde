"""``python -m experiments.studies.career_values``: what the best policy of ``JobRecCareer-v0`` earns, and a bandit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from jobrec_gym import RuleSimulator
from jobrec_gym.career import EPISODE_STEPS
from jobrec_gym.oracle import CareerOracle

__all__ = ["Return", "policies_table", "returns_of", "variants_table"]

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
        n = _n_solved(options)
        with Progress(n, "exact values", "applicant") as progress:
            by_start = {
                start: returns_of({"start": start}, options, options["policies"], options["n_sets"], progress)
                for start in options["starts"]
            }
            first = options["starts"][0]
            usual = returns_of({"start": first}, options, _COMPARED, options["variant_sets"], progress)
            by_variant = {"as it is": usual}
            for name, changes in options["variants"].items():
                changed = {"start": first, **changes}
                by_variant[name] = returns_of(changed, options, _COMPARED, options["variant_sets"], progress)
    except (RunError, ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    tables = [policies_table(by_start), variants_table(by_variant)]
    for header, rows in tables:
        print(format_table(header, rows, left=2) + "\n")
    path = Path(cfg.folder) / "career_values.json"
    content = {"options": options, "commit": commit_of_checkout()}
    write_json(path, {**content, "tables": [{"header": header, "rows": rows} for header, rows in tables]})
    print(f"numbers  {path}")


_COMPARED = ("best", "myopic", "cosine")


@dataclass(frozen=True, slots=True)
class Return:
    """What a policy earns in an episode.

    Attributes:
        mean: Over applicants.
        error: Standard error of the mean, that of the sampled candidate sets.
        n: How many applicants.
    """

    mean: float
    error: float
    n: int


def returns_of(
    changes: Mapping[str, Any],
    options: Mapping[str, Any],
    policies: Sequence[str],
    n_sets: int,
    progress: Progress | None = None,
) -> dict[str, Return]:
    """Exact returns of policies, by name.

    Args:
        changes: Numbers of ``CareerDynamics``, ``reach`` of the simulator, ``horizon``.
        options: ``env``, arguments of the environment, and ``n_applicants``.
        policies: As of :class:`~jobrec_gym.oracle.CareerOracle`.
        n_sets: As there.
        progress: Is told of each applicant of each policy.
    """
    numbers = dict(changes)
    horizon = numbers.pop("horizon", EPISODE_STEPS)
    simulator = RuleSimulator(seed=0, noise=_NOISE, **({"reach": numbers.pop("reach")} if "reach" in numbers else {}))
    dynamics = {"type": "career", **numbers}
    env = gym.make("JobRecCareer-v0", **options["env"], simulator=simulator, dynamics=dynamics)
    people = _people(env, options["n_applicants"])
    returns = {}
    for policy in policies:
        oracle = CareerOracle(env, policy, n_sets=n_sets, horizon=horizon)  # type: ignore[arg-type]
        found = []
        for person in people.tolist():
            found.append([values[0] for values in oracle.values([person])])
            if progress is not None:
                progress.update()
        values, errors = np.array(found).T
        returns[policy] = Return(float(values.mean()), float(np.sqrt((errors**2).sum()) / len(people)), len(people))
    return returns


def policies_table(by_start: Mapping[str, Mapping[str, Return]]) -> Table:
    """A row for each start and policy."""
    rows = []
    for start, returns in by_start.items():
        best = returns["best"].mean
        for policy, one in returns.items():
            earned = f"{one.mean:.2f} ± {one.error:.2f}"
            rows.append([f'`start="{start}"`', _NAMES[policy], earned, f"{one.mean / best:.2f}"])
    return ["applicants begin", "policy", "return", "share of the best"], rows


def variants_table(by_variant: Mapping[str, Mapping[str, Return]]) -> Table:
    """A row for each variant: what the best policy earns, and which share of it the others do."""
    rows = []
    for name, returns in by_variant.items():
        best = returns["best"]
        shares = [f"{returns[policy].mean / best.mean:.2f}" for policy in ("myopic", "cosine")]
        rows.append([name, f"{best.mean:.2f} ± {best.error:.2f}", *shares])
    return ["what is changed", "return of the best", "myopic, share", "cosine, share"], rows


def _people(env: gym.Env[Any, Any], n: int | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    everybody = env.unwrapped.problem.applicant_ids  # type: ignore[attr-defined]
    if n is not None and not 1 <= n <= len(everybody):
        raise RunError(f"`n_applicants` must be in [1, {len(everybody)}], those of the split, or null, got {n}.")
    places = np.arange(len(everybody)) if n is None else np.linspace(0, len(everybody) - 1, n).astype(np.int64)
    people: np.ndarray[Any, np.dtype[np.int64]] = everybody[places]
    return people


def _n_solved(options: Mapping[str, Any]) -> int:
    """How often an applicant is solved, in all."""
    env = gym.make("JobRecCareer-v0", **options["env"])
    n_policies = len(options["starts"]) * len(options["policies"]) + (1 + len(options["variants"])) * len(_COMPARED)
    return n_policies * len(_people(env, options["n_applicants"]))


if __name__ == "__main__":
    main()
