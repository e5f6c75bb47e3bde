"""``python -m experiments.studies.career_models``: how well world models predict the next reward in a career."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from experiments.runs.command import command
from experiments.runs.folders import RunError, commit_of_checkout, write_json
from experiments.runs.progress import Progress
from experiments.runs.tables import Table, format_table
from experiments.studies.career_plan import SET, require_free
from jobrec_gym.oracle import CareerOracle

__all__ = ["Predicted", "Step", "models_table", "predicted", "transitions"]


class Step(NamedTuple):
    """One transition, as an environment gives it."""

    observation: Mapping[str, NDArray[Any]]
    action: int
    reward: float
    next_obs: Mapping[str, NDArray[Any]]
    terminated: bool
    info: Mapping[str, Any]


class Predicted(NamedTuple):
    """What a model predicted, each time before it learned.

    Attributes:
        rewards: (n,), the mean reward that the model expected of the recommended job.
        seconds: (n,), seconds of the processor for a prediction and for learning from the answer.
        errors: Errors of the model's other predictions at the end, by name; empty if it makes no others.
    """

    rewards: NDArray[np.float64]
    seconds: NDArray[np.float64]
    errors: Mapping[str, float]


@command(config_path="../../conf", config_name="career_models")
def main(cfg: DictConfig) -> None:
    """Shows the same transitions to each model, prints a table of errors and times, and writes it as JSON."""
    # Not at the top: `--help` is answered without torch.
    import torch
    from hydra.utils import instantiate

    torch.set_num_threads(1)
    options: Any = OmegaConf.to_container(cfg, resolve=True)
    at, seeds, models = options["at"], options["seeds"], options["models"]
    found: dict[str, list[Predicted]] = {name: [] for name in models}
    rewards = []
    try:
        if not at or at != sorted(set(at)) or at[0] <= 0:
            raise RunError(f"`at` must be ascending numbers of transitions above 0, got {at}.")
        require_free("env", options["env"], SET)
        with Progress(len(seeds) * len(models), "models", "run") as progress:
            for seed in seeds:
                env = career_env(options["env"], options["noise"], seed)
                steps = transitions(env, at[-1], options["share_random"], options["n_sets"], seed)
                rewards.append(np.array([step.reward for step in steps]))
                for name, arguments in models.items():
                    model = instantiate(arguments, env=env, seed=seed, _convert_="all")
                    found[name].append(predicted(model, steps))
                    progress.update()
    except (RunError, ValueError, TypeError) as error:
        raise SystemExit(f"error: {error}") from error
    header, rows = models_table(found, rewards, at, options["window"])
    print(format_table(header, rows))
    path = Path(cfg.folder) / "career_models.json"
    others = {name: [run.errors for run in runs] for name, runs in found.items() if runs[0].errors}
    content = {"options": options, "commit": commit_of_checkout(), "other_errors": others}
    write_json(path, {**content, "tables": [{"header": header, "rows": rows}]})
    for name, runs in others.items():
        means = {error: np.mean([run[error] for run in runs]) for error in runs[0]}
        print(f"\n{name}: " + ", ".join(f"{error} {mean:.4f}" for error, mean in means.items()))
    print(f"\nnumbers  {path}")


def career_env(arguments: Mapping[str, Any], noise: float, seed: int) -> gym.Env[Any, Any]:
    """A ``JobRecCareer-v0`` of ids whose truth has the given seed."""
    # Not at the top: `--help` is answered without torch.
    from experiments.studies.careers import training_env

    return training_env({"env": arguments, "noise": noise, "seed": seed}, split="train")


def transitions(env: gym.Env[Any, Any], n: int, share_random: float, n_sets: int, seed: int) -> list[Step]:
    """The first n transitions of a policy that is sometimes random and else the best one, so that it sees all levels.

    Args:
        env: See :func:`career_env`.
        n: Number of transitions.
        share_random: Probability of a random choice.
        n_sets: See :class:`~jobrec_gym.oracle.CareerOracle`.
        seed: Seed of episodes and choices.
    """
    oracle, rng = CareerOracle(env, "best", n_sets=n_sets), np.random.default_rng(seed)
    steps: list[Step] = []
    obs, _ = env.reset(seed=seed)
    state, begins = None, np.array([True])
    while len(steps) < n:
        best, state = oracle.predict(obs, state, begins)
        n_candidates = len(obs["candidates"])
        action = int(rng.integers(n_candidates)) if rng.random() < share_random else int(best)
        following, reward, terminated, truncated, info = env.step(action)
        steps.append(Step(obs, action, float(reward), following, bool(terminated), info))
        begins = np.array([terminated or truncated])
        obs = env.reset()[0] if begins[0] else following
    return steps


def predicted(model: Any, steps: Sequence[Step]) -> Predicted:
    """What a model predicts of each transition before it learns from it.

    Args:
        model: A ``DynaQ``, or a bandit of ``dynaq_algo``.
        steps: The transitions, in order.
    """
    expect = getattr(model, "predict_reward", model.q_values)
    rewards, seconds = np.empty(len(steps)), np.empty(len(steps))
    for place, step in enumerate(steps):
        began = time.process_time()
        rewards[place] = np.ravel(expect(step.observation))[step.action]
        given = (step.observation, step.action, step.reward)
        if hasattr(model, "predict_reward"):
            model.observe(*given, step.next_obs, step.terminated, step.info)
        else:
            model.observe(*({key: values[None] for key, values in given[0].items()}, *np.atleast_1d(*given[1:])))
        seconds[place] = time.process_time() - began
    forecasts = getattr(model, "transition_forecasts", None)
    return Predicted(rewards, seconds, {} if forecasts is None else forecasts.errors())


def models_table(
    found: Mapping[str, Sequence[Predicted]], rewards: Sequence[NDArray[np.float64]], at: Sequence[int], window: int
) -> Table:
    """A row for each model: the share of the rewards' variance that it predicted, and its time.

    Args:
        found: Name of a model -> what it predicted, for each seed.
        rewards: The rewards of each seed, (n,).
        at: Numbers of transitions at which the figures are given.
        window: The figures are means over this many transitions before each of these numbers.
    """
    rows = []
    for name, runs in found.items():
        parts = [slice(max(0, point - window), point) for point in at]
        shares = np.array(
            [
                [1 - np.mean(np.square(run.rewards[part] - own[part])) / np.var(own[part]) for part in parts]
                for run, own in zip(runs, rewards, strict=True)
            ]
        )
        times = [[1_000 * run.seconds[part].mean() for part in parts] for run in runs]
        row = [name, *(f"{by_seed.mean():.3f} ({by_seed.min():.3f})" for by_seed in shares.T)]
        rows.append([*row, *(f"{mean:.1f}" for mean in np.mean(times, axis=0))])
    header = ["R2 of the reward, mean (worst seed), after", *(f"{point:,}" for point in at)]
    return [*header, *(f"ms at {point:,}" for point in at)], rows


if __name__ == "__main__":
    main()
