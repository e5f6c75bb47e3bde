"""Avature's job titles as a log. People are search queries; jobs are titles that two annotators judged for relevance.

Zbib et al., "Learning job titles similarity from noisy skill labels", FEAST 2022; Deniz et al., "Combined unsupervised
and contrastive learning for multilingual job recommendation", HR@RecSys 2024. Apache-2.0; get a copy from its authors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobrec_gym import Interactions
from jobrec_gym.loaders.assembly import Record, assemble_market

__all__ = ["N_NEAREST", "read"]

N_NEAREST = 60
"""How many titles the log has for each query: the nearest ones, because far ones are too easy to tell apart."""

_FILES = ("queries.tsv", "corpus_documents.tsv", "annotations.tsv")


def read(path: Path, encoder: str = "all-MiniLM-L6-v2") -> Interactions:
    """The log: the 60 nearest titles of each query, with reward 1 if relevant and 0 if not.

    Args:
        path: A folder with ``queries.tsv``, ``corpus_documents.tsv`` and ``annotations.tsv``.
        encoder: Encoder of the titles. Each title counts as one hard skill.

    Raises:
        ValueError: If a file is missing, or the annotations name a query or title that the other files lack.
    """
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(
            f"`path`: {path} lacks {', '.join(missing)} of the Avature set, which has {', '.join(_FILES)}."
        )
    sides = []
    for name in _FILES[:2]:
        lines = [line.split("\t") for line in (path / name).read_text(encoding="utf-8").splitlines() if line]
        sides.append([Record(key=key, title=title, hard=(title,), where=name) for key, title in lines])
    market = assemble_market("avature", *sides, encoder=encoder, test_fraction=0.0)
    rows = [{key: row for row, key in enumerate(side.keys.tolist())} for side in (market.applicants, market.jobs)]
    relevant = np.zeros((len(rows[0]), len(rows[1])), dtype=bool)
    for line in (path / _FILES[2]).read_text(encoding="utf-8").splitlines():
        query, _, document, is_relevant = line.split("\t")
        if query not in rows[0] or document not in rows[1]:
            raise ValueError(
                f"{path / _FILES[2]}: query {query!r} is not in {_FILES[0]}, or title {document!r} not in {_FILES[1]}."
            )
        relevant[rows[0][query], rows[1][document]] = is_relevant == "1"
    cosine = market.applicants.vectors.astype(np.float32) @ market.jobs.vectors.astype(np.float32).T
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :N_NEAREST]
    people = np.repeat(np.arange(len(nearest)), nearest.shape[1])
    jobs = nearest.ravel()
    return Interactions.of(market, people, jobs, relevant[people, jobs].astype(np.float64))
