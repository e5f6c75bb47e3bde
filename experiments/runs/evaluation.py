"""Scores an agent on applicants whom it has never met, in comparison with random, cosine and the oracle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobrec_gym import JobRecVectorEnv, LabourMarket
from jobrec_gym.metrics import (
    congestion,
    coverage,
    discounted_return,
    gini,
    hit_rate_at_k,
    lorenz,
    mrr,
    ndcg_at_k,
    normalised_score,
)
from jobrec_gym.rewards import scaled_cosine

__all__ = [
    "REFERENCES",
    "CosineTruth",
    "Evaluation",
    "HeldOutEvaluation",
    "HeldOutPairs",
    "Metrics",
    "Truth",
    "choice_metrics",
    "cosine_of",
    "draw_pairs",
    "exposure",
    "outcomes_by_family",
    "random_metrics",
    "ranking_metrics",
    "ranks_of",
]

_log = logging.getLogger(__name__)

Ids = NDArray[np.int64]
Obs = dict[str, NDArray[Any]]
Metrics = dict[str, float | None]

REFERENCES = ("random", "cosine", "oracle")
CUTOFFS = (1, 5, 10)
NDCG_CUTOFF = 10
MOST_RECOMMENDED = 10
EXAMPLE_JOBS = 5
NO_FAMILY = "unknown"
_GINI_DRAWS = 50

_BATCH = 8192
"""Most candidates in one call of an agent. This bounds the memory if the whole catalogue is shown."""


class Truth(Protocol):
    """A simulator that knows expected rewards, like :class:`~jobrec_gym.simulators.rules.BoundRuleSimulator`."""

    def expected_reward(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        """Mean reward of pairs, for ids of shapes that broadcast."""

    def decisions(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.str_]:
        """The applicants' decisions without noise, for ids of shapes that broadcast."""


class Evaluation(Protocol):
    """Evaluates any number of agents on the same held-out applicants. The first metric is the ``score``."""

    def __call__(self, model: Any) -> Metrics:
        """Metrics of an agent, for its learning curve."""

    def with_return(self, model: Any) -> Metrics:
        """The same metrics, and those that take longer to compute."""

    def references(self) -> dict[str, Metrics]:
        """The same metrics of policies that learn nothing, :data:`REFERENCES` among them."""

    def outcomes(self, model: Any) -> dict[str, Any]:
        """How an agent's recommendations are distributed over applicants and jobs, in plain JSON."""

    def reference_outcomes(self) -> dict[str, dict[str, Any]]:
        """:meth:`outcomes` of policies that learn nothing."""

    def example(self, model: Any) -> Any:
        """The recommendations to one applicant by an agent, ``"cosine"`` or ``"oracle"``, in plain JSON."""

    def example_applicant(self) -> dict[str, Any]:
        """The applicant of :meth:`example`."""


class CosineTruth:
    """Scores agents as if the cosine were the expected reward, as it is with ``reward=cosine``.

    It has no decisions.
    """

    def __init__(self) -> None:
        self._market: LabourMarket | None = None

    def bind(self, market: LabourMarket) -> CosineTruth:
        """Binds it to a market."""
        self._market = market
        return self

    def expected_reward(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
        """Cosine in [0, 1] of pairs, for ids of shapes that broadcast."""
        assert self._market is not None, "bind it first"
        return cosine_of(self._market, applicant_ids, job_ids)

    def decisions(self, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.str_]:
        """An empty text for each pair, because there are no decisions."""
        return np.full(np.broadcast_shapes(np.shape(applicant_ids), np.shape(job_ids)), "", dtype="<U1")


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPairs:
    """n applicants with k candidates each, and the expected reward of each candidate.

    Attributes:
        obs: The batch of n observations that an agent reads.
        applicant_ids: (n,).
        candidate_ids: (n, k).
        expected: float64 (n, k), expected reward.
        applies: bool (n, k), whether the applicant would apply, without noise.
        cosine: float64 (n, k), cosine reward in [0, 1].
        n_jobs: How many jobs could have been shown.
        families: (n,) texts, the applicants' families of occupations.
    """

    obs: Obs
    applicant_ids: Ids
    candidate_ids: Ids
    expected: NDArray[np.float64]
    applies: NDArray[np.bool_]
    cosine: NDArray[np.float64]
    n_jobs: int
    families: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.candidate_ids)


