"""``python -m experiments.make_dataset``: precomputed cosine rewards of training pairs, for pre-training."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from experiments.build import build_market
from experiments.datasets import cosine_pairs, save_dataset

__all__: list[str] = []


@hydra.main(version_base="1.3", config_path="../conf", config_name="make_dataset")
def main(cfg: DictConfig) -> None:
    """Writes an npz file with ``applicant_id``, ``job_id`` and ``reward``; the same bytes for the same options.

    Rows are ids of the market, whose fingerprint stands beside them: a few hundred kB. ``vectors=true`` adds ``state``
    and ``action`` in float16, so that the file works without the market: ``model.pretrain(np.load(path))``.
    """
    market = build_market(cfg)
    try:
        pairs = cosine_pairs(market, cfg.n_pairs, cfg.seed, cfg.split, cfg.job_split, cfg.scale)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    save_dataset(cfg.output, pairs, market, cfg.vectors)
    reward = pairs["reward"]
    size = Path(cfg.output).stat().st_size / 1e6
    print(f"{cfg.output}: {len(reward):,} pairs, reward {reward.mean():.3f} ± {reward.std():.3f}, {size:.1f} MB")
    print(f"use it: python -m experiments.train experiment=hybrid_offline pretrain.dataset={cfg.output}")


if __name__ == "__main__":
    main()
