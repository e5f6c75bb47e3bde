"""Trains learners on the answers of a log, one by one, and scores them on people whom they never met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from hydra import compose
from numpy.typing import NDArray
from omegaconf import DictConfig

from experiments.learners.lexical import PairScores
from experiments.runs.evaluation import ranks_of
from experiments.runs.folders import RunError
from experiments.runs.recording import AtInteractions
from experiments.studies.runs import read_learner
from jobrec_gym import (
    Interactions,
    JobRecVectorEnv,
    LabourMarket,
    LoggedSimulator,
    ObservationForm,
    VectorFeedbackReward,
)
from jobrec_gym.counter_rng import hash64, permute
from jobrec_gym.metrics import auc, hit_rate_at_k, ndcg_at_k

__all__ = [
    "AnsweredCandidates",
    "LogSets",
    "compose_on_log",
    "folds_of",
    "form_of",
    "pairs_of",
    "replay_learner",
    "replay_scores",
]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
PairNames = str | Sequence[str]

_FOLD, _SCORED = 1, 2
_EPISODE = 10


def compose_on_log(name: str, pair_features: PairNames, *overrides: str) -> DictConfig:
    """The config of a learner that learns from a log, from all people and jobs.

    It works only while Hydra is initialised with the folder ``conf``.

    Args:
        name: The learner's name in ``conf/learner``.
        pair_features: Pair features to show, or ``"all"``; if empty, those of the learner's own config.
        overrides: Further overrides of ``experiments.train``.
    """
    named = pair_features if isinstance(pair_features, str) else f"[{','.join(pair_features)}]"
    pairs = [f"env.pair_features={named}"] if pair_features else []
    of_all = ["env.split=all", "env.job_split=all"]
    return compose("train", [*read_learner(name).overrides_on_logs, *of_all, *pairs, *overrides])


def form_of(shown: Mapping[str, Any]) -> ObservationForm:
    """The form in which environments with the entries ``env`` of a resolved config show a decision."""
    fields, pairs = tuple(shown["job_fields"]), pairs_of(shown["pair_features"])
    return ObservationForm(shown["observation"], fields, pairs, shown["mask_in_observation"])


def pairs_of(pair_features: PairNames) -> PairNames:
    """Names of pair features as an :class:`~jobrec_gym.ObservationForm` takes them; ``"all"`` stays as it is."""
    return pair_features if isinstance(pair_features, str) else tuple(pair_features)


class AnsweredCandidates:
    """Samples candidates from the jobs that a person has answered, so that every recommendation has an answer.

    Args:
        interactions: The log. Every person in it must have answered at least as many jobs as are shown.
    """

    def __init__(self, interactions: Interactions):
        self._interactions = interactions

    def bind(self, market: LabourMarket, job_ids: Ids, num_candidates: int) -> _BoundAnswered:
        """See :class:`~jobrec_gym.candidates.CandidateSampler`."""
        return _BoundAnswered(answered_jobs(self._interactions.on(market)), num_candidates)


class _BoundAnswered:
    def __init__(self, answered: dict[int, Ids], num_candidates: int):
        self.num_candidates = num_candidates
        self._answered = answered

    def sample(self, applicant_ids: Ids, keys: NDArray[np.uint64]) -> Ids:
        places = np.arange(self.num_candidates)
        drawn = np.empty((len(applicant_ids), self.num_candidates), np.int64)
        for row, person in enumerate(applicant_ids.tolist()):
            jobs = self._answered[person]
            drawn[row] = jobs[permute(keys[row : row + 1], places, len(jobs))]
        return drawn


def answered_jobs(interactions: Interactions) -> dict[int, Ids]:
    """The jobs that each person of a log has answered, ascending."""
    rows = interactions.answered
    pairs = np.unique(np.stack([interactions.applicant_ids[rows], interactions.job_ids[rows]], axis=1), axis=0)
    people, first = np.unique(pairs[:, 0], return_index=True)
    return dict(zip(people.tolist(), np.split(pairs[:, 1], first[1:]), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class LogSets:
    """Fixed candidate sets of a log's people, which learners rank. The answers to all candidates are known.

    Attributes:
        market: The market whose rows the ids are.
        people: (n,), the person of each set.
        sets: (n, n_candidates), ids of the jobs.
        reward: (n, n_candidates), mean reward of each.
        form: The form in which a set is shown to an agent.
        k: Cut-off of nDCG and hit rate.
        hit_above: A reward above it is a hit.
    """

    market: LabourMarket
    people: Ids
    sets: Ids
    reward: Floats
    form: ObservationForm
    k: int
    hit_above: float

    @classmethod
    def of(
        cls,
        log: Interactions,
        n_candidates: int,
        n_sets: int,
        form: ObservationForm,
        k: int,
        hit_above: float,
        seed: int,
    ) -> LogSets:
        """``n_sets`` sets of each person who has answered ``n_candidates`` jobs or more.

        Raises:
            RunError: If nobody has answered so many jobs, or no set has both hits and other jobs.
        """
        log.warn_if_moving()
        answered = {person: jobs for person, jobs in answered_jobs(log).items() if len(jobs) >= n_candidates}
        if not answered:
            most = max(map(len, answered_jobs(log).values()), default=0)
            raise RunError(
                f"`n_candidates` is {n_candidates}, but nobody in the log has answered so many jobs: the most is "
                f"{most}."
            )
        people = np.repeat(np.array(sorted(answered)), n_sets)
        keys = hash64(seed, _SCORED, people, np.tile(np.arange(n_sets), len(answered)))
        sets = _BoundAnswered(answered, n_candidates).sample(people, keys)
        reward = _mean_rewards(log, people, sets)
        n_hits = (reward > hit_above).sum(axis=1)
        if not ((n_hits > 0) & (n_hits < n_candidates)).any():
            raise RunError(
                f"no set of answered jobs holds both a hit (a reward above `hit_above`={hit_above}) and others, "
                f"so that there is nothing to rank: rewards are {reward.min():g} to {reward.max():g}. A log of hits "
                "alone does not say what people did not want."
            )
        return cls(log.market, people, sets, reward, form, k, hit_above)

    def take(self, rows: NDArray[np.bool_]) -> LogSets:
        """Some of the sets."""
        parts = self.people[rows], self.sets[rows], self.reward[rows]
        return LogSets(self.market, *parts, self.form, self.k, self.hit_above)

    def score(self, scores: Floats) -> dict[str, dict[int, float]]:
        """Each metric by person, from scores (n, n_candidates): the mean over the person's sets that have a hit.

        For AUC a set must also have a job that is no hit. NaN ranks last.
        """
        scores = ranks_of(scores)
        hits = self.reward > self.hit_above
        metrics = {
            "AUC": auc(scores, hits),
            f"nDCG@{self.k}": ndcg_at_k(scores, np.where(hits, self.reward, 0.0), self.k, ties="mean"),
            f"hit@{self.k}": hit_rate_at_k(scores, hits, self.k, ties="mean"),
        }
        result: dict[str, dict[int, float]] = {}
        for name, values in metrics.items():
            known = ~np.isnan(values)
            people, place = np.unique(self.people[known], return_inverse=True)
            means = np.bincount(place, weights=values[known]) / np.bincount(place)
            result[name] = dict(zip(people.tolist(), means.tolist(), strict=True))
        return result

    def score_agent(self, agent: Any) -> dict[str, dict[int, float]]:
        """:meth:`score` of an agent's Q-values."""
        observation = self.form(self.market, self.people, self.sets)
        return self.score(np.asarray(agent.q_values(observation), np.float64))