def draw_pairs(
    market: LabourMarket,
    truth: Truth,
    env_options: Mapping[str, Any],
    n_pairs: int,
    seed: int,
    make: Callable[..., JobRecVectorEnv] = JobRecVectorEnv,
) -> HeldOutPairs:
    """Fixed (applicant, candidate set) pairs: the first observations of environments seeded with ``seed + i``.

    Args:
        market: The market of the applicants and jobs.
        truth: The simulator that knows the expected rewards.
        env_options: Keywords of ``JobRec-v0`` except the market; ``split`` and ``job_split`` say what is held out.
        n_pairs: How many pairs.
        seed: Equal seeds give equal pairs for every learner.
        make: Function that makes the environments.

    Raises:
        ValueError: If ``n_pairs`` is below 1.
    """
    if n_pairs < 1:
        raise ValueError(f"`n_pairs` must be at least 1, got {n_pairs}.")
    env = make(num_envs=n_pairs, market=market, **env_options)
    obs, infos = env.reset(seed=seed)
    applicants, candidates = infos["applicant_id"][:, None], infos["candidate_ids"]
    step = max(1, 2**20 // candidates.shape[1])
    parts = [slice(start, start + step) for start in range(0, n_pairs, step)]
    return HeldOutPairs(
        obs=obs,
        applicant_ids=infos["applicant_id"],
        candidate_ids=candidates,
        expected=np.concatenate([truth.expected_reward(applicants[part], candidates[part]) for part in parts]),
        applies=np.concatenate([truth.decisions(applicants[part], candidates[part]) for part in parts]) == "apply",
        cosine=np.concatenate([cosine_of(market, applicants[part], candidates[part]) for part in parts]),
        n_jobs=len(market.jobs.rows(env_options["job_split"])),
        families=_families(market, infos["applicant_id"]),
    )


class HeldOutEvaluation:
    """Evaluates any number of agents on the same pairs and episodes.

    Args:
        market: The market of the applicants and jobs.
        truth: The simulator that knows the expected rewards.
        env_options: Keywords of ``JobRec-v0`` except the market: those of training, with other splits.
        n_pairs: Number of fixed (applicant, candidate set) pairs.
        n_episodes: Number of greedy episodes for the discounted return.
        max_episode_steps: Length of these episodes.
        gamma: Discount of the return, the agent's own.
        terminate_on: Decisions that end an episode.
        seed: Seed of pairs and episodes.
        make: Function that makes the environments.
    """

    def __init__(
        self,
        market: LabourMarket,
        truth: Truth,
        env_options: Mapping[str, Any],
        *,
        n_pairs: int = 2048,
        n_episodes: int = 512,
        max_episode_steps: int = 10,
        gamma: float = 0.9,
        terminate_on: Sequence[str] = (),
        seed: int = 1_000_000,
        make: Callable[..., JobRecVectorEnv] = JobRecVectorEnv,
    ):
        self.pairs = draw_pairs(market, truth, env_options, n_pairs, seed, make)
        self._make = make
        self._market = market
        self._truth = truth
        self._env_options = dict(env_options)
        self._n_episodes = n_episodes
        self._max_episode_steps = max_episode_steps
        self._gamma = gamma
        self._terminate_on = tuple(terminate_on)
        self._seed = seed

    def __call__(self, model: Any) -> Metrics:
        """Metrics of an agent on the pairs; see :func:`ranking_metrics`.

        Args:
            model: An agent with ``q_values(obs) -> (n, k)``, or only with SB3's ``predict``. In the second case the
                metrics of a whole ranking are ``None``.
        """
        if hasattr(model, "q_values"):
            return ranking_metrics(self.pairs, self._of_all(model.q_values))
        return choice_metrics(self.pairs, self._choices(model))

    def with_return(self, model: Any) -> Metrics:
        """The same metrics, and the ``discounted_return`` of greedy episodes."""
        return {
            **self(model),
            "discounted_return": self._play(lambda obs, _: model.predict(obs, deterministic=True)[0]),
        }

    def references(self) -> dict[str, Metrics]:
        """The same metrics of a random choice, of the highest cosine, and of the oracle.

        The metrics of the random choice are exact expectations over the candidates, with two exceptions. Its return
        comes from one seeded play, and its Gini coefficient is a mean over seeded draws.
        """
        rng = np.random.default_rng(self._seed)
        rankings = {"cosine": self.pairs.cosine, "oracle": self.pairs.expected}
        scorers: dict[str, Callable[[Ids, Ids], NDArray[np.float64]]] = {
            "random": lambda applicants, candidates: rng.random(candidates.shape),
            "cosine": lambda applicants, candidates: cosine_of(self._market, applicants, candidates),
            "oracle": self._truth.expected_reward,
        }

        def chooser(name: str) -> Callable[[Obs, dict[str, Any]], Ids]:
            def choose(obs: Obs, infos: dict[str, Any]) -> Ids:
                scores = scorers[name](infos["applicant_id"][:, None], infos["candidate_ids"])
                return np.where(infos["action_mask"], scores, -np.inf).argmax(axis=1)

            return choose

        metrics = {
            name: ranking_metrics(self.pairs, rankings[name]) if name in rankings else random_metrics(self.pairs)
            for name in REFERENCES
        }
        return {
            name: {**metrics[name], "discounted_return": self._play(chooser(name), greedy=name != "random")}
            for name in REFERENCES
        }

    def outcomes(self, model: Any) -> dict[str, Any]:
        """How a greedy agent's recommendations are distributed over applicants and jobs, in plain JSON.

        Returns:
            ``exposure``, see :func:`exposure`; ``by_family``, see :func:`outcomes_by_family`; and, for an agent with
            ``predict_reward``, ``world_model``: ``r2`` and ``correlation`` of its predictions for all candidates with
            the expected rewards, ``None`` if these do not vary.
        """
        outcomes = self._outcomes(self._choices(model))
        if hasattr(model, "predict_reward"):
            outcomes["world_model"] = prediction_quality(self._of_all(model.predict_reward), self.pairs.expected)
        return outcomes

    def reference_outcomes(self) -> dict[str, dict[str, Any]]:
        """:meth:`outcomes` of :data:`REFERENCES`. Those of random come from one seeded draw."""
        drawn = np.random.default_rng(self._seed).integers(self.pairs.expected.shape[1], size=len(self.pairs))
        chosen = {"random": drawn, "cosine": self.pairs.cosine.argmax(1), "oracle": self.pairs.expected.argmax(1)}
        return {name: self._outcomes(chosen[name]) for name in REFERENCES}

    def example(self, model: Any) -> list[dict[str, Any]]:
        """The five best candidates of one held-out applicant, best first; one if the agent does not rank candidates.

        Args:
            model: An agent, ``"cosine"`` or ``"oracle"``.

        Returns:
            ``title``, ``key``, ``expected`` (reward), ``applies`` (without noise) and ``cosine`` of each.
        """
        row, pairs = self._example_row, self.pairs
        obs = {key: rows[row : row + 1] for key, rows in pairs.obs.items()}
        if isinstance(model, str):
            scores = {"cosine": pairs.cosine, "oracle": pairs.expected}[model]
            places = np.argsort(-scores[row], kind="stable")[:EXAMPLE_JOBS]
        elif hasattr(model, "q_values"):
            places = np.argsort(-np.asarray(model.q_values(obs))[0], kind="stable")[:EXAMPLE_JOBS]
        else:
            places = np.asarray(model.predict(obs, deterministic=True)[0])[:1]
        jobs = [self._market.job(int(job)) for job in pairs.candidate_ids[row, places]]
        return [
            {
                "title": job.title or job.occupation or "",
                "key": str(job.key),
                "expected": float(pairs.expected[row, place]),
                "applies": bool(pairs.applies[row, place]),
                "cosine": float(pairs.cosine[row, place]),
            }
            for job, place in zip(jobs, places, strict=True)
        ]

    def example_applicant(self) -> dict[str, Any]:
        """The applicant of :meth:`example`: ``key``, ``title``, ``skills``, and ``n_candidates`` that were ranked."""
        person = self._market.applicant(int(self.pairs.applicant_ids[self._example_row]))
        return {
            "key": str(person.key),
            "title": person.title or person.occupation or "",
            "skills": [*person.hard_skills, *person.soft_skills],
            "n_candidates": int(self.pairs.candidate_ids.shape[1]),
        }

    @property
    def _example_row(self) -> int:
        """The first applicant who would apply to some candidate; the first of all if nobody would."""
        return int(self.pairs.applies.any(axis=1).argmax())

    def _outcomes(self, chosen: Ids) -> dict[str, Any]:
        return {
            "exposure": exposure(self.pairs, chosen, self._market),
            "by_family": outcomes_by_family(self.pairs, chosen),
        }

    def _choices(self, model: Any) -> Ids:
        """The agent's choices on the pairs, (n,)."""
        if hasattr(model, "q_values"):
            return ranks_of(self._of_all(model.q_values)).argmax(axis=1)
        return self._of_all(lambda obs: model.predict(obs, deterministic=True)[0])

    def _of_all(self, answer: Callable[[Obs], NDArray[Any]]) -> NDArray[Any]:
        """An agent's answers to all pairs, asked for in batches of bounded size."""
        size = max(1, _BATCH // self.pairs.candidate_ids.shape[1])
        parts = [slice(start, start + size) for start in range(0, len(self.pairs), size)]
        return np.concatenate([answer({key: rows[part] for key, rows in self.pairs.obs.items()}) for part in parts])

    def _play(self, choose: Callable[[Obs, dict[str, Any]], Ids], greedy: bool = True) -> float | None:
        """Mean discounted sum of expected rewards over episodes."""
        if self._n_episodes < 1:
            return None
        env = self._make(
            num_envs=self._n_episodes,
            max_episode_steps=self._max_episode_steps,
            autoreset_mode="SameStep",
            market=self._market,
            **self._env_options,
        )
        obs, infos = env.reset(seed=self._seed)
        # If an applicant is shown the same jobs until the end, a greedy agent chooses once.
        once = greedy and self._env_options["repeats"] and self._env_options["resample"] == "episode"
        running = np.ones(self._n_episodes, dtype=bool)
        earned: list[float] = []
        for step in range(self._max_episode_steps):
            if step == 0 or not once:
                actions = choose(obs, infos)
            obs, _, terminated, truncated, infos = env.step(actions)
            made = env.recommendations
            earned.append(float((running * self._truth.expected_reward(made.applicant_ids, made.job_ids)).mean()))
            if self._terminate_on:
                running &= ~np.isin(self._truth.decisions(made.applicant_ids, made.job_ids), self._terminate_on)
            running &= ~(terminated | truncated)
            if not running.any():
                break
        # A sum of means is the mean of the episodes' sums.
        return discounted_return(earned, self._gamma)


def ranks_of(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of any shape to rank by: NaN, as a diverged network gives it, ranks last, with a warning."""
    scores = np.asarray(scores, dtype=np.float64)
    unknown = np.isnan(scores)
    if unknown.any():
        _log.warning("%.0f %% of the agent's values are NaN, so it has diverged; they rank last", 100 * unknown.mean())
    return np.where(unknown, -np.inf, scores)


def ranking_metrics(pairs: HeldOutPairs, scores: NDArray[Any]) -> Metrics:
    """Metrics of an agent that scores every candidate.

    Args:
        pairs: The pairs that it scored.
        scores: (n, k), higher is better; NaN ranks last. The agent's choice is the highest, the first among equals.

    Returns:
        The metrics of :func:`choice_metrics`; ``ndcg@10`` with the expected reward, clipped at 0, as gain; ``mrr`` and
        ``hit_rate@k`` with an application as the hit, as means over the sets that have one.
    """
    scores = ranks_of(scores)
    metrics = choice_metrics(pairs, scores.argmax(axis=1))
    metrics["ndcg@10"] = _nanmean(ndcg_at_k(scores, pairs.expected, NDCG_CUTOFF))
    metrics["mrr"] = _nanmean(mrr(scores, pairs.applies))
    for k in CUTOFFS:
        metrics[f"hit_rate@{k}"] = _nanmean(hit_rate_at_k(scores, pairs.applies, k))
    return metrics


def choice_metrics(pairs: HeldOutPairs, chosen: NDArray[np.integer]) -> Metrics:
    """Metrics of an agent's choices.

    Args:
        pairs: The pairs on which it chose.
        chosen: (n,), index of the chosen candidate.

    Returns:
        ``score``, 0 for random and 1 for the oracle (``None`` if no candidate is better than another); ``mean_reward``,
        the mean expected reward; ``regret``, the mean expected regret of a recommendation; ``apply_rate``; ``cosine``,
        the mean cosine reward; ``coverage``, ``gini`` and ``congestion`` of the recommended jobs; and ``None`` for
        metrics that need a ranking.
    """
    rows = np.arange(len(pairs))
    expected, best, mean = pairs.expected[rows, chosen], pairs.expected.max(axis=1), pairs.expected.mean(axis=1)
    jobs = pairs.candidate_ids[rows, chosen]
    counts = _counts(pairs, jobs)
    first_hit = np.where(pairs.applies.any(axis=1), pairs.applies[rows, chosen], np.nan)
    return {
        "score": normalised_score(expected, mean, best) if best.mean() > mean.mean() else None,
        "mean_reward": float(expected.mean()),
        "regret": float((best - expected).mean()),
        "apply_rate": float(pairs.applies[rows, chosen].mean()),
        "ndcg@10": None,
        "mrr": None,
        "hit_rate@1": _nanmean(first_hit),
        **{f"hit_rate@{k}": None for k in CUTOFFS[1:]},
        "cosine": float(pairs.cosine[rows, chosen].mean()),
        "coverage": coverage(jobs, pairs.n_jobs),
        "gini": gini(counts),
        "congestion": _known(congestion(counts)),
    }


def outcomes_by_family(pairs: HeldOutPairs, chosen: NDArray[np.integer]) -> dict[str, dict[str, float | None]]:
    """Metrics of an agent's choices for applicants of each family of occupations.

    Args:
        pairs: The pairs on which it chose.
        chosen: (n,), index of the chosen candidate.

    Returns:
        For each family, in the order of names: ``n_pairs``, and ``score``, ``mean_reward``, ``regret`` and
        ``apply_rate`` as in :func:`choice_metrics`.
    """
    names = ("score", "mean_reward", "regret", "apply_rate")
    result: dict[str, dict[str, float | None]] = {}
    for family in np.unique(pairs.families):
        rows = np.flatnonzero(pairs.families == family)
        part = HeldOutPairs(
            obs={},
            applicant_ids=pairs.applicant_ids[rows],
            candidate_ids=pairs.candidate_ids[rows],
            expected=pairs.expected[rows],
            applies=pairs.applies[rows],
            cosine=pairs.cosine[rows],
            n_jobs=pairs.n_jobs,
            families=pairs.families[rows],
        )
        metrics = choice_metrics(part, chosen[rows])
        result[str(family)] = {"n_pairs": len(rows), **{name: metrics[name] for name in names}}
    return result


def exposure(pairs: HeldOutPairs, chosen: NDArray[np.integer], market: LabourMarket) -> dict[str, Any]:
    """How often jobs are recommended.

    Returns:
        ``lorenz``, see :func:`jobrec_gym.metrics.lorenz`; and ``most_recommended``, at most ten jobs with ``key``,
        ``title`` and ``share`` of all recommendations.
    """
    jobs, counts = np.unique(pairs.candidate_ids[np.arange(len(pairs)), chosen], return_counts=True)
    first = np.lexsort((jobs, -counts))[:MOST_RECOMMENDED]
    profiles = [market.job(int(job)) for job in jobs[first]]
    return {
        "lorenz": [round(float(share), 6) for share in lorenz(_padded(counts, pairs.n_jobs))],
        "most_recommended": [
            {"key": str(job.key), "title": job.title or job.occupation or "", "share": float(count) / len(pairs)}
            for job, count in zip(profiles, counts[first], strict=True)
        ],
    }


def prediction_quality(predicted: NDArray[Any], expected: NDArray[np.float64]) -> dict[str, float | None]:
    """``r2`` and Pearson ``correlation`` of predicted and expected rewards of one shape.

    Both are ``None`` if the expected rewards do not vary; so is the correlation if the predicted rewards do not.
    """
    predicted, expected = predicted.ravel().astype(np.float64), expected.ravel()
    varies = float(np.square(expected - expected.mean()).sum())
    if varies == 0:
        return {"r2": None, "correlation": None}
    return {
        "r2": 1.0 - float(np.square(expected - predicted).sum()) / varies,
        "correlation": float(np.corrcoef(predicted, expected)[0, 1]) if predicted.std() > 0 else None,
    }


def random_metrics(pairs: HeldOutPairs) -> Metrics:
    """Expected metrics of a uniform choice and a uniform ranking. They are exact; only Gini is a mean over draws."""
    k = pairs.expected.shape[1]
    gains = np.maximum(pairs.expected, 0.0)
    discounts = 1.0 / np.log2(np.arange(2, min(NDCG_CUTOFF, k) + 2))
    ideal = -np.sort(-gains, axis=1)[:, : len(discounts)] @ discounts
    some = ideal > 0
    n_hits = pairs.applies.sum(axis=1, keepdims=True)
    # (n, k): the probability of a hit at rank r + 1 given no hit before, and the probability of no hit before.
    ranks = np.arange(k)
    at_rank = np.clip(n_hits / (k - ranks), 0.0, 1.0)
    none_before = np.concatenate([np.ones((len(pairs), 1)), np.cumprod(1 - at_rank, axis=1)], axis=1)
    has_hit = n_hits[:, 0] > 0

    def mean(values: NDArray[np.float64], rows: NDArray[np.bool_]) -> float | None:
        return float(values[rows].mean()) if rows.any() else None

    shown = _counts(pairs, pairs.candidate_ids)
    n = len(pairs)
    rng, rows = np.random.default_rng(0), np.arange(len(pairs))
    draws = [pairs.candidate_ids[rows, rng.integers(k, size=n)] for _ in range(_GINI_DRAWS)]
    best, average = pairs.expected.max(axis=1), pairs.expected.mean(axis=1)
    return {
        "score": 0.0 if best.mean() > average.mean() else None,
        "mean_reward": float(average.mean()),
        "regret": float((best - average).mean()),
        "apply_rate": float(pairs.applies.mean()),
        "ndcg@10": mean(gains.mean(axis=1) * discounts.sum() / np.where(some, ideal, 1.0), some),
        "mrr": mean((none_before[:, :-1] * at_rank) @ (1.0 / (ranks + 1)), has_hit),
        **{f"hit_rate@{cut}": mean(1 - none_before[:, min(cut, k)], has_hit) for cut in CUTOFFS},
        "cosine": float(pairs.cosine.mean()),
        # The number of recommendations of a job that was shown c times is Binomial(c, 1 / k).
        "coverage": float((1.0 - (1.0 - 1.0 / k) ** shown).mean()),
        "gini": float(np.mean([gini(_counts(pairs, jobs)) for jobs in draws])),
        "congestion": float((shown * (shown - 1)).sum()) / k**2 / (n * (n - 1)) if n > 1 else None,
    }


def cosine_of(market: LabourMarket, applicant_ids: Ids, job_ids: Ids) -> NDArray[np.float64]:
    """Cosine reward in [0, 1] of any number of pairs, for ids of shapes that broadcast."""
    applicant_ids, job_ids = np.broadcast_arrays(applicant_ids, job_ids)
    chunks = [
        market.cosine(applicant_ids.ravel()[start : start + _BATCH], job_ids.ravel()[start : start + _BATCH])
        for start in range(0, job_ids.size, _BATCH)
    ]
    return scaled_cosine(np.concatenate(chunks), "unit").reshape(job_ids.shape)


def _families(market: LabourMarket, applicant_ids: Ids) -> NDArray[np.str_]:
    """Name of each applicant's family, (n,)."""
    names = np.array([*market.vocabulary.families, NO_FAMILY])
    return names[market.family_id(market.applicants, applicant_ids)]


def _counts(pairs: HeldOutPairs, job_ids: Ids) -> NDArray[np.int64]:
    """How often each job that could have been shown occurs among some ids, (n_jobs,), in no particular order."""
    return _padded(np.unique(job_ids, return_counts=True)[1], pairs.n_jobs)


def _padded(counts: NDArray[np.int64], n_jobs: int) -> NDArray[np.int64]:
    return np.concatenate([counts, np.zeros(n_jobs - len(counts), dtype=np.int64)])


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _nanmean(values: NDArray[np.float64]) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
