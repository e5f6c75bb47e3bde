"""The best jobs of a whole catalogue for an applicant, by an agent or by cosine."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import operator
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.interactions import ObservationForm, check_catalogue, of_its_env
from jobrec_gym.job_index import EXACT_UP_TO, JobSubset, open_index
from jobrec_gym.market import BLOCKS, LabourMarket, Profile, gathered, row_products
from jobrec_gym.market.context import folded
from jobrec_gym.market.dates import open_jobs
from jobrec_gym.market.keys import named_rows
from jobrec_gym.near_miss import did_you_mean
from jobrec_gym.pair_features import PairValues
from jobrec_gym.prior_sources import LESS_JOB_MEAN, SourcedPairValues, less_own_means

__all__ = ["Agent", "Recommendation", "recommend", "recommend_each"]

Ids = NDArray[np.int64]
Observation = dict[str, NDArray[Any]]

_RETRIEVED = 1_000
"""With more than :data:`~jobrec_gym.job_index.EXACT_UP_TO` jobs, an agent scores this many nearest jobs.
It scores more only if the list needs more."""
_ASKED = 4_096
"""How many jobs an agent is asked about at once; this bounds the memory of their features."""
_CHUNK = 16_384
"""How many jobs are compared at once."""
_PEOPLE = 32
"""With how many people these jobs are compared. So vectors are read, and converted to single precision, once for all of
them."""
_NO_JOBS = np.empty(0, dtype=np.int64)


class Agent(Protocol):
    """An object that scores candidates: ``DynaQ``, a bandit, or your own."""

    def q_values(self, observation: Observation) -> NDArray[np.floating]:
        """Scores of an observation's ``candidates``, (1, k) or (k,)."""


