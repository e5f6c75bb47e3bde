"""The best jobs of a whole catalogue for an applicant, by an agent or by cosine."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.interactions import ObservationForm, check_catalogue, of_its_env
from jobrec_gym.job_index import EXACT_UP_TO, open_index
from jobrec_gym.market import BLOCKS, LabourMarket, Profile, row_products
from jobrec_gym.market.context import folded
from jobrec_gym.market.keys import find_rows
from jobrec_gym.near_miss import best_match
from jobrec_gym.pair_features import PairValues
from jobrec_gym.prior_sources import LESS_JOB_MEAN, SourcedPairValues, less_own_means

__all__ = ["Agent", "Recommendation", "recommend", "recommend_each"]

Ids = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]

_RETRIEVED = 1_000
"""With more than :data:`~jobrec_gym.job_index.EXACT_UP_TO` jobs, an agent scores only this many nearest ones."""
_ASKED = 4_096
"""How many jobs an agent is asked about at once; this bounds the memory of their features."""
_CHUNK = 16_384
"""How many jobs are compared at once."""


class Agent(Protocol):
    """An object that scores candidates: ``DynaQ``, a bandit, or your own."""

    def q_values(self, observation: Observation) -> NDArray[np.floating]:
        """Scores of an observation's ``candidates``, (1, k) or (k,)."""


