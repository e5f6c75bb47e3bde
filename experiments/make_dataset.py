"""``python -m experiments.make_dataset``: data for offline learning: cosine rewards of pairs, or episodes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from experiments.runs.arguments import as_typed
from experiments.runs.command import command
from experiments.runs.datasets import PretrainScale, cosine_pairs, save_dataset
from experiments.runs.episodes import record_episodes, save_minari, unused_folder
from experiments.runs.folders import RunError, read_run
from experiments.runs.progress import tracked
from jobrec_gym import LabourMarket
from jobrec_gym.market import Split

if TYPE_CHECKING:
    from experiments.runs.build import Task

__all__ = ["write_episodes", "write_pairs"]

FORMATS = ("npz", "minari")
BEHAVIOURS = ("random", "cosine")

_OF_PAIRS = {"output", "n_pairs", "split", "job_split", "scale", "vectors"}
_OF_THE_TASK = {"env", "reward", "simulator"}
_OF_EPISODES = {"dataset_id", "behaviour", "epsilon", "n_episodes", "trust", *_OF_THE_TASK}


@command(config_path="../conf", config_name="make_dataset")
def main(cfg: DictConfig) -> None:
    """Writes cosine rewards of pairs (``format=npz``), or a behaviour policy's episodes (``format=minari``)."""
    if cfg.format not in FORMATS:
        raise SystemExit(f"error: `format` must be one of {FORMATS}, got {cfg.format!r}.")
    if HydraConfig.initialized():
        _refuse_unread(cfg.format, str(cfg.behaviour), HydraConfig.get().overrides.task)
    # Not at the top: `--help` is answered without torch.
    from experiments.runs.build import build_task

    try:
        task = build_task(cfg)
        if cfg.format == "npz":
            write_pairs(
                task.market, cfg.output, cfg.n_pairs, cfg.seed, cfg.split, cfg.job_split, cfg.scale, vectors=cfg.vectors
            )
        else:
            write_episodes(task, cfg.behaviour, cfg.dataset_id, cfg.n_episodes, cfg.epsilon, cfg.seed, cfg.trust)
    except (ValueError, ImportError, RunError) as error:
        raise SystemExit(f"error: {error}") from error


def write_pairs(
    market: LabourMarket,
    output: str,
    n_pairs: int,
    seed: int,
    split: Split,
    job_split: Split,
    scale: PretrainScale,
    *,
    vectors: bool = False,
) -> None:
    """Writes an npz file with ``applicant_id``, ``job_id`` and ``reward``; the same bytes for the same options.

    The file holds ids of the market and the market's fingerprint, a few hundred kB.

    Args:
        market: The market from which pairs are drawn.
        output: Path of the file.
        n_pairs: How many pairs; :func:`~experiments.runs.datasets.cosine_pairs` describes this and the next four
            arguments.
        seed: Seed of the draw.
        split: Which applicants.
        job_split: Which jobs.
        scale: Scale of the rewards.
        vectors: Whether ``state`` and ``action`` are written too, in float16, so that the file works without the
            market: ``model.pretrain(np.load(path))``.
    """
    pairs = cosine_pairs(market, n_pairs, seed, split, job_split, scale)
    save_dataset(output, pairs, market, vectors)
    reward = pairs["reward"]
    size = Path(output).stat().st_size / 1e6
    print(f"{output}: {len(reward):,} pairs, reward {reward.mean():.3f} ± {reward.std():.3f}, {size:.1f} MB")
    print(f"use it: python -m experiments.train experiment=hybrid_offline {as_typed('pretrain.dataset', output)}")


def write_episodes(
    task: Task,
    behaviour: str,
    dataset_id: str,
    n_episodes: int,
    epsilon: float = 0.1,
    seed: int = 0,
    trust: bool = False,
) -> None:
    """Writes a Minari data set of episodes with propensities; see :class:`experiments.runs.episodes.Episode`.

    Args:
        task: The task that is played if ``behaviour`` is not a run.
        behaviour: ``"random"``, ``"cosine"``, or the folder of a run, whose agent plays on its own task.
        dataset_id: ``namespace/name-v0``.
        n_episodes: How many episodes.
        epsilon: Share of uniformly random choices; not used for ``"random"``, whose choices are all uniformly random.
        seed: Seed of episodes and choices.
        trust: Whether code named in a run's config may run, see :func:`~experiments.runs.saved.load_run`.
    """
    from experiments.learners.opponents import CosineRecommender
    from experiments.runs.saved import load_run

    unused_folder(dataset_id)  # before a run is loaded and episodes are played
    model = None
    if behaviour == "cosine":
        model = CosineRecommender(task.make_env())
    elif behaviour != "random":
        task, model = load_run(read_run(Path(behaviour)), {}, trust)
    env = task.single_env()
    played = record_episodes(env, model, n_episodes, epsilon, seed)
    episodes = tracked(played, "episodes", "episode", total=n_episodes)
    share = "uniform" if model is None else f"epsilon-greedy, epsilon {epsilon}"
    splits = ", ".join(f"{key}={task.env_options.get(key, 'train')}" for key in ("split", "job_split"))
    reward = (task.config["reward"]["_target_"] or "of the environment").rpartition(".")[2].removeprefix("Vector")
    description = (
        f"{task.env_id} on {task.market!r}, {splits}, reward {reward}; behaviour policy {behaviour}, {share}; "
        "propensities in infos."
    )
    data = save_minari(dataset_id, episodes, env, str(behaviour), description)
    size = data.storage.get_size()
    print(f"{dataset_id}: {data.total_episodes:,} episodes, {data.total_steps:,} steps, {size:.1f} MB")
    print(f'use it: minari.load_dataset("{dataset_id}")')


def _refuse_unread(form: str, behaviour: str, overrides: Iterable[str]) -> None:
    """Refuses options that this format, or this behaviour, does not read.

    Raises:
        SystemExit: For the first such option.
    """
    of_others = {"npz": _OF_EPISODES, "minari": _OF_PAIRS}[form]
    reasons = dict.fromkeys(of_others, f"is for format={'minari' if form == 'npz' else 'npz'}")
    for split in ("split", "job_split"):
        given, here = (f"env.{split}", split) if form == "npz" else (split, f"env.{split}")
        reasons[given] = f"chooses nothing with format={form}, where `{here}` does"
    if form == "minari" and behaviour not in BEHAVIOURS and Path(behaviour).exists():
        why = f"is not read with behaviour={behaviour}: a run plays on its own market, environment and reward"
        reasons |= dict.fromkeys(("market", *_OF_THE_TASK), why)
    for override in overrides:
        place = override.lstrip("+~").partition("=")[0]
        if reason := reasons.get(place) or reasons.get(re.split(r"[.@]", place)[0]):
            raise SystemExit(f"error: `{place}` {reason}.")


if __name__ == "__main__":
    main()
