"""``python -m experiments.make_dataset``: data to learn from offline, cosine rewards of pairs or logged episodes."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.learners.opponents import CosineRecommender
from experiments.runs.build import build_env, build_market, build_single_env
from experiments.runs.datasets import cosine_pairs, save_dataset
from experiments.runs.episodes import record_episodes, save_minari
from experiments.runs.folders import RunError, read_run
from experiments.runs.saved import load_run

__all__: list[str] = []

FORMATS = ("npz", "minari")


@hydra.main(version_base="1.3", config_path="../conf", config_name="make_dataset")
def main(cfg: DictConfig) -> None:
    """Writes cosine rewards of pairs (``format=npz``), or a behaviour policy's episodes (``format=minari``)."""
    if cfg.format not in FORMATS:
        raise SystemExit(f"error: `format` must be one of {FORMATS}, got {cfg.format!r}.")
    try:
        if cfg.format == "npz":
            write_pairs(cfg)
        else:
            write_episodes(cfg)
    except (ValueError, ImportError, RunError) as error:
        raise SystemExit(f"error: {error}") from error


def write_pairs(cfg: DictConfig) -> None:
    """An npz file with ``applicant_id``, ``job_id`` and ``reward``; the same bytes for the same options.

    Rows are ids of the market, whose fingerprint stands beside them: a few hundred kB. ``vectors=true`` adds ``state``
    and ``action`` in float16, so that the file works without the market: ``model.pretrain(np.load(path))``.
    """
    market = build_market(cfg)
    pairs = cosine_pairs(market, cfg.n_pairs, cfg.seed, cfg.split, cfg.job_split, cfg.scale)
    save_dataset(cfg.output, pairs, market, cfg.vectors)
    reward = pairs["reward"]
    size = Path(cfg.output).stat().st_size / 1e6
    print(f"{cfg.output}: {len(reward):,} pairs, reward {reward.mean():.3f} ± {reward.std():.3f}, {size:.1f} MB")
    print(f"use it: python -m experiments.train experiment=hybrid_offline pretrain.dataset={cfg.output}")


def write_episodes(cfg: DictConfig) -> None:
    """A Minari data set of episodes with propensities; see :class:`experiments.runs.episodes.Episode`."""
    if cfg.behaviour in ("random", "cosine"):
        played, market, model = cfg, build_market(cfg), None
        if cfg.behaviour == "cosine":
            model = CosineRecommender(build_env(cfg, market))
    else:
        played, market, model = load_run(read_run(Path(cfg.behaviour)), {})
    env = build_single_env(played, market)
    episodes = tqdm(
        record_episodes(env, model, cfg.n_episodes, cfg.epsilon, cfg.seed), total=cfg.n_episodes, desc="episodes"
    )
    share = "uniform" if model is None else f"epsilon-greedy, epsilon {cfg.epsilon}"
    description = f"JobRec-v0 on {market!r}; behaviour policy {cfg.behaviour}, {share}; propensities in infos."
    data = save_minari(cfg.dataset_id, episodes, env, str(cfg.behaviour), description)
    size = data.storage.get_size()
    print(f"{cfg.dataset_id}: {data.total_episodes:,} episodes, {data.total_steps:,} steps, {size:.1f} MB")
    print(f'use it: minari.load_dataset("{cfg.dataset_id}")')


if __name__ == "__main__":
    main()
