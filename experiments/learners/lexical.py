"""Rankings as in a search engine: TF-IDF and BM25 of words, by the usual libraries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from jobrec_gym import LabourMarket, Profile
from jobrec_gym.extras import install_command

__all__ = ["LEXICAL", "PairScores", "bm25_scores", "cosine_scores", "tfidf_scores"]

Ids = NDArray[np.int64]
PairScores = Callable[[Ids, Ids], NDArray[np.float64]]
"""Function from applicant ids and job ids, whose shapes broadcast, to the scores of the pairs."""


def cosine_scores(market: LabourMarket) -> PairScores:
    """Scores by the cosine of the market's vectors."""

    def scores(applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        applicants, jobs = np.broadcast_arrays(applicant_ids, job_ids)
        return market.cosine(applicants.ravel(), jobs.ravel()).reshape(jobs.shape).astype(np.float64)

    return scores


def tfidf_scores(market: LabourMarket) -> PairScores:
    """Scores by the cosine of TF-IDF vectors from scikit-learn's ``TfidfVectorizer``, fitted on the jobs."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer()
    jobs = vectorizer.fit_transform([_text(market.job(row)) for row in range(len(market.jobs))])

    @cache
    def of(applicant_id: int) -> NDArray[np.float64]:
        return (jobs @ vectorizer.transform([_text(market.applicant(applicant_id))]).T).toarray()[:, 0]

    return _by_person(of)


def bm25_scores(market: LabourMarket) -> PairScores:
    """Scores by BM25, from the library bm25s, of the applicant's words in the jobs.

    Raises:
        ImportError: If the extra ``lexical`` is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise ImportError(f"BM25 needs the library bm25s: {install_command('lexical')}.") from error
    index = bm25s.BM25()
    index.index([_words(_text(market.job(row))) for row in range(len(market.jobs))], show_progress=False)

    @cache
    def of(applicant_id: int) -> NDArray[np.float64]:
        return np.asarray(index.get_scores(_words(_text(market.applicant(applicant_id)))), np.float64)

    return _by_person(of)


LEXICAL: dict[str, Callable[[LabourMarket], PairScores]] = {
    "cosine": cosine_scores,
    "tfidf": tfidf_scores,
    "bm25": bm25_scores,
}
"""Rankings that learn nothing, by name."""


def _by_person(of: Callable[[int], NDArray[np.float64]]) -> PairScores:
    def scores(applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        applicants, jobs = np.broadcast_arrays(applicant_ids, job_ids)
        found = np.empty(jobs.shape)
        for person in np.unique(applicants).tolist():
            rows = applicants == person
            found[rows] = of(person)[jobs[rows]]
        return found

    return scores


def _text(profile: Profile) -> str:
    """Title and skills of a profile as one text, each phrase once."""
    return " ".join(dict.fromkeys([profile.title, *profile.hard_skills, *profile.soft_skills]))


def _words(text: str) -> list[str]:
    return [word for word in "".join(letter if letter.isalnum() else " " for letter in text.lower()).split() if word]