Observed = str | Mapping[str, Any] | ObservationForm


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One job of a ranked list for an applicant.

    Attributes:
        rank: From 1.
        job_id: The row in ``market.jobs``.
        key: The source's own name of the job.
        title: Its title, or its occupation if it has no title.
        score: The number by which it is ranked: the agent's value, or the cosine.
        cosine: Similarity of the applicant's and the job's vectors, in [-1, 1].
        shared: Skills that the job asks for and the applicant has, whatever their case, hard ones first. Neither this
            list nor ``missing`` holds free texts.
        missing: Skills that the job asks for and the applicant does not have.
    """

    rank: int
    job_id: int
    key: str
    title: str
    score: float
    cosine: float
    shared: tuple[str, ...]
    missing: tuple[str, ...]


def recommend(
    agent: Agent | Callable[[Observation], Any] | None,
    market: LabourMarket,
    applicant: int | str | Profile,
    n: int = 10,
    exclude: Iterable[int | str] = (),
    observation: Observed | None = None,
) -> list[Recommendation]:
    """The ``n`` best jobs of the whole catalogue for one applicant.

    In a catalogue of up to 50,000 jobs every job is scored. In a larger one an index (:mod:`jobrec_gym.job_index`)
    finds the 1,000 nearest by cosine, and the agent ranks these. Without an agent the nearest jobs are the answer.

    Args:
        agent: An object with ``q_values(observation) -> (1, k)``, such as ``DynaQ``; a function that returns one number
            for each candidate of an observation; or ``None`` for the cosine. Observations are those of ``JobRec-v0``,
            but may have more candidates than in training.
        market: Applicants and jobs.
        applicant: A row (an integer), a key (a text), or a profile that ``market.applicant`` returned. Add new people
            with ``market.with_applicants``.
        n: How many jobs; the list is shorter if the catalogue has fewer.
        exclude: Jobs to leave out, by row or by key, for example those that the person has seen.
        observation: What the agent reads: ``"ids"`` or ``"features"``, or a mapping of the environment's arguments
            ``observation``, ``job_fields``, ``pair_features``, ``pair_noise``, ``prior_sources`` and
            ``mask_in_observation``. ``pair_noise`` is 0 if it is left out, and ``prior_sources`` must be given if the
            agent was trained with them. Other arguments that are left out come from ``agent.reads``, which ``DynaQ``
            and the bandits keep in their file. Without that they are the environment's defaults.

    Returns:
        A list of recommendations, the best first. Jobs of equal score are in the order of their rows.

    Raises:
        ValueError: For an unknown applicant or job; an ``n`` below 1; an agent that was trained on another catalogue or
            on means over other people (``"less_job_mean": True``), or needs observations that this one does not have;
            or scores that are not one finite number for each candidate.
        TypeError: For an object that cannot score.
        ImportError: For more than 50,000 jobs without FAISS.

    Example:
        >>> market = load_market("default")
        >>> [(job.rank, job.key) for job in recommend(None, market, 5, n=2, exclude=["J0000003"])]  # doctest: +SKIP
    """
    applicants = np.array([market.applicant_id(applicant)])
    return next(recommend_each(agent, market, applicants, n, exclude, observation))


def recommend_each(
    agent: Agent | Callable[[Observation], Any] | None,
    market: LabourMarket,
    applicants: NDArray[np.integer],
    n: int = 10,
    exclude: Iterable[int | str] = (),
    observation: Observed | None = None,
    batch_size: int = 1,
) -> Iterator[list[Recommendation]]:
    """:func:`recommend` for many applicants, one after the other.

    Args:
        agent: As in :func:`recommend`, like the arguments below.
        market: Applicants and jobs.
        applicants: Rows of the market's applicants, (m,).
        n: How many jobs for each.
        exclude: Jobs to leave out for all.
        observation: What the agent reads.
        batch_size: How many applicants an agent scores at once. It may be above 1 only if ``q_values`` takes a batch of
            observations and returns (batch_size, k), as that of ``DynaQ`` and the bandits does.

    Raises:
        ValueError: As :func:`recommend`; and for rows that are no whole numbers, or that do not exist.
    """
    n, batch_size = _count("n", n), _count("batch_size", batch_size)
    left_out = _job_ids(market, exclude)
    scorer = None if agent is None else _Scorer(agent, market, _form(agent, market, observation))
    return _lists(scorer, market, _applicant_rows(market, applicants), n, left_out, batch_size)


def _lists(
    scorer: _Scorer | None, market: LabourMarket, applicants: Ids, n: int, left_out: Ids, batch_size: int
) -> Iterator[list[Recommendation]]:
    every = None
    if len(market.jobs) <= EXACT_UP_TO:
        every = np.delete(np.arange(len(market.jobs)), left_out)
    size = batch_size if scorer is not None and not scorer.is_function and every is not None else 1
    for start in range(0, len(applicants), size):
        people = applicants[start : start + size]
        jobs = every
        if jobs is None:
            jobs = _retrieved(market, int(people[0]), n if scorer is None else max(n, _RETRIEVED), left_out)
        scores = _cosines(market, int(people[0]), jobs)[None] if scorer is None else scorer(people, jobs)
        for person, values in zip(people.tolist(), scores, strict=True):
            best = np.argsort(-values, kind="stable")[:n]
            yield _explained(market, person, jobs[best], values[best])


class _Scorer:
    """An agent's values of the same jobs for some applicants."""

    def __init__(self, agent: Any, market: LabourMarket, form: ObservationForm):
        self.is_function = not hasattr(agent, "q_values")
        if self.is_function and not callable(agent):
            raise TypeError(
                "`agent` must have `q_values(observation)`, or be a function of an observation, or None for cosine, "
                f"got {agent!r:.80}."
            )
        self._ask: Callable[[Observation], Any] = agent if self.is_function else agent.q_values
        self._market = market
        self._form = form
        if form.observation == "ids":
            check_catalogue(agent, market, form.job_fields)

    def __call__(self, people: Ids, jobs: Ids) -> NDArray[np.float64]:
        """Scores (b, c) of applicants (b,) and jobs (c,)."""
        parts = [jobs[start : start + _ASKED] for start in range(0, len(jobs), _ASKED)]
        return np.concatenate([self._scored(people, part) for part in parts] or [np.empty((len(people), 0))], axis=1)

    def _scored(self, people: Ids, jobs: Ids) -> NDArray[np.float64]:
        seen = self._form(self._market, people, np.broadcast_to(jobs, (len(people), len(jobs))))
        if len(people) == 1:  # the same form as in an environment
            seen = {key: values[0] for key, values in seen.items()}
        scores = np.asarray(self._ask(seen), dtype=np.float64)
        if scores.shape == (len(jobs),):
            scores = scores[None]
        if scores.shape != (len(people), len(jobs)) or not np.isfinite(scores).all():
            raise ValueError(
                f"`agent` must give {(len(people), len(jobs))} finite numbers, one a candidate, got shape "
                f"{scores.shape}, {int(np.isfinite(scores).sum())} of them finite."
            )
        return scores


