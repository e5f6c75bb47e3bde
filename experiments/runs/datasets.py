"""Precomputed cosine rewards of (applicant, job) pairs, for :meth:`DynaQ.pretrain`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from jobrec_gym import LabourMarket
from jobrec_gym.array_files import read_arrays
from jobrec_gym.market import Split
from jobrec_gym.rewards import matched_cosine, scaled_cosine
from jobrec_gym.version import written_by
from jobrec_gym.whole_files import whole_file

__all__ = ["PretrainScale", "cosine_pairs", "load_dataset", "save_dataset", "to_pretrain"]

PretrainScale = Literal["unit", "raw", "matched", "opposite"]
Dataset = dict[str, NDArray[Any]]


def cosine_pairs(
    market: LabourMarket,
    n_pairs: int | None,
    seed: int = 0,
    split: Split = "train",
    job_split: Split = "train",
    scale: PretrainScale = "unit",
) -> Dataset:
    """Draws distinct pairs uniformly, and rewards them by cosine.

    Args:
        market: The market from which pairs are drawn.
        n_pairs: How many pairs; all that exist if there are fewer, and for ``None``.
        seed: Equal seeds give equal pairs.
        split: Which applicants.
        job_split: Which jobs.
        scale: How the cosine c becomes a reward. ``"unit"``: ``(1 + c) / 2``. ``"raw"``: ``c``. ``"matched"``: ``c``
            scaled to the mean and standard deviation of feedback, :data:`~jobrec_gym.rewards.MATCHED`. ``"opposite"``:
            ``-c`` scaled like ``"matched"``, which misleads an agent.

    Returns:
        ``applicant_id`` int64 (n,), ``job_id`` int64 (n,), ``reward`` float32 (n,).

    Raises:
        ValueError: If the scale is unknown, or ``n_pairs`` is below 1.
    """
    if scale not in get_args(PretrainScale):
        raise ValueError(f"`scale` must be one of {get_args(PretrainScale)}, got {scale!r}.")
    if n_pairs is not None and n_pairs < 1:
        raise ValueError(f"`n_pairs` must be at least 1, got {n_pairs}.")
    applicants, jobs = market.applicants.rows(split), market.jobs.rows(job_split)
    n_all = len(applicants) * len(jobs)
    picked = np.random.default_rng(seed).choice(n_all, size=min(n_pairs or n_all, n_all), replace=False, shuffle=True)
    applicant_id, job_id = applicants[picked // len(jobs)], jobs[picked % len(jobs)]
    cosine = market.cosine(applicant_id, job_id)
    if scale == "opposite":
        cosine, scale = -cosine, "matched"
    if scale == "matched":
        reward = matched_cosine(cosine, (float(cosine.mean()), float(cosine.std())))
    else:
        reward = scaled_cosine(cosine, scale)
    return {"applicant_id": applicant_id, "job_id": job_id, "reward": reward.astype(np.float32)}


def to_pretrain(
    pairs: Dataset,
    market: LabourMarket,
    action_features: NDArray[Any],
    ids: bool,
    pair_features: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] | None = None,
) -> Dataset:
    """Pairs in the form that :meth:`DynaQ.pretrain` takes.

    Args:
        pairs: See :func:`cosine_pairs`.
        market: The market that the ids refer to.
        action_features: The environment's table of job vectors.
        ids: Whether the agent's observations hold ids. ``action`` then holds ids too.
        pair_features: The environment's method of this name, if observations have an entry ``pairs``.

    Returns:
        ``state`` (n, d_s), ``action`` (n, d_a) or (n,), ``reward`` (n,), and, with ``pair_features``, ``pairs`` (n, p).
    """
    applicants, jobs = pairs["applicant_id"], pairs["job_id"]
    data = {
        "state": market.applicants.vectors[applicants],
        "action": jobs if ids else action_features[jobs],
        "reward": pairs["reward"],
    }
    return data if pair_features is None else {**data, "pairs": pair_features(applicants, jobs)}


_FORMAT = "jobrec-pairs/1"
_ABOUT = "info:"
"""Prefix of entries that say where rows come from. ``DynaQ.pretrain`` ignores them."""


def save_dataset(path: str | os.PathLike[str], pairs: Dataset, market: LabourMarket, vectors: bool = False) -> None:
    """Writes an npz file, whole or not at all.

    Args:
        path: Where the file is written.
        pairs: See :func:`cosine_pairs`.
        market: The market of the pairs, whose fingerprint is written into the file.
        vectors: Whether ``state`` and ``action`` are written too, float16, so that
            ``DynaQ.pretrain(np.load(path))`` works without the market.
    """
    file = Path(path)
    about = {"applicant_id": pairs["applicant_id"], "job_id": pairs["job_id"], "market": market.fingerprint()}
    about |= {"format": _FORMAT, "written_by": written_by()}
    content = {"reward": pairs["reward"], **{_ABOUT + key: np.asarray(value) for key, value in about.items()}}
    if vectors:
        whole = to_pretrain(pairs, market, market.jobs.vectors, ids=False)
        content |= {key: whole[key].astype(np.float16) for key in ("state", "action")}
    with whole_file(file) as scratch, scratch.open("wb") as out:
        np.savez(out, **content)  # type: ignore[arg-type]


def load_dataset(path: str | os.PathLike[str], market: LabourMarket) -> Dataset:
    """The pairs of a file that :func:`save_dataset` wrote.

    Raises:
        ValueError: If there is no such file, it is not whole, it has another format, or it was made for another market.
    """
    try:
        arrays = read_arrays(path)
        content = {key: arrays[_ABOUT + key] for key in ("applicant_id", "job_id", "market")}
        content["reward"] = arrays["reward"]
        found = str(arrays.get(_ABOUT + "format", _FORMAT))  # files of earlier versions have no format
        if found != _FORMAT:
            writer = str(arrays.get(_ABOUT + "written_by"))
            raise ValueError(
                f"it has the format {found!r:.40}, written by {writer:.40}; {written_by()} reads {_FORMAT!r}"
            )
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"`pretrain.dataset`: {os.fspath(path)} is no whole data set: {error}. "
            "Make one: python -m experiments.make_dataset."
        ) from error
    if str(content.pop("market")) != market.fingerprint():
        raise ValueError(
            f"`pretrain.dataset`: {os.fspath(path)} was made for another market than {market!r}: its ids would name "
            "others. Make it anew with the run's market=... options: python -m experiments.make_dataset."
        )
    return content