Observed = str | Mapping[str, Any] | ObservationForm
Jobs = Iterable[int | str]
"""Jobs by row or by key."""
_Posting = bytes
"""A digest that equal postings have in common."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One job of a ranked list for an applicant.

    Attributes:
        rank: From 1.
        job_id: The row in ``market.jobs``.
        key: The name that the job has in the file or data set that the market was loaded from.
        title: The job's title, or its occupation if it has no title.
        score: The number by which the job is ranked: the agent's value, or the cosine.
        cosine: Similarity of the applicant's and the job's vectors, in [-1, 1].
        shared: Skills that the job asks for and the applicant has, ignoring case, hard skills first. Neither this
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
    exclude: Jobs | Mapping[int | str | Profile | None, Jobs] = (),
    observation: Observed | None = None,
    *,
    open_at: str | datetime.date | None = None,
    distinct: bool = False,
) -> list[Recommendation]:
    """The ``n`` best jobs of the whole catalogue for one applicant.

    Every job is scored if the catalogue has at most 50,000 jobs. Jobs that are not open at ``open_at``, or that
    ``exclude`` leaves out for everybody, are not scored and do not count towards the 50,000. In a larger catalogue an
    index (:mod:`jobrec_gym.job_index`) finds the 1,000 jobs nearest by cosine, or more if ``n`` or ``distinct`` needs
    more, and the agent ranks these. Without an agent the nearest jobs are the answer.

    Args:
        agent: An object with ``q_values(observation) -> (1, k)``, such as ``DynaQ``; a function that returns one number
            for each candidate of an observation; or ``None`` for the cosine. Observations are those of ``JobRec-v0``,
            but may have more candidates than in training.
        market: Applicants and jobs.
        applicant: A row (an integer), a key (a text), or a profile that ``market.applicant`` returned. Add new people
            with ``market.with_applicants``.
        n: How many jobs; the list is shorter if there are fewer.
        exclude: Jobs to leave out, by row or by key, for example those that the person has seen. In a
            mapping the keys are people (a row, a key or a profile), and the values are the jobs to leave out for that
            person. The key ``None`` has the jobs to leave out for everybody: ``{"p1": ["j3"], None: ["j7"]}``. Every
            call reads the whole mapping, so for many people call :func:`recommend_each` once.
        observation: What the agent reads: ``"ids"`` or ``"features"``, an ``ObservationForm``, or a mapping of the
            environment's arguments ``observation``, ``job_fields``, ``pair_features``, ``pair_noise``,
            ``prior_sources`` and ``mask_in_observation``. ``pair_noise`` is 0 if it is left out, and ``prior_sources``
            must be given if the agent was trained with them. Other arguments that are left out come from
            ``agent.reads``, which ``DynaQ`` and the bandits keep in their file. Without ``reads`` the environment's
            defaults hold.
        open_at: A moment, such as ``"2026-11-30"`` or ``"2026-11-30T17:00+01:00"``. Jobs that were not yet posted then,
            or had expired, are left out. A date without a time of day is the beginning of that day. A moment without a
            time zone is in UTC. A job whose dates are unknown is not left out. The dates are those of the columns
            ``posted`` and ``expires`` of the file of jobs.
        distinct: Whether only one of several postings with equal title, skills and description is listed: the one that
            ranks best, or the one with the lowest row if several are equally good. Case and blanks do not count. Other
            fields may differ, such as place and pay. If a mapping ``exclude`` names a posting for this person, postings
            equal to it are left out too. A posting that equals a job left out for another reason may be listed, because
            a job that has expired may be posted anew.

    Returns:
        A list of recommendations, the best first. Jobs of equal score are in the order of their rows.

    Raises:
        ValueError: For an unknown applicant or job; an ``n`` below 1; an ``open_at`` that is no date; an ``open_at``
            with a market without dates; an agent that was trained on another catalogue; an agent that needs
            observations that this market does not have; an agent with a prior source that subtracts each job's mean
            over the applicants (``"less_job_mean": True``), if it was trained with other applicants; or scores that are
            not one finite number for each candidate.
        TypeError: For an object that cannot score; or for an ``exclude``, or a value of a mapping ``exclude``, that is
            a text or cannot be iterated.
        ImportError: For more than 50,000 jobs without FAISS.

    Example:
        >>> market = load_market("default")
        >>> [(job.rank, job.key) for job in recommend(None, market, 5, n=2, exclude=["J0000003"])]  # doctest: +SKIP
    """
    applicants = np.array([market.applicant_id(applicant)])
    return next(recommend_each(agent, market, applicants, n, exclude, observation, open_at=open_at, distinct=distinct))


def recommend_each(
    agent: Agent | Callable[[Observation], Any] | None,
    market: LabourMarket,
    applicants: NDArray[np.integer],
    n: int = 10,
    exclude: Jobs | Mapping[int | str | Profile | None, Jobs] = (),
    observation: Observed | None = None,
    batch_size: int = 1,
    *,
    open_at: str | datetime.date | None = None,
    distinct: bool = False,
) -> Iterator[list[Recommendation]]:
    """:func:`recommend` for many applicants, one after the other.

    Args:
        agent: As in :func:`recommend`, like all arguments below but ``applicants`` and ``batch_size``.
        market: Applicants and jobs.
        applicants: Rows of the market's applicants, (m,).
        n: How many jobs for each.
        exclude: Jobs to leave out for all; or a mapping from people to the jobs to leave out for each of them. For
            people who are not in the mapping, only the jobs under ``None`` are left out.
        observation: What the agent reads.
        batch_size: How many applicants an agent scores at once. It may be above 1 only if ``q_values`` takes a batch of
            observations and returns (batch_size, k), as that of ``DynaQ`` and the bandits does.
        open_at: When the jobs must be open.
        distinct: Whether only one of several equal postings is listed.

    Raises:
        ValueError: As :func:`recommend`; and for rows that are no whole numbers, or that do not exist.
    """
    n, batch_size = _count("n", n), _count("batch_size", batch_size)
    if not isinstance(distinct, bool | np.bool_):
        raise ValueError(f"`distinct` must be True or False, got {distinct!r:.80}.")
    catalogue = _Catalogue.of(market, exclude, open_at)
    scorer = None if agent is None else _Scorer(agent, market, _form(agent, market, observation))
    return _lists(scorer, market, _applicant_rows(market, applicants), n, catalogue, batch_size, bool(distinct))


def _lists(
    scorer: _Scorer | None,
    market: LabourMarket,
    applicants: Ids,
    n: int,
    catalogue: _Catalogue,
    batch_size: int,
    distinct: bool,
) -> Iterator[list[Recommendation]]:
    every = catalogue.every
    postings = _Postings(market)
    size = 1 if every is None else _PEOPLE
    if scorer is not None:
        size = 1 if scorer.is_function or every is None else batch_size
    for start in range(0, len(applicants), size):
        people = applicants[start : start + size]
        left_out = [catalogue.own(person) for person in people.tolist()]
        common = reduce(np.intersect1d, left_out)
        if every is None:
            known = postings.of(catalogue.own(int(people[0]))) if distinct else None
            # Copies of a posting are equally near, and jobs are found nearest first. So once a further posting is found
            # after the n listed ones, all copies of the listed ones are found, too.
            n_postings = n + 1 if distinct else n
            wanted = n_postings if scorer is None else max(n_postings, _RETRIEVED)
            jobs = _retrieved(postings, int(people[0]), n_postings, wanted, common, catalogue.subset, known)
        else:
            jobs = every[~np.isin(every, common)] if len(common) else every
        scores = _cosines(market, people, jobs) if scorer is None else scorer(people, jobs)
        for person, own, values in zip(people.tolist(), left_out, scores, strict=True):
            order = np.argsort(-values, kind="stable")
            if len(own) > len(common):
                order = order[~np.isin(jobs[order], own)]
            best = order[:n]
            if distinct:
                best = postings.first_of_each(jobs, order, n, postings.of(catalogue.own(person)))
            yield _explained(market, person, jobs[best], values[best])


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """The jobs that may be listed.

    Attributes:
        every: All jobs that are compared one by one, ascending; ``None`` if the index finds the nearest.
        subset: The jobs that the index may find; ``None`` is all.
        each: By an applicant's row, the jobs that this person may not get, ascending.
    """

    every: Ids | None
    subset: JobSubset | None
    each: Mapping[int, Ids]

    @classmethod
    def of(cls, market: LabourMarket, exclude: Any, open_at: Any) -> _Catalogue:
        """The catalogue of a market without jobs that are left out or not open."""
        each = {}
        if isinstance(exclude, Mapping):
            each = _jobs_of_each(market, {who: jobs for who, jobs in exclude.items() if who is not None})
            exclude = exclude.get(None, ())
        n_jobs, left_out = len(market.jobs), _job_ids(market, exclude)
        if n_jobs > EXACT_UP_TO and open_at is None and not len(left_out):
            return cls(None, None, each)
        is_listed = np.ones(n_jobs, dtype=bool) if open_at is None else open_jobs(market, open_at)
        is_listed[left_out] = False
        listed = np.flatnonzero(is_listed)
        return cls(None, JobSubset.of(listed, n_jobs), each) if len(listed) > EXACT_UP_TO else cls(listed, None, each)

    def own(self, applicant_id: int) -> Ids:
        """The jobs that only this person may not get, ascending."""
        return self.each.get(applicant_id, _NO_JOBS)


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
        if len(people) == 1:  # no batch axis, as in a single environment
            seen = {key: values[0] for key, values in seen.items()}
        scores = np.asarray(self._ask(seen), dtype=np.float64)
        if scores.shape == (len(jobs),):
            scores = scores[None]
        if scores.shape != (len(people), len(jobs)) or not np.isfinite(scores).all():
            raise ValueError(
                f"`agent` must give {(len(people), len(jobs))} finite numbers, one for each candidate, got shape "
                f"{scores.shape}, {int(np.isfinite(scores).sum())} of them finite."
            )
        return scores


def _form(agent: Any, market: LabourMarket, observation: Observed | None) -> ObservationForm:
    """The form of the agent's observations."""
    if isinstance(observation, ObservationForm):
        return observation
    given: dict[str, Any] = {"observation": observation} if isinstance(observation, str) else dict(observation or {})
    known = ("observation", "job_fields", "pair_features", "pair_noise", "prior_sources", "mask_in_observation")
    for name in given:
        if name not in known:
            raise ValueError(f"`observation` may say {known}, got {name!r}.{did_you_mean(name, known)}")
    reads = getattr(agent, "reads", None) or {}
    if others := sorted(set(reads.get("entries", {})) - {"applicant"}):
        raise ValueError(
            f"`agent` also reads {others} of an observation, which a catalogue does not have. Pass a function in place "
            "of the agent: it takes an observation, adds these entries and asks the agent."
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
        if not isinstance(features, str):  # "all" features do not include sources
            features = tuple(name for name in features if name not in sources)
        values = SourcedPairValues(market, features, noise, sources)
        if (values.names, values.described) != (columns, reads["prior_sources"]):
            raise ValueError(
                f"`prior_sources` must be those of training, {reads['prior_sources']} in the columns {columns}, got "
                f"{values.described} in {values.names}."
            )
        # Agents that were saved by earlier versions do not know the settings.
        if values.settings != (asked := reads.get("source_settings", values.settings)):
            raise ValueError(
                f"`prior_sources` must ask language models as in training, with {asked}, got {values.settings}."
            )
        _refuse_means_of_others(agent, market, sources)
        form = dataclasses.replace(form, pair_features=columns, ask_pairs=values)
    elif noise:
        form = dataclasses.replace(form, ask_pairs=PairValues(market, form.pair_features, noise))
    return form


def _refuse_means_of_others(agent: Any, market: LabourMarket, sources: Mapping[str, Any]) -> None:
    """Refuses sources that subtract the means over a market's people, if the agent was trained on other people's means.

    On whose means an agent was trained is known only if it holds its environment.
    """
    less = less_own_means(sources)
    trained_on = of_its_env(agent, "market") if less else None
    if trained_on is None:
        return
    people = trained_on.applicants.vectors
    if people is not market.applicants.vectors and not np.array_equal(people, market.applicants.vectors):
        raise ValueError(
            f"`prior_sources[{less[0]!r}]` subtracts each job's mean over the applicants of the market. This market "
            "has other applicants than the market of training, so the means differ, and the agent would read other "
            "numbers. Recommend on the market of training, or train an agent whose source has fixed means, one number "
            f'for each job: `"{LESS_JOB_MEAN}": (n_jobs,)`.'
        )


def _retrieved(
    postings: _Postings,
    applicant_id: int,
    n: int,
    wanted: int,
    left_out: Ids,
    subset: JobSubset | None,
    known: Set[_Posting] | None,
) -> Ids:
    """The ``wanted`` nearest jobs by the index, ascending.

    If postings are ``known``, more jobs follow until ``n`` different postings are found that are not ``known``.
    """
    market = postings.market
    vector = market.applicants.vectors[applicant_id].astype(np.float32, copy=False)
    n_jobs = len(market.jobs) if subset is None else subset.n_jobs
    while True:
        n_found = min(wanted + len(left_out), n_jobs)
        found = open_index(market).nearest(vector, n_found, subset)
        jobs = found[~np.isin(found, left_out)]
        is_enough = known is None or (n_found == n_jobs and len(jobs) <= wanted)
        jobs = jobs[:wanted]
        if is_enough or len(postings.first_of_each(jobs, np.arange(len(jobs)), n, known or set())) == n:
            return np.sort(jobs)
        wanted *= 2


class _Postings:
    """What the jobs of a market say. A job's texts are read once, however many people it is compared for."""

    def __init__(self, market: LabourMarket):
        self.market = market
        self._of_job: dict[int, _Posting] = {}

    def of(self, jobs: Ids) -> set[_Posting]:
        """The postings of some jobs."""
        return {self._posting(job_id) for job_id in jobs.tolist()}

    def first_of_each(self, jobs: Ids, order: Ids, n: int, known: Set[_Posting]) -> Ids:
        """The first ``n`` places of an ``order`` of ``jobs`` whose postings differ and are not ``known``."""
        seen = set(known)
        places: list[int] = []
        for place in order.tolist():
            if len(places) == n:
                break
            posting = self._posting(int(jobs[place]))
            if posting not in seen:
                seen.add(posting)
                places.append(place)
        return np.array(places, dtype=np.int64)

    def _posting(self, job_id: int) -> _Posting:
        posting = self._of_job.get(job_id)
        if posting is None:
            said = repr(_said(self.market, job_id)).encode(errors="surrogatepass")
            posting = self._of_job[job_id] = hashlib.blake2b(said, digest_size=16).digest()
        return posting


def _said(market: LabourMarket, job_id: int) -> tuple[Any, ...]:
    """Title (or occupation, if there is no title), skills and description of a job; case does not count, nor blanks."""
    jobs, words = market.jobs, market.vocabulary
    skills = []
    for block in BLOCKS:
        names, ids = getattr(words, f"{block}_skills"), getattr(jobs, f"{block}_skills")[job_id]
        skills.append(sorted({_compared(names[skill]) for skill in ids.tolist()}))
    title = _compared(words.titles[jobs.title_ids[job_id]]) or ("occupation", int(jobs.occupation_ids[job_id]))
    return title, *skills, "" if jobs.descriptions is None else _compared(jobs.descriptions[job_id])


def _compared(text: str) -> str:
    # `folded` would keep every text that it has seen, and descriptions may be long.
    return " ".join(text.casefold().split())


def _cosines(market: LabourMarket, people: Ids, jobs: Ids) -> NDArray[np.float32]:
    """Cosines (b, c) of applicants (b,) and jobs (c,), equal to those of :meth:`LabourMarket.cosine` to the bit."""
    of_people = gathered(market.applicants.vectors, people)
    n_jobs, vectors = len(market.jobs), market.jobs.vectors
    # Cosines of all jobs are computed if most are wanted: this takes a third of the time of copying most vectors.
    with_all = 2 * len(jobs) >= n_jobs
    cosines = np.empty((len(people), n_jobs if with_all else len(jobs)), np.float32)
    for at in range(0, cosines.shape[1], _CHUNK):
        part = slice(at, at + _CHUNK)
        of_jobs = vectors[part].astype(np.float32, copy=False) if with_all else gathered(vectors, jobs[part])
        for row, of_person in zip(cosines, of_people, strict=True):
            row[part] = row_products(of_person, of_jobs)
    return cosines[:, jobs] if with_all and len(jobs) < n_jobs else cosines


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
    return np.unique(_excluded_rows(market, exclude))


def _jobs_of_each(market: LabourMarket, exclude: Mapping[Any, Any]) -> dict[int, Ids]:
    """Rows of jobs by the rows of people, both named by row or by key; ascending and distinct for each person."""
    people = _all_named("applicant", market.applicants.keys, list(exclude))
    listed = []
    for who, jobs in exclude.items():
        if isinstance(jobs, str) or not isinstance(jobs, Iterable):
            raise TypeError(
                f"`exclude[{who!r:.80}]` must be a sequence of rows or keys of jobs, got {jobs!r:.80}: a mapping names "
                "people, and the jobs to leave out for each, {'p1': ['j3']}."
            )
        listed.append(jobs if isinstance(jobs, np.ndarray) and jobs.dtype.kind in "iu" else list(jobs))
    # The keys of all people are looked up together, because each search goes through all keys of the market.
    lists = [jobs for jobs in listed if isinstance(jobs, list)]
    texts = list(dict.fromkeys(which for jobs in lists for which in jobs if isinstance(which, str)))
    rows = dict(zip(texts, _all_named("job", market.jobs.keys, texts).tolist(), strict=True))
    each: dict[int, Ids] = {}
    for person, jobs in zip(people.tolist(), listed, strict=True):
        if isinstance(jobs, list):
            jobs = [rows[which] if isinstance(which, str) else which for which in jobs]
        own = _excluded_rows(market, jobs)
        each[person] = np.union1d(each.get(person, _NO_JOBS), own)
    return each


def _excluded_rows(market: LabourMarket, jobs: Iterable[int | str]) -> Ids:
    """:func:`named_rows` of jobs, with an error that names the argument."""
    try:
        return named_rows("job", market.jobs.keys, jobs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`exclude`: {error}") from error


def _all_named(side: str, keys: NDArray[np.str_], named: list[Any]) -> Ids:
    """:func:`named_rows`, with an error that counts the unknown keys."""
    try:
        return named_rows(side, keys, named)
    except ValueError as error:
        known = set(keys.tolist())
        texts = dict.fromkeys(which for which in named if isinstance(which, str))
        unknown = [key for key in texts if not known & {key, unicodedata.normalize("NFC", key)}]
        if len(unknown) < 2:
            raise
        raise ValueError(
            f"`exclude` names {len(unknown):,} {side}s that the market does not have, such as "
            f"{', '.join(f'{key!r:.80}' for key in unknown[:3])}: leave them out of the mapping. {error}"
        ) from None


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
