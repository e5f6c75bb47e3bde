"""Exact values of policies in ``JobRecCareer-v0`` by dynamic programming: best, best myopic, cosine and random.

An applicant's state is a few whole numbers, answers are drawn from a known distribution, and the candidates do not
depend on earlier recommendations. So the value of a policy is computed step by step from the end of the horizon
(Bellman, 1957). The mean over candidate sets is taken over a sample of sets. This is the only approximation. Every step
uses the same sample, so the value is biased. The bias is nearly inversely proportional to the size of the sample. It is
estimated from four parts of the sample and subtracted (Quenouille, 1956), and the standard error is returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jobrec_gym.career import CareerProblem, JobRecCareerEnv, JobRecCareerVectorEnv
from jobrec_gym.counter_rng import hash64
from jobrec_gym.problem import require_count
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.rules import BoundRuleSimulator
from jobrec_gym.wrappers import CosineReward, HybridReward, VectorCosineReward, VectorHybridReward

__all__ = ["CareerOracle", "OraclePolicy"]

Ids = NDArray[np.int64]
OraclePolicy = Literal["best", "myopic", "cosine", "random"]

_SETS = 0x0AC1E
_BATCHES = 4
"""The sampled sets are split into this many parts. Bias and error are computed from the parts' values."""
_CHANGE_REWARDS = (
    *(CosineReward, VectorCosineReward, HybridReward, VectorHybridReward),
    *(gym.RewardWrapper, gym.vector.VectorRewardWrapper),
    *(gym.wrappers.NormalizeReward, gym.wrappers.vector.NormalizeReward),
)
_CHUNK = 1 << 14
"""How many jobs are examined at once."""


class _Kinds(NamedTuple):
    """The effects of jobs on applicants; jobs of one kind have the same effects.

    Attributes:
        of_job: (n_jobs,), the kind of each job of the market; -1 for a job that is not shown.
        pay: (n_states, n_kinds), the pay in each state.
        following: (n_states, n_kinds, 4), the state after each answer; n_states if the applicant leaves.
    """

    of_job: Ids
    pay: NDArray[np.float64]
    following: Ids


class _Rows(NamedTuple):
    """Rows of vectors by their bytes.

    Attributes:
        first: The number of the first row with these bytes.
        several: The bytes that more than one row has.
    """

    first: dict[bytes, int]
    several: set[bytes]