def _form(agent: Any, market: LabourMarket, observation: Observed | None) -> ObservationForm:
    """How a decision is shown to the agent."""
    if isinstance(observation, ObservationForm):
        return observation
    given: dict[str, Any] = {"observation": observation} if isinstance(observation, str) else dict(observation or {})
    known = ("observation", "job_fields", "pair_features", "pair_noise", "prior_sources", "mask_in_observation")
    for name in given:
        if name not in known:
            near = best_match(str(name), known)
            hint = f" Did you mean {near!r}?" if near else ""
            raise ValueError(f"`observation` may say {known}, got {name!r}.{hint}")
    reads = getattr(agent, "reads", None) or {}
    if others := sorted(set(reads.get("entries", {})) - {"applicant"}):
        raise ValueError(
            f"`agent` also reads {others} of an observation, which a catalogue does not have: pass a function of an "
            "observation that adds them."
        )
    if isinstance(reads.get("pairs"), int) and "pair_features" not in given:
        raise ValueError(
            f"`agent` reads {reads['pairs']} numbers of a pair and does not know their names: say them, "
            "`observation={'pair_features': [...]}`."
        )
    noise, sources = given.pop("pair_noise", 0.0), given.pop("prior_sources", None)
    if bool(reads.get("prior_sources")) != bool(sources):
        raise ValueError(
            f"`agent` reads the sources {reads.get('prior_sources') or {}} of a prior, and `observation` gives "
            f"{sorted(sources or {})}: give what the environment of training had, "
            "`observation={'prior_sources': {name: source}}`."
        )
    # An agent that was trained without a mask ignores this entry.
    form = ObservationForm(mask_in_observation=bool(reads))
    if reads:
        form = dataclasses.replace(
            form,
            observation=reads.get("observation", "features"),
            job_fields=tuple(reads.get("job_fields") or ()),
            pair_features=() if isinstance(reads.get("pairs"), int) else tuple(reads.get("pairs") or ()),
        )
    form = dataclasses.replace(form, **given)
    if sources:
        features, columns = form.pair_features, tuple(reads["pairs"])
        if not isinstance(features, str):  # "all" of the features; sources are none of them
            features = tuple(name for name in features if name not in sources)
        values = SourcedPairValues(market, features, noise, sources)
        if (values.names, values.described) != (columns, reads["prior_sources"]):
            raise ValueError(
                f"`prior_sources` must be those of training, {reads['prior_sources']} in the columns {columns}, got "
                f"{values.described} in {values.names}."
            )
        _refuse_means_of_others(agent, market, sources)
        form = dataclasses.replace(form, pair_features=columns, ask_pairs=values)
    elif noise:
        form = dataclasses.replace(form, ask_pairs=PairValues(market, form.pair_features, noise))
    return form


def _refuse_means_of_others(agent: Any, market: LabourMarket, sources: Mapping[str, Any]) -> None:
    """Refuses sources less the means over a market's people, if the agent was trained on the means over other people.

    Whether it was is known only of an agent that holds its environment.
    """
    less = less_own_means(sources)
    trained_on = of_its_env(agent, "market") if less else None
    if trained_on is None:
        return
    people = trained_on.applicants.vectors
    if people is not market.applicants.vectors and not np.array_equal(people, market.applicants.vectors):
        raise ValueError(
            f"`prior_sources[{less[0]!r}]` is less the mean of the job over all applicants of the market, and this "
            "market has others than that of training, so the agent would read other numbers: recommend to those of "
            f'training, or train with the means themselves, `"{LESS_JOB_MEAN}": (n_jobs,)`.'
        )