def folds_of(people: Ids, n_folds: int, seed: int) -> Ids:
    """A fold in [0, n_folds) for each of some people (n,). The sizes of folds differ by at most one.

    Raises:
        RunError: If there are fewer people than folds, or fewer than two folds.
    """
    if not 2 <= n_folds <= len(people):
        raise RunError(f"`n_folds` must be in [2, {len(people)}], at most the number of people, got {n_folds}.")
    folds = np.empty(len(people), np.int64)
    folds[np.argsort(hash64(seed, _FOLD, people), kind="stable")] = np.arange(len(people)) % n_folds
    return folds


def replay_learner(
    make: Callable[[VectorEnv, int], Any],
    log: Interactions,
    sets: LogSets,
    points: Sequence[int],
    n_folds: int,
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> dict[str, dict[int, list[float]]]:
    """Scores a learner's rankings for people whom it never met, after some numbers of answers by other people.

    In each fold a new learner learns online. It is shown sets of jobs that people of the other folds have answered,
    recommends one, and is told the answer.

    Args:
        make: Function that makes the learner from an environment and the number of the fold.
        log: The log with the answers.
        sets: The candidate sets to rank.
        points: Numbers of answers after which the learner is scored, ascending.
        n_folds: Number of folds of people.
        seed: Seed of folds and episodes.
        done: Function that is called after each fold.

    Returns:
        Metric -> person -> the score at each point.
    """
    people = np.unique(sets.people)
    fold_of = dict(zip(people.tolist(), folds_of(people, n_folds, seed).tolist(), strict=True))
    folds = np.array([fold_of[person] for person in sets.people.tolist()])
    found: dict[str, dict[int, list[float]]] = {}
    for fold in range(n_folds):
        others = np.array([person for person in people.tolist() if fold_of[person] != fold])
        own = sets.take(folds == fold)
        agent = make(_env_of(log, others, sets), fold)

        def score(now: int, agent: Any = agent, own: LogSets = own) -> None:
            for metric, by_person in own.score_agent(agent).items():
                for person, value in by_person.items():
                    found.setdefault(metric, {}).setdefault(person, []).append(value)

        learns = [point for point in points if point]
        if len(learns) < len(points):
            score(0)
        if learns:
            agent.learn(max(learns), callback=AtInteractions(learns, score))
        done()
    return found


def replay_scores(scores: PairScores, sets: LogSets, n_points: int) -> dict[str, dict[int, list[float]]]:
    """Scores of a ranking that does not learn, in the form of :func:`replay_learner`."""
    values = sets.score(scores(sets.people[:, None], sets.sets))
    return {metric: {who: [value] * n_points for who, value in people.items()} for metric, people in values.items()}


def _env_of(log: Interactions, people: Ids, sets: LogSets) -> VectorEnv:
    """An environment in which these people answer as they did in the log."""
    market = log.market
    theirs = LabourMarket(
        market.name,
        market.applicants.take(people, np.zeros(len(people), dtype=bool)),
        market.jobs,
        market.vocabulary,
        title_vectors=market.title_vectors,
        experience_vectors=market.experience_vectors,
        text_blocks=market.text_blocks,
        context={name: table.take(people, np.arange(len(market.jobs))) for name, table in market.context.items()},
    )
    known = log.take(np.isin(log.applicant_ids, people) & log.answered).on(theirs)
    env = JobRecVectorEnv(
        num_envs=1,
        max_episode_steps=_EPISODE,
        autoreset_mode="SameStep",
        market=theirs,
        job_split="all",
        num_candidates=sets.sets.shape[1],
        candidate_sampler=AnsweredCandidates(known),
        resample="step",
        observation="ids" if sets.form.observation == "ids" else "features",
        mask_in_observation=sets.form.mask_in_observation,
        job_fields=sets.form.job_fields,
        pair_features=sets.form.pair_features,
    )
    return VectorFeedbackReward(env, LoggedSimulator(known))


def _mean_rewards(log: Interactions, people: Ids, sets: Ids) -> Floats:
    """Mean reward (n, n_candidates) of pairs, all of which are answered."""
    n_jobs = len(log.market.jobs)
    rows = np.flatnonzero(log.answered)
    pairs, place = np.unique(log.applicant_ids[rows] * n_jobs + log.job_ids[rows], return_inverse=True)
    means = np.bincount(place, weights=log.reward[rows]) / np.bincount(place)
    return means[np.searchsorted(pairs, people[:, None] * n_jobs + sets)]