class CareerOracle:
    """The exact value of a policy, and the policy itself. ``"best"`` and ``"myopic"`` know the truth and the dynamics.

    Args:
        env: A ``JobRecCareer-v0``, single or vector, whose simulator is a ``RuleSimulator``. It may be wrapped, but not
            by a wrapper that changes rewards.
        policy: ``"best"`` takes the job that earns most over the whole episode. ``"myopic"`` takes the job that earns
            most in the next step, which is all that a bandit can learn. ``"cosine"`` takes the most similar job, and
            ``"random"`` any job.
        n_sets: Over how many sampled candidate sets the mean is taken, for each applicant. Fewer than 60 leave
            a bias that the standard error does not show: with 20, the best myopic policy's return over 40 steps is some
            7 % too low.
        horizon: Steps of an episode; by default the shortest time limit of the environment and its wrappers.
        gamma: Discount; 1 for the plain sum of rewards.
        seed: Seed of the choices of ``"random"``.

    Attributes:
        states: int64 (n_states, m), all states that can be reached within an episode.

    Raises:
        ValueError: For another environment or simulator, changed rewards, ``repeats=False``, ``resample="episode"``,
            hidden progress, or an argument out of range.

    Example:
        >>> oracle = CareerOracle(gym.make("JobRecCareer-v0"), "cosine", n_sets=40)
        >>> value, error = oracle.values([0])
        >>> bool(value[0] < 5)
        True
    """

    def __init__(
        self,
        env: Any,
        policy: OraclePolicy = "best",
        n_sets: int = 400,
        horizon: int | None = None,
        gamma: float = 1.0,
        seed: int = 0,
    ):
        if policy not in get_args(OraclePolicy):
            raise ValueError(f"`policy` must be one of {get_args(OraclePolicy)}, got {policy!r}.")
        require_count("n_sets", n_sets)
        if n_sets < _BATCHES:
            raise ValueError(f"`n_sets` must be at least {_BATCHES}, so that the error can be estimated, got {n_sets}.")
        if not 0 <= gamma <= 1:
            raise ValueError(f"`gamma` must be in [0, 1], got {gamma}.")
        _refuse_other_rewards(env)
        problem, truth = _problem_of(env.unwrapped)
        horizon = _horizon_of(env) if horizon is None else horizon
        require_count("horizon", horizon)
        self.policy = policy
        self.n_sets = int(n_sets)
        self.horizon = int(horizon)
        self.gamma = float(gamma)
        self._rng = np.random.default_rng(seed)
        self._problem = problem
        self._dynamics = problem.dynamics
        self._truth = truth
        self._worth = self._truth.worth
        # `predict` also meets applicants who have had more steps than the horizon.
        self.states = _reachable(problem, max(self.horizon, _steps_of(env) or 0))
        # `None` if the simulator is not told the levels, and answers as if nobody moved.
        self._levels = self._dynamics.levels(self.states) if problem.tells_levels else None
        self._kinds = self._kinds_of_jobs()
        self._shown_progress = self._dynamics.progress(self.states)
        self._is_readable = len(np.unique(self._shown_progress, axis=0)) == len(self.states)
        self._values: dict[int, NDArray[np.float64]] = {}
        self._people = _rows_by_bytes(problem.market.applicants.vectors)
        self._jobs: _Rows | None = None

    def values(self, applicant_ids: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected returns of applicants' episodes.

        Args:
            applicant_ids: (n,), rows of the market's applicants.

        Returns:
            Values (n,) and their standard errors (n,), which come from the sampling of candidate sets. An error is
            estimated from four parts of the sets, so it has three degrees of freedom: the 95 % interval of one
            applicant's value is the value plus or minus 3.2 errors. Applicants' sets are drawn independently, so the
            error of the mean over applicants is ``sqrt((errors**2).sum()) / n``. With many applicants 1.96 of it
            are enough. The bias of order ``1 / n_sets`` has been subtracted from the values.

        Raises:
            ValueError: If ``applicant_ids`` are not rows.
        """
        ids, _ = self._problem.pair_values.checked(np.asarray(applicant_ids).reshape(-1), np.zeros(1, dtype=np.int64))
        starts = self._index(self._dynamics.start(ids))
        found = np.array(
            [self._solve(row, with_parts=True)[-1][:, start] for row, start in zip(ids.tolist(), starts, strict=True)]
        )
        whole, parts = found[:, 0], found[:, 1:]
        # The bias of a part is `_BATCHES` times that of the whole.
        bias = (parts.mean(axis=1) - whole) / (_BATCHES - 1)
        return whole - bias, parts.std(axis=1, ddof=1) / np.sqrt(_BATCHES)

    def predict(
        self,
        observation: dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Any, tuple[NDArray[Any], ...]]:
        """The policy's choice, in the form of Stable-Baselines3.

        Args:
            observation: One observation of the environment or a batch of n. The applicant and jobs are found by their
                vectors or ids.
            state: (n,), how many steps the episodes have had; the ``state`` that the last call returned.
            episode_start: (n,), which episodes begin now.
            deterministic: Not used.

        Returns:
            Places of candidates, () or (n,), and the ``state`` for the next call.

        Raises:
            ValueError: If an applicant or a job is not in the market. For ``"best"`` and ``"myopic"`` also if several
                applicants or several jobs have the observed vector, or if several states have the same observation.
        """
        if not self._is_readable and self.policy in ("best", "myopic"):
            raise ValueError(
                "`observation` does not say in which state an applicant is: `progress` of the dynamics must differ "
                "from state to state. The method `values` works nevertheless."
            )
        single = observation["applicant"].ndim == 1
        batch = {key: np.asarray(values)[None] if single else np.asarray(values) for key, values in observation.items()}
        n = len(batch["applicant"])
        steps = np.zeros(n, dtype=np.int64) if state is None else np.asarray(state[0]).copy()
        if episode_start is not None:
            steps[np.broadcast_to(episode_start, (n,))] = 0
        people = self._found(batch["applicant"], self._people, "applicant")
        jobs = self._shown_jobs(batch["candidates"])
        places = np.zeros(n, dtype=np.int64)
        if self._shown_progress.shape[1]:
            progress = batch["progress"][:, : self._shown_progress.shape[1]]
            places = np.abs(progress[:, None] - self._shown_progress).sum(axis=2).argmin(axis=1)
        scores = self._scores(people, jobs, places, steps)
        if "action_mask" in batch:
            scores = np.where(batch["action_mask"] > 0, scores, -np.inf)
        chosen = scores.argmax(axis=1)
        return (chosen[0] if single else chosen), (steps + 1,)

    def _scores(self, people: Ids, jobs: Ids, places: Ids, steps: Ids) -> NDArray[np.float64]:
        """Scores (n, k) of jobs (n, k) for people (n,), at places (n,) of :attr:`states`, after steps (n,)."""
        n, k = jobs.shape
        if self.policy == "random":
            return self._rng.random((n, k))
        who, shown, where = np.repeat(people, k), jobs.ravel(), np.repeat(places, k)
        if self.policy == "cosine":
            return self._problem.market.cosine(who, shown).astype(np.float64).reshape(n, k)
        states = self.states[where]
        chances = self._truth.probabilities(who, shown, None if self._levels is None else self._levels[where])
        scores = self._dynamics.pay(states, shown) * (chances @ self._worth)
        left = self.horizon - steps - 1
        if self.policy == "best" and self.gamma and (left > 0).any():
            later = np.zeros((n, len(self.states) + 1))  # the last place: applicants who have left
            for person in np.unique(people[left > 0]):
                rows = (people == person) & (left > 0)
                later[rows, :-1] = self._solved(int(person))[left[rows]]
            rows = np.repeat(np.arange(n), k)
            for decision in range(len(DECISIONS)):
                moved = self._dynamics.advance(states, shown, np.full(len(shown), decision))
                scores = scores + self.gamma * chances[:, decision] * later[rows, self._index(moved)]
        return scores.reshape(n, k)

    def _solved(self, person: int) -> NDArray[np.float64]:
        """Values of one applicant by the number of steps left, (horizon + 1, n_states), over all sampled sets."""
        if person not in self._values:
            self._values[person] = self._solve(person, with_parts=False)[:, 0]
        return self._values[person]

    def _solve(self, person: int, with_parts: bool) -> NDArray[np.float64]:
        """Values of one applicant by the number of steps left.

        Args:
            person: The applicant.
            with_parts: Whether values over each part of the sampled sets follow those over all sets.

        Returns:
            (horizon + 1, 1, n_states), or (horizon + 1, 1 + batches, n_states).
        """
        keys = hash64(_SETS, person, np.arange(self.n_sets))
        sets = self._problem.sampler.sample(np.full(self.n_sets, person), keys)
        jobs, sets = np.unique(sets, return_inverse=True)
        # Jobs are sorted by kind, so that the state after an answer is looked up once for each kind.
        order = np.argsort(self._kinds.of_job[jobs], kind="stable")
        jobs, sets = jobs[order], np.argsort(order)[sets].reshape(self.n_sets, -1)
        n, ids, kinds = len(self.states), np.full(len(jobs), person), self._kinds.of_job[jobs]
        levels = np.zeros(n, dtype=np.int64) if self._levels is None else self._levels
        chances = {
            level: self._truth.probabilities(ids, jobs, None if self._levels is None else np.full(len(jobs), level))
            for level in np.unique(levels).tolist()
        }
        by_state = np.stack([chances[level].T for level in levels.tolist()])  # (n, 4, n_jobs)
        earned = self._kinds.pay[:, kinds] * np.einsum("d,ndj->nj", self._worth, by_state)
        parts = [sets, *(np.array_split(sets, _BATCHES) if with_parts else [])]
        values = np.zeros((self.horizon + 1, len(parts), n))
        for batch, part in enumerate(parts):
            if self.policy == "best":
                self._solve_best(values[:, batch], part, earned, by_state, kinds)
            else:
                self._follow(values[:, batch], self._picked(person, jobs, part, earned), earned, by_state, kinds)
        return values

    def _solve_best(
        self,
        values: NDArray[np.float64],
        sets: Ids,
        earned: NDArray[np.float64],
        by_state: NDArray[np.float64],
        kinds: Ids,
    ) -> None:
        """Writes the values (horizon + 1, n_states) of taking each set's (m, k) best job, backwards from the end."""
        n, n_jobs = earned.shape
        begins = np.flatnonzero(np.diff(kinds, prepend=-1)).tolist()
        worth = np.empty((n, n_jobs))
        for left in range(1, len(values)):
            later = np.append(values[left - 1], 0.0)  # the last place: applicants who have left
            for begin, end in zip(begins, [*begins[1:], n_jobs], strict=True):
                leads = self.gamma * later[self._kinds.following[:, kinds[begin]]]  # (n, 4)
                worth[:, begin:end] = (leads[:, None] @ by_state[:, :, begin:end])[:, 0]
            worth += earned
            values[left] = worth[:, sets.reshape(-1)].reshape(n, *sets.shape).max(axis=2).mean(axis=1)

    def _follow(
        self,
        values: NDArray[np.float64],
        picked: Ids,
        earned: NDArray[np.float64],
        by_state: NDArray[np.float64],
        kinds: Ids,
    ) -> None:
        """Writes the values (horizon + 1, n_states) of a uniform choice among the jobs (n_states, m) of each state."""
        n, n_picked = picked.shape
        rows = np.arange(n)[:, None]
        chances = np.take_along_axis(by_state, picked[:, None], axis=2)  # (n, 4, m)
        leads = self._kinds.following[rows, kinds[picked]]  # (n, m, 4)
        moves = np.zeros((n, n + 1))
        np.add.at(moves, (rows[..., None], leads), chances.transpose(0, 2, 1) / n_picked)
        now = np.take_along_axis(earned, picked, axis=1).mean(axis=1)
        for left in range(1, len(values)):
            values[left] = now + self.gamma * (moves[:, :n] @ values[left - 1])

    def _kinds_of_jobs(self) -> _Kinds:
        """Groups jobs into kinds: those with the same pay and the same next state in every state."""
        n = len(self.states)
        of_job = np.full(len(self._problem.market.jobs), -1)
        found: dict[bytes, int] = {}
        columns: list[NDArray[np.float64]] = []
        for jobs in np.array_split(self._problem.job_ids, -(-len(self._problem.job_ids) // _CHUNK)):
            table = np.empty((len(jobs), n, 1 + len(DECISIONS)))
            for place in range(n):
                states = np.repeat(self.states[place : place + 1], len(jobs), axis=0)
                table[:, place, 0] = self._dynamics.pay(states, jobs)
                for decision in range(len(DECISIONS)):
                    moved = self._dynamics.advance(states, jobs, np.full(len(jobs), decision))
                    table[:, place, 1 + decision] = self._index(moved)
            for job, column in zip(jobs.tolist(), table, strict=True):
                key = column.tobytes()
                if key not in found:
                    found[key] = len(columns)
                    columns.append(column)
                of_job[job] = found[key]
        all_kinds = np.stack(columns, axis=1)  # (n, n_kinds, 5)
        return _Kinds(of_job, all_kinds[..., 0], all_kinds[..., 1:].astype(np.int64))

    def _picked(self, person: int, jobs: Ids, sets: Ids, earned: NDArray[np.float64]) -> Ids:
        """Places (n_states, m) of the jobs that the cosine or the myopic policy takes from sets (m, k).

        For the random policy these are all jobs: (n_states, m * k).
        """
        n = len(earned)
        if self.policy == "random":
            return np.broadcast_to(sets.reshape(1, -1), (n, sets.size))
        if self.policy == "cosine":
            cosine = self._problem.market.cosine(np.full(len(jobs), person), jobs)
            chosen = np.broadcast_to(cosine[sets].argmax(axis=1), (n, len(sets)))
        else:
            chosen = earned[:, sets].argmax(axis=2)
        return sets[np.arange(len(sets)), chosen]

    def _index(self, states: NDArray[np.int64]) -> Ids:
        """Places (n,) of states (n, m) in :attr:`states`; n_states if the applicant has left or no state fits."""
        left = self._dynamics.leaves(states)
        places = _places(self.states, states)
        # A state that is not reached within the horizon is worth nothing within it.
        return np.where(left | (places < 0), len(self.states), places)

    def _shown_jobs(self, candidates: NDArray[Any]) -> Ids:
        if candidates.dtype.kind in "iu":
            return candidates
        if self._jobs is None:
            self._jobs = _rows_by_bytes(self._problem.action_features)
        flat = candidates.reshape(-1, candidates.shape[-1])
        return self._found(flat, self._jobs, "job").reshape(candidates.shape[:-1])

    def _found(self, vectors: NDArray[Any], rows: _Rows, what: str) -> Ids:
        given = np.ascontiguousarray(vectors, dtype=np.float32)
        try:
            found = np.array([rows.first[row.tobytes()] for row in given])
        except KeyError:
            raise ValueError(
                f"`observation` has the vector of a{'n' if what == 'applicant' else ''} {what} that is not in market "
                f"{self._problem.market.name!r}: the oracle works only in the environment that it was made for."
            ) from None
        if self.policy in ("best", "myopic") and any(row.tobytes() in rows.several for row in given):
            way_out = ', or use `observation="ids"`' if what == "job" else ""
            raise ValueError(
                f"`observation` has the vector of several {what}s of market {self._problem.market.name!r}, so the "
                f"oracle cannot tell which {what} is meant. The method `values` works nevertheless{way_out}."
            )
        return found


def _refuse_other_rewards(env: Any) -> None:
    for layer in _layers(env):
        if isinstance(layer, _CHANGE_REWARDS):
            raise ValueError(
                f"`env` cannot be solved exactly: {type(layer).__name__} changes its rewards. Give the environment "
                "without this wrapper."
            )


def _layers(env: Any) -> Iterator[Any]:
    """An environment's wrappers from the outermost one on, and then the environment itself."""
    while isinstance(env, (gym.Wrapper, gym.vector.VectorWrapper)):
        yield env
        env = env.env
    yield env


def _problem_of(base: Any) -> tuple[CareerProblem, BoundRuleSimulator]:
    if not isinstance(base, (JobRecCareerEnv, JobRecCareerVectorEnv)):
        raise ValueError(f"`env` must be a JobRecCareer-v0, wrapped or not, got {base}.")
    problem = base.problem
    truth = problem.simulator
    for wrong, why in (
        (not problem.repeats, "`repeats=False`: what is left to show depends on what was recommended"),
        (problem.resample != "step", '`resample="episode"`: what is shown stays the same'),
        (bool(problem.hidden), f"`hidden={problem.hidden}`: the state cannot be read from the observation"),
    ):
        if wrong:
            raise ValueError(f"`env` cannot be solved exactly: {why}.")
    if not isinstance(truth, BoundRuleSimulator):
        raise ValueError("`env` cannot be solved exactly: its `simulator` is no RuleSimulator; the truth is unknown.")
    return problem, truth


def _horizon_of(env: Any) -> int:
    horizon = _steps_of(env)
    if horizon is None:
        raise ValueError("`horizon` must be given where the environment has no `max_episode_steps`.")
    return horizon


def _steps_of(env: Any) -> int | None:
    """How many steps an episode has at most; ``None`` if that is not known, or if episodes have no limit."""
    if isinstance(env.unwrapped, JobRecCareerVectorEnv):  # its spec always has the registered number
        limits = [env.unwrapped.max_episode_steps]
    else:  # a layer's spec has the limit of the outermost `TimeLimit` beneath; the shortest of all ends an episode
        limits = [layer.spec.max_episode_steps for layer in _layers(env) if layer.spec is not None]
    return min((int(steps) for steps in limits if steps is not None), default=None)


def _reachable(problem: CareerProblem, horizon: int) -> NDArray[np.int64]:
    """All states that an applicant of the market can reach within ``horizon`` steps, sorted."""
    dynamics, everybody = problem.dynamics, np.arange(len(problem.market.applicants))
    known = frontier = _distinct(dynamics.start(everybody))
    jobs = problem.job_ids
    for _ in range(horizon):
        if not len(frontier):
            break
        found = [known]
        for state in frontier:
            states = np.repeat(state[None], len(jobs), axis=0)
            for decision in range(len(DECISIONS)):
                moved = dynamics.advance(states, jobs, np.full(len(jobs), decision))
                found.append(_distinct(moved[~dynamics.leaves(moved)]))
        larger = _distinct(np.concatenate(found))
        frontier = larger[_places(known, larger) < 0]
        known = larger
    return known


def _distinct(states: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(states, axis=0) if states.shape[1] else states[:1]


def _places(states: NDArray[np.int64], wanted: NDArray[np.int64]) -> Ids:
    """The place of each wanted row among sorted distinct rows; -1 if it is not there."""
    if not states.shape[1]:
        return np.zeros(len(wanted), dtype=np.int64)
    low = np.minimum(states.min(axis=0), wanted.min(axis=0, initial=0))
    span = np.maximum(states.max(axis=0), wanted.max(axis=0, initial=0)) - low + 1
    codes, asked = (np.ravel_multi_index(tuple((rows - low).T), tuple(span)) for rows in (states, wanted))
    places = np.minimum(np.searchsorted(codes, asked), len(codes) - 1)
    return np.where(codes[places] == asked, places, -1)


def _rows_by_bytes(vectors: NDArray[Any]) -> _Rows:
    """The rows of vectors (n, d), to be found by their bytes."""
    rows = _Rows({}, set())
    for place, row in enumerate(np.ascontiguousarray(vectors, dtype=np.float32)):
        if rows.first.setdefault(row.tobytes(), place) != place:
            rows.several.add(row.tobytes())
    return rows
