"""The recorded market: a part of the default market. A language model was asked about each pair of this part."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.counter_rng import hash64
from jobrec_gym.loaders.generated import load_default
from jobrec_gym.market import LabourMarket, MarketError
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.simulators.prompts import applicant_document, encode_document, job_document

__all__ = ["choose_rows", "load_recorded", "texts_sha256"]

Ids = NDArray[np.int64]

_FAMILIES, _OCCUPATIONS, _APPLICANTS, _JOBS = 10, 2, 6, 2
_HELD_OUT = 36
_TEXTS_SHA256 = "fe598b2b5e882780bf055dd612241131f3fb88cefb6ef1d27904ab502c593a9a"


@with_known_keywords
def load_recorded() -> LabourMarket:
    """The recorded market: 120 applicants (84 train, 36 test) and 40 jobs (not split) of the default market.

    There are twenty occupations, two of each of ten families, with six applicants and two jobs each. So the jobs
    include an applicant's own occupation, a related one of the same family, and unrelated ones.

    Raises:
        MarketError: If the texts are not those that the language model was shown.
    """
    default = load_default()
    applicant_rows, job_rows = choose_rows(default)
    held_out = np.zeros(len(applicant_rows), dtype=bool)
    held_out[np.argsort(hash64(0, np.arange(len(applicant_rows))), kind="stable")[:_HELD_OUT]] = True
    market = LabourMarket(
        "recorded",
        default.applicants.take(applicant_rows, held_out),
        default.jobs.take(job_rows, np.zeros(len(job_rows), dtype=bool)),
        default.vocabulary,
        title_vectors=default.title_vectors,
        experience_vectors=default.experience_vectors,
        context={name: table.take(applicant_rows, job_rows) for name, table in default.context.items()},
    )
    found = texts_sha256(market)
    if found != _TEXTS_SHA256:
        raise MarketError(
            f"the recorded market's texts have SHA-256 {found}, not {_TEXTS_SHA256} as when they were recorded: the "
            "embedded taxonomy or the encoding of documents has changed, and the recorded decisions no longer fit."
        )
    return market


def choose_rows(market: LabourMarket) -> tuple[Ids, Ids]:
    """The applicants (120,) and jobs (40,) of the default market that are recorded, ascending.

    They are of the ten families whose two largest occupations together have the most applicants. From each of the two
    occupations come the first six applicants and two jobs: the first job, and the first job of another seniority. If
    all jobs of the occupation have one seniority, the other job is the second one.
    """
    applicants, jobs, words = market.applicants, market.jobs, market.vocabulary
    n_applicants = np.bincount(applicants.occupation_ids, minlength=len(words.occupations))
    n_jobs = np.bincount(jobs.occupation_ids, minlength=len(words.occupations))
    eligible = (n_applicants >= _APPLICANTS) & (n_jobs >= _JOBS)
    largest = {}
    for family in range(len(words.families)):
        members = np.flatnonzero(eligible & (np.array(words.occupation_families) == family))
        if len(members) >= _OCCUPATIONS:
            largest[family] = members[np.argsort(-n_applicants[members], kind="stable")][:_OCCUPATIONS]
    families = sorted(largest, key=lambda family: (-n_applicants[largest[family]].sum(), family))[:_FAMILIES]
    applicant_rows: list[int] = []
    job_rows: list[int] = []
    for occupation in np.concatenate([largest[family] for family in families]):
        applicant_rows += np.flatnonzero(applicants.occupation_ids == occupation)[:_APPLICANTS].tolist()
        offered = np.flatnonzero(jobs.occupation_ids == occupation)
        other = offered[jobs.seniority[offered] != jobs.seniority[offered[0]]]
        job_rows += [int(offered[0]), int(other[0] if len(other) else offered[1])]
    return np.sort(applicant_rows), np.sort(job_rows)


def texts_sha256(market: LabourMarket) -> str:
    """SHA-256 of all documents that a model is shown, one on each line, applicants before jobs."""
    lines = [encode_document(applicant_document(market.applicant(row))) for row in range(len(market.applicants))]
    lines += [encode_document(job_document(market.job(row))) for row in range(len(market.jobs))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
