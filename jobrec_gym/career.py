"""``JobRecCareer-v0``: applicants change with their answers, so the next reward is not all that counts."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from jobrec_gym.candidates import CandidateSampler
from jobrec_gym.dynamics import (
    CareerDynamics,
    CareerStart,
    Dynamics,
    DynamicsSpec,
    States,
    check_dynamics,
    make_dynamics,
)
from jobrec_gym.env import JobRecEnv
from jobrec_gym.market import LabourMarket, MarketSpec, Split
from jobrec_gym.near_miss import did_you_mean, with_known_keywords
from jobrec_gym.picture import RenderSize
from jobrec_gym.problem import Observation, RecommendationProblem, Recommendations, Resample, require_count
from jobrec_gym.simulators.base import (
    Feedback,
    SimulatorSpec,
    UserSimulator,
    bound_simulator,
    checked_answers,
    make_simulator,
)
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.vector import JobRecVectorEnv, Mask, scattered

__all__ = ["EPISODE_STEPS", "CareerAnswers", "CareerProblem", "JobRecCareerEnv", "JobRecCareerVectorEnv", "Levels"]

Ids = NDArray[np.int64]
Levels = Literal["ask", "ignore"]

EPISODE_STEPS = 40
"""The registered ``max_episode_steps``."""

_NOISE = 0.5
_STEPS_LEFT = "steps_left"


@dataclass(frozen=True, slots=True, eq=False)
class CareerAnswers:
    """Results of n recommendations.

    Attributes:
        feedback: The simulator's answers. Their rewards are already multiplied by `pay`.
        pay: float64 (n,), the factor by which the worth of each answer was multiplied.
        states: int64 (n, m), the applicants' states after the answers.
    """

    feedback: Feedback
    pay: NDArray[np.float64]
    states: States


class CareerProblem(RecommendationProblem):
    """A :class:`~jobrec_gym.problem.RecommendationProblem` whose applicants change.

    Arguments are those of :class:`JobRecCareerEnv`.
    """

    def __init__(
        self,
        *arguments: Any,
        simulator: UserSimulator | SimulatorSpec | None,
        dynamics: Dynamics | DynamicsSpec | None,
        start: CareerStart | None,
        hidden: Sequence[str],
        levels: Levels,
        show_steps_left: bool | int,
    ):
        super().__init__(*arguments)
        if start is not None:
            if dynamics is not None:
                raise ValueError(
                    "`start` and `dynamics` must not both be given: pass `start` to the dynamics, as in "
                    "`CareerDynamics(start=...)`, and not to the environment."
                )
            dynamics = CareerDynamics(start=start)
        self.dynamics = make_dynamics(dynamics).bind(self.market)
        # The check takes two applicants and two jobs: with one, results of a fixed shape such as (1,) would pass.
        check_dynamics(self.dynamics, np.resize(self.applicant_ids[:2], 2), np.resize(self.job_ids[:2], 2))
        self.hidden = _checked_hidden(hidden, self.dynamics.names, self.dynamics.shown_in_pairs)
        self._observed = [place for place, name in enumerate(self.dynamics.names) if name not in self.hidden]
        self.horizon: int | None
        if isinstance(show_steps_left, (bool, np.bool_)):
            self.horizon = EPISODE_STEPS if show_steps_left else None
        else:
            require_count("show_steps_left", show_steps_left, " or a bool")
            self.horizon = int(show_steps_left)
        if levels not in get_args(Levels):
            raise ValueError(f"`levels` must be one of {get_args(Levels)}, got {levels!r}.")
        shown = tuple(self.dynamics.names[place] for place in self._observed)
        # Names of the columns of the entry `progress`; empty where nobody moves and no steps are shown.
        self.progress_names = shown if self.horizon is None else (*shown, _STEPS_LEFT)
        made = RuleSimulator(seed=0, noise=_NOISE) if simulator is None else make_simulator(simulator)
        self.simulator = bound_simulator(made, self.market)
        self.tells_levels = levels == "ask"
        self.is_free: bool = getattr(self.simulator, "is_free", False)
        self._draws: bool = getattr(self.simulator, "draws", True)
        self.noise_of = getattr(self.simulator, "noise_of", None)
        moves = self.dynamics.levels(self.dynamics.start(self.applicant_ids[:1])) is not None
        if levels == "ask" and moves and not _takes("levels", self.simulator.feedback):
            raise ValueError(
                f"`simulator` must take `levels`, the applicants' present levels, beside the ids, got {made!r:.70}, "
                'which knows only the levels of the market. Use `levels="ignore"` to let it answer by the levels of '
                "the market."
            )

    def _own_parts(self) -> tuple[Any, ...]:
        return (self.dynamics,) if self.noise_of is None else (self.dynamics, self.simulator)

    @property
    def pair_names(self) -> tuple[str, ...]:
        """Names of the columns of the entry ``pairs``: first those of the dynamics, then the pair features."""
        return (*self.dynamics.pair_names, *self.pair_values.names)

    def observation_space(self) -> spaces.Dict:
        """The space of one observation."""
        entries = dict(super().observation_space().spaces)
        k, n_moving, n_still = self.num_candidates, len(self.dynamics.pair_names), len(self.pair_values.names)
        if n_moving:
            low = np.repeat(np.array([-1.0, 0.0], dtype=np.float32), (n_moving, n_still))
            entries["pairs"] = spaces.Box(np.tile(low, (k, 1)), np.ones((k, n_moving + n_still), np.float32))
        if self.progress_names:
            entries["progress"] = spaces.Box(0.0, 1.0, (len(self.progress_names),), np.float32)
        return spaces.Dict(entries)

    def seen(
        self, states: States, steps: NDArray[np.int64], applicant_ids: Ids, candidate_ids: Ids
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Observed progress and pair features of applicants (n,) in states (n, m) who are shown jobs (n, k).

        ``steps`` (n,) are the steps of the episodes so far.

        Returns:
            Progress, with a column for each of ``progress_names``, and pair features (n, k, q + p); ``None`` in place
            of an array that is not observed.
        """
        progress = np.asarray(self.dynamics.progress(states), dtype=np.float32)
        if not self.dynamics.pair_names:
            pairs = self.pairs(applicant_ids, candidate_ids)
        else:
            pairs = self.dynamics.pairs(progress[:, None], candidate_ids)
            if self.pair_values.names:
                pairs = np.concatenate([pairs, self.pair_values(applicant_ids[:, None], candidate_ids)], axis=2)
        if self.hidden:
            progress = progress[:, self._observed]
        if self.horizon is not None:
            left = np.maximum(self.horizon - steps, 0) / self.horizon
            progress = np.concatenate([progress, left[:, None].astype(np.float32)], axis=1)
        return (progress if self.progress_names else None), pairs

    def imagined_pairs(
        self,
        applicant_ids: NDArray[np.integer],
        job_ids: NDArray[np.integer],
        progress: NDArray[np.floating] | None,
    ) -> NDArray[np.float32]:
        """Pair features of any pairs at any progress, see :meth:`JobRecCareerEnv.pair_features`."""
        if not self.dynamics.pair_names:
            return self.pair_values.ask(applicant_ids, job_ids)
        applicants, jobs = self.pair_values.checked(applicant_ids, job_ids)
        shape = np.broadcast_shapes(applicants.shape, jobs.shape)
        names = self.progress_names
        if progress is None:
            whole = self.dynamics.progress(self.dynamics.start(applicants.reshape(-1)))
            whole = whole.reshape(*applicants.shape, -1)
        else:
            given = np.asarray(progress)
            if given.dtype.kind not in "fiu" or given.shape[-1:] != (len(names),):
                raise ValueError(
                    f"`progress` must be numbers (..., {len(names)}), {names}, got {given.dtype}, {given.shape}."
                )
            if not np.isfinite(given).all():
                raise ValueError(f"`progress` must be finite, got {given[~np.isfinite(given)][0]}.")
            # A hidden column is not shown in pairs either.
            whole = np.zeros((*given.shape[:-1], len(self.dynamics.names)), dtype=np.float32)
            whole[..., self._observed] = given[..., : len(self._observed)]
        try:
            np.broadcast_shapes(whole.shape[:-1], shape)
        except ValueError:
            raise ValueError(
                f"`progress` must have leading axes that broadcast with the ids, {shape}, got {whole.shape}."
            ) from None
        moving = self.dynamics.pairs(whole, jobs)
        shape = np.broadcast_shapes(moving.shape[:-1], shape)
        parts = [np.broadcast_to(moving, (*shape, moving.shape[-1]))]
        if self.pair_values.names:
            still = self.pair_values(applicants, jobs)
            parts.append(np.broadcast_to(still, (*shape, still.shape[-1])))
        return np.concatenate(parts, axis=-1)

    def stored_states(self, state: Mapping[str, Any], *n: int) -> States:
        """States (n, m), or of one applicant (m,), in the result of an environment's ``get_state``.

        Raises:
            ValueError: If they are not states of these dynamics.
        """
        names = tuple(self.dynamics.names)
        states = np.asarray(state.get("progress", ()), dtype=np.int64)
        given = state.get("state_names", names)  # older checkpoints lack the entry
        way_out = "make the environment with the `dynamics` of the saved one"
        if tuple(given) != names or states.shape != (*n, len(names)):
            raise ValueError(
                f"`state` must be that of dynamics with the numbers {names}, got {tuple(given)} with an array of shape "
                f"{states.shape}: {way_out}."
            )
        rows = states.reshape(math.prod(n), len(names))
        shown = np.asarray(self.dynamics.progress(rows))
        wrong = ~((shown >= 0) & (shown <= 1)).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"`state` must be that of equal dynamics, but {names} of an applicant are {rows[wrong][0].tolist()}, "
                f"which have no `progress` in [0, 1] here: {way_out}."
            )
        return states

    def begun(
        self, applicant_ids: Ids, candidate_ids: Ids
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """As in :class:`~jobrec_gym.problem.RecommendationProblem`, in the states in which episodes begin."""
        steps = np.zeros(len(applicant_ids), np.int64)
        return self.seen(self.dynamics.start(applicant_ids), steps, applicant_ids, candidate_ids)

    def answers(
        self,
        states: States,
        applicant_ids: Ids,
        job_ids: Ids,
        keys: NDArray[np.uint64] | None,
        noise: NDArray[np.float64] | None = None,
    ) -> CareerAnswers:
        """Asks the simulator, pays, and moves the applicants (n,), who are in states (n, m).

        ``noise`` (n,) is what :attr:`noise_of` computes from the keys (n,). If it is given, the keys are not read.
        """
        told: dict[str, Any] = {} if noise is None else {"noise": noise}
        levels = self.dynamics.levels(states) if self.tells_levels else None
        if levels is not None:
            told["levels"] = levels
        said = self.simulator.feedback(applicant_ids, job_ids, keys if self._draws else None, **told)
        feedback = checked_answers(said, len(applicant_ids))
        pay = self.dynamics.pay(states, job_ids)
        moved = self.dynamics.advance(states, job_ids, feedback.number)
        return CareerAnswers(feedback.paid(feedback.reward * pay), pay, moved)


def _takes(keyword: str, function: Callable[..., Any]) -> bool:
    """Whether a function has this keyword, or takes any."""
    parameters = inspect.signature(function).parameters
    return keyword in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


class _Careers:
    """Attributes of the problem that single and vector environments share."""

    _problem: CareerProblem

    @property
    def problem(self) -> CareerProblem:
        """The decision problem: applicants, candidates, observations, simulator and dynamics; holds no episode."""
        return self._problem

    @property
    def simulator(self) -> Any:
        """The simulated applicants, bound to the market."""
        return self._problem.simulator

    @property
    def dynamics(self) -> Any:
        """The dynamics (how answers change applicants), bound to the market."""
        return self._problem.dynamics

    @property
    def progress_names(self) -> tuple[str, ...]:
        """Names of the columns of the entry ``progress``."""
        return self._problem.progress_names

    @property
    def pair_feature_names(self) -> tuple[str, ...]:
        """Names of the columns of the entry ``pairs``."""
        return self._problem.pair_names

    def pair_features(
        self,
        applicant_ids: NDArray[np.integer],
        job_ids: NDArray[np.integer],
        progress: NDArray[np.floating] | None = None,
    ) -> NDArray[np.float32]:
        """Columns of ``pairs`` for any pairs, shown or not, at any progress.

        Args:
            applicant_ids: Rows of the market's applicants, integers of any shape, e.g. (n, 1).
            job_ids: Rows of the market's jobs, of a shape that broadcasts with that of ``applicant_ids``, e.g. (n, k).
            progress: (..., m), observed or imagined, one column for each name of :attr:`progress_names`. Its leading
                axes broadcast with those of the ids. ``None`` is the progress at the start of an episode.

        Returns:
            float32 (..., q + p), one column for each name of :attr:`pair_feature_names`: q columns of the dynamics (2
            by default), and p columns of the argument ``pair_features``.

        Raises:
            ValueError: If ids are not integers or name no row, or if shapes do not fit.
        """
        return self._problem.imagined_pairs(applicant_ids, job_ids, progress)

    def _names_of_states(self) -> dict[str, list[str]]:
        """What a saved state says about the dynamics that it is of."""
        return {"state_names": list(self._problem.dynamics.names)}


class JobRecCareerEnv(_Careers, JobRecEnv):
    """Recommend jobs to an applicant whose career depends on them.

    ## Description

    ``JobRec-v0`` with consequences: applicants change with their answers, so gamma, a model of transitions and planning
    matter. The environment itself asks its simulator at each step. Applicants can rise through five levels, earn more
    at higher levels, and leave when they are shown too many jobs that they ignore. The best next recommendation may be
    a bad step for a career: under a policy that considers only the next reward, applicants climb only by accident.

    With the default dynamics, :class:`~jobrec_gym.dynamics.CareerDynamics`:

    * an applicant begins at level 1; three interested answers (click, save, apply) to jobs *exactly one level up* lift
      the level by one;
    * patience begins at 6; an ignored job costs one, a save or an application gives one back; at 0 the applicant
      leaves;
    * an applicant likes a job less if it is above the present level, and is paid for it as at the present level.

    The values of four policies can be computed: the best one, the best myopic one (which maximises the next reward),
    the cosine and a random choice. The only approximation is a sample of candidate sets; see :mod:`jobrec_gym.oracle`.

    ## Action Space

    ``Discrete(k)``: which candidate to recommend, as in ``JobRec-v0``. By default each step draws new candidates.

    ## Observation Space

    The ``Dict`` of ``JobRec-v0`` with one new entry, ``progress``, and more columns in ``pairs``. With the default
    dynamics:

    | entry | what it is |
    |---|---|
    | ``applicant`` | ``Box(-1, 1, (768,), float32)``: the vector, which does not change |
    | ``candidates`` | as in ``JobRec-v0``, vectors or ids |
    | ``progress`` | ``Box(0, 1, (3,), float32)``: (level - 1) / 4, experience / 3, patience / 6 |
    | ``pairs`` | ``Box(k, 2 + p)``: (job's level - level) / 4, (job's level - 1) / 4, then ``pair_features`` |
    | ``action_mask`` (optional) | ``Box(0, 1, (k,), int8)`` |

    ``hidden`` takes columns out of ``progress``, ``show_steps_left`` adds one.
    ``env.get_wrapper_attr("pair_features")(applicant_ids, job_ids, progress)`` gives the columns of ``pairs`` for any
    pairs at an imagined progress.

    ## Rewards

    The answer's worth (apply 1, save 0.5, click 0, ignore -0.1) times a pay. The pay is 0.5, 1, 2.5, 5 or 10 at levels
    1 to 5. The level that counts is the present level or the job's level, whichever is lower. A reward wrapper with a
    simulator of its own is refused; :class:`~jobrec_gym.wrappers.CosineReward` replaces the reward, and
    ``HybridReward(env, None, schedule)`` mixes it with the cosine.

    ``info`` has the entries of ``JobRec-v0`` and ``reward/feedback`` (the reward), ``reward/pay`` (the factor of the
    answer's worth), ``feedback/decision``, ``feedback/status`` and ``feedback/reason``. From ``reset`` on it also has
    ``progress/level``, ``progress/experience`` and ``progress/patience`` as whole numbers. If an answer fails, the
    applicant does not change, and the transition is not valid.

    ## Starting State

    As in ``JobRec-v0``: equal seeds give equal episodes, in single and vectorised environments. The noise of an answer
    is a hash of (episode number, step).

    ## Episode End

    ``terminated`` when the applicant leaves; ``truncated`` by ``gym.make`` after ``max_episode_steps=40``.

    ## Arguments

    ```python
    import gymnasium as gym, jobrec_gym

    env = gym.make("JobRecCareer-v0", dynamics={"type": "career", "start": "own"})
    ```

    Args:
        market: As in :class:`~jobrec_gym.env.JobRecEnv`, like all arguments down to ``pair_noise``.
        split: Which applicants.
        job_split: Which jobs.
        num_candidates: ``k``, the number of candidates.
        candidate_sampler: How candidates are chosen.
        resample: When candidates are drawn: for each ``"step"`` or each ``"episode"``.
        repeats: Whether a job may be recommended twice in an episode.
        observation: ``"features"`` or ``"ids"``.
        mask_in_observation: Put the mask into the observation.
        job_fields: Further blocks of the jobs' vectors.
        pair_features: Further columns of ``pairs``.
        pair_noise: Standard deviation of the noise that is added to the columns of ``pair_features``.
        simulator: The simulated applicants: a ``UserSimulator`` or its spec; ``RuleSimulator(seed=0, noise=0.5)`` by
            default.
        dynamics: How answers change applicants: an object with ``bind`` or its spec, see :mod:`jobrec_gym.dynamics`.
        start: ``"entry"`` or ``"own"``: short for ``CareerDynamics(start=...)``; not together with ``dynamics``.
        hidden: Columns that are taken out of ``progress``, e.g. ``("patience",)``.
        levels: ``"ask"`` tells the simulator the present levels. With ``"ignore"`` the simulator answers as if no
            level changed; ``"ignore"`` is for simulators that do not take levels.
        show_steps_left: Adds a column to ``progress``: the share of the episode's steps that are left. ``True`` counts
            from the registered 40 steps; with another ``max_episode_steps`` give that number.
        render_mode: As in :class:`~jobrec_gym.env.JobRecEnv`.
        render_size: Size of pictures, as in :class:`~jobrec_gym.env.JobRecEnv`.

    Raises:
        ValueError: If an argument has a value that is not allowed; the message names it.
        MarketError: For a market in which no job's level is known.

    ## Version History

    * v0: first version.
    """

    _problem: CareerProblem

    @with_known_keywords
    def __init__(
        self,
        market: MarketSpec | os.PathLike[str] | LabourMarket = "default",
        split: Split = "train",
        job_split: Split = "train",
        num_candidates: int = 20,
        candidate_sampler: str | CandidateSampler = "uniform",
        resample: Resample = "step",
        repeats: bool = True,
        observation: Observation = "features",
        mask_in_observation: bool = False,
        job_fields: Sequence[str] = (),
        pair_features: Sequence[str] = (),
        pair_noise: float = 0.0,
        simulator: UserSimulator | SimulatorSpec | None = None,
        dynamics: Dynamics | DynamicsSpec | None = None,
        start: CareerStart | None = None,
        hidden: Sequence[str] = (),
        levels: Levels = "ask",
        show_steps_left: bool | int = False,
        render_mode: str | None = None,
        render_size: RenderSize = "small",
    ):
        problem = CareerProblem(
            market,
            split,
            job_split,
            num_candidates,
            candidate_sampler,
            resample,
            repeats,
            observation,
            mask_in_observation,
            job_fields,
            pair_features,
            pair_noise,
            simulator=simulator,
            dynamics=dynamics,
            start=start,
            hidden=hidden,
            levels=levels,
            show_steps_left=show_steps_left,
        )
        self._states: States
        self._answers: CareerAnswers | None = None
        self._pose(problem, render_mode, render_size)

    @property
    def recommendations(self) -> Recommendations:
        """As in :class:`~jobrec_gym.env.JobRecEnv`, with the answer."""
        recommendations = super().recommendations
        recommendations.own = None if self._answers is None else self._answers.feedback
        return recommendations

    def get_state(self) -> dict[str, Any]:
        """As in :class:`~jobrec_gym.env.JobRecEnv`."""
        return {**super().get_state(), **self._names_of_states(), "progress": self._states[0].tolist()}

    def set_state(self, state: dict[str, Any]) -> None:
        """As in :class:`~jobrec_gym.env.JobRecEnv`. A state of other dynamics is refused."""
        states = self._problem.stored_states(state)
        super().set_state(state)
        self._states = states[None].copy()
        self._see()
        self._shown = self._candidate_ids, self._mask, self._pairs, self._progress
        self._last_info = self._info()

    def _enter(self) -> None:
        self._states = self._problem.dynamics.start(self._applicant_ids)
        self._answers = None

    def _answer(self, job_ids: Ids, cosine: float) -> tuple[float, dict[str, Any]]:
        keys = self._problem.interaction_keys(int(self._episode[0]), int(self._steps[0]))
        answers = self._answers = self._problem.answers(self._states, self._applicant_ids, job_ids, keys)
        reward = answers.feedback.reward.item()
        entries = {"reward/cosine": cosine, "reward/feedback": reward, "reward/pay": answers.pay.item()}
        entries |= {key: values.item() for key, values in answers.feedback.details.items()}
        entries["transition_valid"] = bool(answers.feedback.valid[0])
        return reward, {**entries, "reward_components": {"cosine": cosine, "feedback": reward}}

    def _left(self) -> bool:
        return bool(self._problem.dynamics.leaves(self._states)[0])

    def _move(self) -> None:
        assert self._answers is not None
        self._states = self._answers.states

    @property
    def _sees_anew(self) -> bool:
        return True  # even the same candidates look different from another level

    def _see(self) -> None:
        seen = self._problem.seen(self._states, self._steps, self._applicant_ids, self._candidate_ids)
        self._progress, self._pairs = seen

    def _standing(self) -> str:
        return self._problem.dynamics.in_words(self._states[0])

    def _info(self) -> dict[str, Any]:
        names = self._problem.dynamics.names
        return super()._info() | {
            f"progress/{name}": int(number) for name, number in zip(names, self._states[0], strict=True)
        }


class JobRecCareerVectorEnv(_Careers, JobRecVectorEnv):
    """``num_envs`` copies of :class:`JobRecCareerEnv`, equal to them step for step and to the bit.

    ``gym.make_vec("JobRecCareer-v0", num_envs=n)`` makes this class.

    Args:
        num_envs: As in :class:`~jobrec_gym.vector.JobRecVectorEnv`, like the next two arguments.
        max_episode_steps: Truncate after this many steps; ``None`` for never.
        autoreset_mode: When ended episodes begin anew.
        market: As in :class:`JobRecCareerEnv`, like all arguments below.
        split: Which applicants.
        job_split: Which jobs.
        num_candidates: How many candidates are shown.
        candidate_sampler: How candidates are chosen.
        resample: When candidates are drawn: for each ``"step"`` or each ``"episode"``.
        repeats: Whether a job may be recommended twice in an episode.
        observation: ``"features"`` or ``"ids"``.
        mask_in_observation: Put the mask into the observation.
        job_fields: Further blocks of the jobs' vectors.
        pair_features: Further columns of ``pairs``.
        pair_noise: Standard deviation of the noise that is added to the columns of ``pair_features``.
        simulator: The simulated applicants.
        dynamics: How answers change applicants.
        start: Short for ``CareerDynamics(start=...)``.
        hidden: Columns that are taken out of ``progress``.
        levels: Whether the simulator is told the present levels.
        show_steps_left: Adds a column to ``progress``: the share of the steps that are left.
        render_mode: Must be ``None``; to render, make a single environment.

    Raises:
        ValueError: If an argument has a value that is not allowed; the message names it.
        MarketError: For a market in which no job's level is known.
    """

    _problem: CareerProblem
    _changed_in_place = (*JobRecVectorEnv._changed_in_place, "_states")
    _of_all = (*JobRecVectorEnv._of_all, "dynamics", "problem", "progress_names", "simulator")

    @with_known_keywords
    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = EPISODE_STEPS,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        market: MarketSpec | os.PathLike[str] | LabourMarket = "default",
        split: Split = "train",
        job_split: Split = "train",
        num_candidates: int = 20,
        candidate_sampler: str | CandidateSampler = "uniform",
        resample: Resample = "step",
        repeats: bool = True,
        observation: Observation = "features",
        mask_in_observation: bool = False,
        job_fields: Sequence[str] = (),
        pair_features: Sequence[str] = (),
        pair_noise: float = 0.0,
        simulator: UserSimulator | SimulatorSpec | None = None,
        dynamics: Dynamics | DynamicsSpec | None = None,
        start: CareerStart | None = None,
        hidden: Sequence[str] = (),
        levels: Levels = "ask",
        show_steps_left: bool | int = False,
        render_mode: str | None = None,
    ):
        problem = CareerProblem(
            market,
            split,
            job_split,
            num_candidates,
            candidate_sampler,
            resample,
            repeats,
            observation,
            mask_in_observation,
            job_fields,
            pair_features,
            pair_noise,
            simulator=simulator,
            dynamics=dynamics,
            start=start,
            hidden=hidden,
            levels=levels,
            show_steps_left=show_steps_left,
        )
        self._states: States
        self._own: tuple[Feedback, Mask] | None = None  # the answers, and which rows were asked
        self._pose(problem, num_envs, max_episode_steps, autoreset_mode, render_mode)

    @property
    def recommendations(self) -> Recommendations:
        """As in :class:`~jobrec_gym.vector.JobRecVectorEnv`, with the answers."""
        recommendations = super().recommendations
        if self._own is not None and recommendations.own is None:
            feedback, asked = self._own
            if not asked.all():
                feedback = (feedback.take(asked) if len(feedback) == len(asked) else feedback).spread(asked)
            recommendations.own = feedback
        return recommendations

    def get_state(self) -> dict[str, Any]:
        """As in :class:`~jobrec_gym.vector.JobRecVectorEnv`."""
        return {**super().get_state(), **self._names_of_states(), "progress": self._states.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """As in :class:`~jobrec_gym.vector.JobRecVectorEnv`. A state of other dynamics is refused."""
        states = self._problem.stored_states(state, len(state["episodes"]))
        super().set_state(state)
        self._states = states.copy()
        self._see(self._every)

    def _allocate(self) -> None:
        super()._allocate()
        n = self.num_envs
        self._states = np.zeros((n, len(self._problem.dynamics.names)), dtype=np.int64)
        if self._problem.progress_names:
            self._progress = np.zeros((n, len(self._problem.progress_names)), dtype=np.float32)

    def _enter(self, rows: Ids) -> None:
        self._states[rows] = self._problem.dynamics.start(self._applicant_ids[rows])

    @property
    def _sees_anew(self) -> bool:
        return True  # even the same candidates look different from another level

    def _see(self, rows: Mask) -> None:
        here = slice(None) if rows is self._every else rows
        progress, pairs = self._problem.seen(
            self._states[here], self._steps[here], self._applicant_ids[here], self._candidate_ids[here]
        )
        if self._progress is not None:
            self._progress[here] = progress
        if self._pairs is not None:
            self._pairs[here] = pairs

    def _answer(
        self, made: Mask, job_ids: Ids, cosine: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        # Where answers cost nothing, rows that start anew are asked too: whole arrays are faster than some rows.
        n_made = np.count_nonzero(made)
        whole = self._problem.is_free or n_made == len(made)
        if not (whole or n_made):  # all rows start anew, so there is nobody to ask
            self._own = None
            return np.zeros(len(made)), {}
        rows = slice(None) if whole else made
        keys = noise = None
        if self._noise is None:
            keys = self._problem.keys_of_steps(self._episode_keys[rows], self._steps[rows])
        else:
            noise = self._noise[rows]
        answers = self._problem.answers(self._states[rows], self._applicant_ids[rows], job_ids[rows], keys, noise)
        feedback = answers.feedback
        self._own = feedback, made
        reward, pay, valid, details = feedback.reward, answers.pay, feedback.valid, feedback.details
        if whole:
            self._states = answers.states  # rows that start anew get their state right after
        else:
            self._states[made] = answers.states
            reward, pay, valid = (scattered(values, made) for values in (reward, pay, valid))
            details = {name: scattered(values, made) for name, values in details.items()}
        entries: dict[str, Any] = {"reward/cosine": cosine.copy(), "reward/feedback": reward.copy(), "reward/pay": pay}
        components = {"cosine": cosine.copy(), "feedback": reward.copy()}
        return reward.copy(), {**entries, **details, "reward_components": components, "transition_valid": valid.copy()}

    def _left(self, made: Mask) -> Mask:
        return made & self._problem.dynamics.leaves(self._states)

    def _nothing_recommended(self) -> None:
        super()._nothing_recommended()
        self._own = None

    def _state_entries(self) -> dict[str, NDArray[Any]]:
        names = self._problem.dynamics.names
        states = {f"progress/{name}": self._states[:, place].copy() for place, name in enumerate(names)}
        return super()._state_entries() | states


def _checked_hidden(hidden: Sequence[str], names: tuple[str, ...], shown: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ValueError(f"`hidden` must be a sequence of names, e.g. ['patience'], got {hidden!r}.")
    for name in hidden:
        if name not in names:
            raise ValueError(
                f"`hidden` must be names of {names}, the columns of `progress`, got {name!r}."
                f"{did_you_mean(name, names)}"
            )
        if name in shown:
            raise ValueError(f"`hidden` must not name {name!r}: the entry `pairs` shows it.")
    return tuple(hidden)