def _retrieved(market: LabourMarket, applicant_id: int, n: int, left_out: Ids) -> Ids:
    """The nearest jobs by the index, ascending, without those left out."""
    vector = market.applicants.vectors[applicant_id].astype(np.float32, copy=False)
    found = open_index(market).nearest(vector, min(n + len(left_out), len(market.jobs)))
    return np.sort(found[~np.isin(found, left_out)][:n])


def _cosines(market: LabourMarket, applicant_id: int, jobs: Ids) -> NDArray[np.float32]:
    """Cosines of one applicant and some jobs (c,), equal to those of :meth:`LabourMarket.cosine` to the bit."""
    vector = market.applicants.vectors[applicant_id].astype(np.float32, copy=False)
    if len(jobs) < len(market.jobs):
        return market.cosine_of(vector[None], jobs)
    vectors, starts = market.jobs.vectors, range(0, len(jobs), _CHUNK)  # all jobs: no copy is needed
    return np.concatenate(
        [row_products(vector, vectors[at : at + _CHUNK].astype(np.float32, copy=False)) for at in starts]
    )


def _explained(
    market: LabourMarket, applicant_id: int, jobs: Ids, scores: NDArray[np.floating]
) -> list[Recommendation]:
    person = market.applicant(applicant_id)
    listed = [block for block in BLOCKS if block not in market.text_blocks]
    had = {block: frozenset(map(folded, getattr(person, f"{block}_skills"))) for block in listed}
    cosines = market.cosine_of(market.applicants.vectors[applicant_id][None].astype(np.float32, copy=False), jobs)
    found = []
    for rank, (job_id, score, cosine) in enumerate(
        zip(jobs.tolist(), scores.tolist(), cosines.tolist(), strict=True), 1
    ):
        job = market.job(job_id)
        asked = [(block, skill) for block in listed for skill in getattr(job, f"{block}_skills")]
        shared = tuple(skill for block, skill in asked if folded(skill) in had[block])
        missing = tuple(skill for block, skill in asked if folded(skill) not in had[block])
        title = job.title or job.occupation or ""
        found.append(Recommendation(rank, job_id, job.key, title, score, cosine, shared, missing))
    return found


def _job_ids(market: LabourMarket, exclude: Iterable[int | str]) -> Ids:
    """Rows of jobs that are named by row or by key, ascending and distinct."""
    if isinstance(exclude, str):
        raise TypeError(f"`exclude` must be a sequence of rows or keys, got the text {exclude!r}: write [{exclude!r}].")
    if not isinstance(exclude, Iterable):
        raise TypeError(f"`exclude` must be a sequence of rows or keys, () for none, got {exclude!r}.")
    named = list(exclude)
    keys = [which for which in named if isinstance(which, str)]
    rows = [market.job_id(which) for which in named if not isinstance(which, str)]
    found = find_rows("job", market.jobs.keys, keys) if keys else np.empty(0, dtype=np.int64)
    return np.unique(np.concatenate([found, np.array(rows, dtype=np.int64)]))


def _applicant_rows(market: LabourMarket, applicants: NDArray[np.integer]) -> Ids:
    rows, n = np.asarray(applicants), len(market.applicants)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(
            f"`applicants` must be rows (m,) of the market's applicants, whole numbers, got {rows.dtype} {rows.shape}: "
            "`market.applicant_id` finds the row of a key, `np.flatnonzero` those of a mask."
        )
    outside = rows[(rows < 0) | (rows >= n)]
    if outside.size:
        raise ValueError(f"`applicants` must be rows in [0, {n}), got {outside[0]}.")
    return rows.astype(np.int64)


def _count(argument: str, value: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1 or isinstance(value, bool):
        raise ValueError(f"`{argument}` must be a whole number of at least 1, got {value!r}.")
    return count
