"""The card of a setting, which shows what there is to learn in it: figures of several seeds, and their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from experiments.runs.build import Setup
from experiments.runs.evaluation import CosineTruth
from experiments.runs.folders import RunError
from experiments.runs.progress import tracked
from experiments.runs.tables import markdown_table
from experiments.studies.supervised import SUPERVISED, ShownPairs, Vectors
from jobrec_gym import JobRecVectorEnv, LabourMarket
from jobrec_gym.metrics import normalised_score

__all__ = [
    "POLICIES",
    "World",
    "card_text",
    "interactions",
    "make_card",
    "make_world",
    "ranking_scores",
    "reward_variance",
    "seeds_from",
    "supervised_scores",
    "utility_variance",
]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]
Obs = Mapping[str, NDArray[Any]]

POLICIES = ("random", "cosine")
_TERM_OF_FEATURE = {"hard_coverage": "hard_skills", "soft_coverage": "soft_skills"}
"""The part of the planted utility that a pair feature equals, for features that have another name than the part."""

_TRAINING = 5_000_000
"""First seed of the training pairs of supervised learners. Held-out pairs have other seeds."""

_GRID = 400
"""Largest number of applicants, and of jobs, whose pairs are all used for the variance of rewards."""


class World(NamedTuple):
    """One seed of a setting.

    Attributes:
        market: The market of the applicants and jobs.
        truth: The simulator that knows expected rewards; see :class:`experiments.runs.evaluation.Truth`.
        told: n random pairs of training applicants and jobs, as the environment shows them.
        rewards: float64 (n,), one noisy reward of each of these pairs.
        shown: The k candidates of each of m held-out applicants, (m * k) pairs, as the environment shows them.
        expected: float64 (m, k), expected rewards of these candidates.
        vectors: The vectors of applicants and jobs that a learner reads.
    """

    market: LabourMarket
    truth: Any
    told: ShownPairs
    rewards: Floats
    shown: ShownPairs
    expected: Floats
    vectors: Vectors

    def score(self, values: Floats) -> float:
        """Normalised score (0 random, 1 the oracle) of choosing the candidates with the highest values (m * k,)."""
        chosen = values.reshape(self.expected.shape).argmax(axis=1)
        earned = self.expected[np.arange(len(chosen)), chosen]
        return normalised_score(earned, self.expected.mean(axis=1), self.expected.max(axis=1))


def seeds_from(first: int, n_seeds: int) -> list[int]:
    """``n_seeds`` consecutive seeds, from the first one on.

    Raises:
        RunError: If ``n_seeds`` is not a whole number of 1 or more.
    """
    if not isinstance(n_seeds, int) or n_seeds < 1:
        raise RunError(f"`n_seeds` must be 1 or more, got {n_seeds!r}.")
    return list(range(first, first + n_seeds))


def make_card(setups: Sequence[Setup], n_pairs: Sequence[int]) -> dict[str, Any]:
    """All figures of a card, in plain JSON. ``by_seed`` has the figures of each seed.

    Args:
        setups: A run of the setting for each seed.
        n_pairs: Numbers of noisy rewards that supervised learners are trained on, ascending.

    Raises:
        RunError: If ``n_pairs`` is wrong, or answers change the applicants of the setting.
    """
    if setups[0].is_career:
        raise RunError(
            "a card describes single recommendations, but in this setting answers change the applicants: python -m "
            "experiments.studies.career_values computes what can be earned in it."
        )
    sizes = list(n_pairs)
    if not sizes or any(not isinstance(size, int) or size < 2 for size in sizes) or sizes != sorted(set(sizes)):
        raise RunError(f"`n_pairs` must be rising numbers of 2 or more, such as [500,20000], got {sizes}.")
    by_seed = []
    for setup in tracked(setups, "learnable", "seed"):
        with threadpool_limits(setup.threads):
            world = make_world(setup, max(sizes))
            by_seed.append(
                {
                    "utility": utility_variance(world),
                    "reward": reward_variance(world),
                    "ranking": ranking_scores(world),
                    "supervised": supervised_scores(world, sizes),
                    "interactions": interactions(setup),
                }
            )
    options = setup.env_options
    return {
        "seeds": [setup.seed for setup in setups],
        "n_pairs": sizes,
        "market": {"n_applicants": len(world.market.applicants), "n_jobs": len(world.market.jobs)},
        "n_held_out": len(world.expected),
        "pair_features": list(options["pair_features"]),
        "pair_noise": options["pair_noise"],
        "total_timesteps": setup.total_timesteps,
        "by_seed": by_seed,
    }


def make_world(setup: Setup, n_told: int) -> World:
    """The world of a run.

    Args:
        setup: The run.
        n_told: Number of training pairs.

    Raises:
        RunError: If the simulator gives no decisions.
    """
    market, options, evaluation = setup.market, setup.env_options, setup.evaluation_options
    truth: Any = setup.truth
    if not hasattr(truth, "feedback"):
        raise RunError("`evaluation.simulator` gives no decisions, so no learner can be trained: take simulator=rules.")

    obs, applicant_ids, candidate_ids = _first_observations(market, options, n_told, _TRAINING + n_told * setup.seed)
    rng = np.random.default_rng(setup.seed)
    # A random candidate of each set is taken, because a sampler may order the candidates.
    which = rng.integers(candidate_ids.shape[1], size=n_told)
    rows = np.arange(n_told)
    told = ShownPairs(applicant_ids, candidate_ids[rows, which], _numbers(obs)[rows, which])
    keys = rng.integers(2**64, size=n_told, dtype=np.uint64)
    rewards = truth.feedback(told.applicant_ids, told.job_ids, keys).reward

    held_out = {**options, "split": evaluation.split, "job_split": evaluation.job_split}
    obs, applicant_ids, candidate_ids = _first_observations(market, held_out, evaluation.n_pairs, evaluation.seed)
    numbers = _numbers(obs)
    shown = ShownPairs(
        np.repeat(applicant_ids, candidate_ids.shape[1]),
        candidate_ids.ravel(),
        numbers.reshape(candidate_ids.size, numbers.shape[-1]),
    )
    expected = truth.expected_reward(applicant_ids[:, None], candidate_ids)
    vectors = Vectors(market, market.jobs.rows(options["job_split"]))
    return World(market, truth, told, rewards, shown, expected, vectors)


def utility_variance(world: World) -> dict[str, Any] | None:
    """The parts of the planted utility's variance, over the training pairs; ``None`` if no utility is planted.

    Returns:
        ``parts``: the share of each part; ``covariances``: the share of their covariances, so that all shares sum up to
        1; ``noise``: the variance of the noise of one answer, relative to that of the utility.
    """
    if not hasattr(world.truth, "terms"):
        return None
    terms = world.truth.terms(world.told.applicant_ids, world.told.job_ids)
    total = float(np.sum(list(terms.values()), axis=0).var())
    parts = {part: float(term.var()) / total for part, term in terms.items()}
    return {"parts": parts, "covariances": 1.0 - sum(parts.values()), "noise": world.truth.noise**2}


def reward_variance(world: World) -> dict[str, float]:
    """The parts of one reward's variance, as shares that sum up to 1.

    Returns:
        ``job`` and ``applicant``: the shares of the mean expected rewards of jobs and of applicants; ``pair``: the
        share of the rest of the expected rewards; ``noise``: the share of rewards around their expectation.
    """
    told = world.told
    applicants, jobs = (
        np.unique(ids)[:: -(-len(np.unique(ids)) // _GRID)] for ids in (told.applicant_ids, told.job_ids)
    )
    expected = world.truth.expected_reward(applicants[:, None], jobs[None])
    of = {"job": float(expected.mean(axis=0).var()), "applicant": float(expected.mean(axis=1).var())}
    of["pair"] = float(expected.var()) - of["job"] - of["applicant"]
    surprise = world.rewards - world.truth.expected_reward(told.applicant_ids, told.job_ids)
    of["noise"] = float(np.square(surprise).mean())
    total = sum(of.values())
    return {name: variance / total for name, variance in of.items()}


def ranking_scores(world: World) -> dict[str, Any]:
    """Scores of rankings that do not learn from rewards.

    Returns:
        ``parts``: for each part of a planted utility the score of ranking by it ``alone``, and ``together`` with all
        parts before it. The other entries are scores of rankings by other quantities, by name.
    """
    shown, told = world.shown, world.told
    parts: dict[str, dict[str, float]] = {}
    if hasattr(world.truth, "terms"):
        together = np.zeros(len(shown))
        for part, term in world.truth.terms(shown.applicant_ids, shown.job_ids).items():
            together = together + term
            parts[part] = {"alone": world.score(term), "together": world.score(together)}
    jobs, columns = np.unique(shown.job_ids, return_inverse=True)
    of_jobs = world.truth.expected_reward(np.unique(told.applicant_ids)[:, None], jobs[None]).mean(axis=0)
    rankings = {
        "cosine": CosineTruth().bind(world.market).expected_reward(shown.applicant_ids, shown.job_ids),
        "block similarities": world.vectors.similarities(shown).sum(axis=1),
        "job": of_jobs[columns],
    }
    if shown.numbers.shape[1]:
        worth = world.truth.expected_reward(told.applicant_ids, told.job_ids)
        weights = np.linalg.lstsq(_with_constant(told.numbers), worth)[0]
        rankings["pair features"] = _with_constant(shown.numbers) @ weights
    return {"parts": parts, **{name: world.score(values) for name, values in rankings.items()}}


def supervised_scores(world: World, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Scores of :data:`~experiments.studies.supervised.SUPERVISED`, one for each number of noisy rewards."""
    return {
        name: [
            world.score(
                make(world.vectors).fit(world.told.take(slice(size)), world.rewards[:size]).predict(world.shown)
            )
            for size in sizes
        ]
        for name, make in SUPERVISED.items()
    }


def interactions(setup: Setup) -> dict[str, dict[str, int]]:
    """How many distinct pairs, jobs and applicants a policy meets in the interactions of a run."""
    return {policy: _met(setup, policy) for policy in POLICIES}


def _met(setup: Setup, policy: str) -> dict[str, int]:
    env = setup.make_bare_env()
    rng, cosine = np.random.default_rng(setup.seed), CosineTruth().bind(setup.market)
    _, infos = env.reset(seed=setup.seed * setup.n_envs)
    met = []
    for _ in range(-(-setup.total_timesteps // setup.n_envs)):
        candidates = infos["candidate_ids"]
        values = rng.random(candidates.shape)
        if policy == "cosine":
            values = cosine.expected_reward(infos["applicant_id"][:, None], candidates)
        _, _, _, _, infos = env.step(np.where(infos["action_mask"], values, -np.inf).argmax(axis=1))
        made = env.recommendations
        met.append(np.stack([made.applicant_ids, made.job_ids], axis=1))
    pairs = np.concatenate(met)[: setup.total_timesteps]
    return {
        "pairs": len(np.unique(pairs, axis=0)),
        "jobs": len(np.unique(pairs[:, 1])),
        "applicants": len(np.unique(pairs[:, 0])),
    }


def card_text(card: Mapping[str, Any]) -> str:
    """A card as a page of Markdown."""
    by_seed = card["by_seed"]
    seeds = ", ".join(map(str, card["seeds"]))
    lines = [
        f"# What there is to learn: `{card['setting']}`",
        f"`{card['command']}`, commit `{card['commit']}`. {card['market']['n_applicants']:,} applicants, "
        f"{card['market']['n_jobs']:,} jobs; means over seeds {seeds}. Scores are over {card['n_held_out']:,} "
        "candidate sets of held-out applicants: 0 is a random choice, 1 the oracle.",
        _what_is_shown(card),
        "## What rewards consist of",
        *_variance_tables(by_seed),
        "## Ranking without learning",
        *_ranking_tables(by_seed),
        "## Supervised learners",
        "They see the same observations as any learner. They are trained on random pairs of training applicants and "
        "jobs, each with one noisy reward; a column says how many pairs. None has a prior. The Gaussian process is "
        "exact at every size.",
        markdown_table(
            ["score after", *(f"{size:,} pairs" for size in card["n_pairs"])],
            [
                [
                    name,
                    *(
                        _mean([of["supervised"][name][column] for of in by_seed])
                        for column in range(len(card["n_pairs"]))
                    ),
                ]
                for name in by_seed[0]["supervised"]
            ],
        ),
        f"## What {card['total_timesteps']:,} interactions are",
        markdown_table(
            ["distinct", "pairs", "jobs", "applicants"],
            [
                [
                    f"{policy} policy",
                    *(
                        f"{np.mean([of['interactions'][policy][what] for of in by_seed]):,.0f}"
                        for what in ("pairs", "jobs", "applicants")
                    ),
                ]
                for policy in POLICIES
            ],
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _what_is_shown(card: Mapping[str, Any]) -> str:
    features = card["pair_features"]
    if not features:
        return "The observation shows only vectors."
    names = ", ".join(f"`{name}`" for name in features)
    if card["by_seed"][0]["utility"] is None:
        return f"Besides vectors the observation shows {names} of each pair."
    parts = card["by_seed"][0]["utility"]["parts"]
    n_terms = sum(_TERM_OF_FEATURE.get(name, name) in parts for name in features)
    noise = card["pair_noise"]
    how = f"blurred by noise of standard deviation {noise:g}" if noise else "with their **exact** values"
    return (
        f"Besides vectors the observation shows {names} of each pair: {n_terms} of the {len(parts)} terms of the "
        f"planted utility, {how}."
    )


def _variance_tables(by_seed: Sequence[Mapping[str, Any]]) -> list[str]:
    of_reward = [
        [words, _mean([of["reward"][name] for of in by_seed])]
        for name, words in (
            ("job", "which job it is"),
            ("applicant", "which applicant it is"),
            ("pair", "the pair"),
            ("noise", "noise of the answer"),
        )
    ]
    tables = [markdown_table(["one reward", "share of its variance"], of_reward)]
    if by_seed[0]["utility"] is None:
        return [*tables, "There is no planted utility, so there are no parts."]
    utilities = [of["utility"] for of in by_seed]
    rows = [[part, _mean([utility["parts"][part] for utility in utilities])] for part in utilities[0]["parts"]]
    rows.append(["covariances of the parts", _mean([utility["covariances"] for utility in utilities])])
    share = _mean([utility["noise"] for utility in utilities])
    noise = f"The noise of one answer has {share} times the variance of the utility."
    return [*tables, markdown_table(["planted utility", "share of its variance"], rows), noise]


def _ranking_tables(by_seed: Sequence[Mapping[str, Any]]) -> list[str]:
    rankings = [of["ranking"] for of in by_seed]
    names = {
        "cosine": "cosine of the whole vectors",
        "block similarities": "similarities of the hard and the soft block, less the mean job, summed",
        "job": "the job's mean expected reward, the same for everybody",
        "pair features": "the pair features as shown, weights by least squares on the truth",
    }
    rows = [
        [words, _mean([ranking[name] for ranking in rankings])] for name, words in names.items() if name in rankings[0]
    ]
    tables = [markdown_table(["ranked by", "score"], rows)]
    if rankings[0]["parts"]:
        parts = [
            [part, *(_mean([ranking["parts"][part][how] for ranking in rankings]) for how in ("alone", "together"))]
            for part in rankings[0]["parts"]
        ]
        tables.append(markdown_table(["part of the planted utility", "alone", "with all above it"], parts))
    return tables


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}"


def _first_observations(market: LabourMarket, options: Mapping[str, Any], n: int, seed: int) -> tuple[Obs, Ids, Ids]:
    """The first observations of n environments with seeds ``seed + i``, with applicants (n,) and candidates (n, k)."""
    obs, infos = JobRecVectorEnv(num_envs=n, market=market, **options).reset(seed=seed)
    return obs, infos["applicant_id"], infos["candidate_ids"]


def _numbers(obs: Obs) -> Floats:
    """Pair features of n observations, (n, k, p); p is 0 if none are shown."""
    if "pairs" in obs:
        return obs["pairs"].astype(np.float64)
    return np.zeros((*obs["candidates"].shape[:2], 0))


def _with_constant(columns: Floats) -> Floats:
    return np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
