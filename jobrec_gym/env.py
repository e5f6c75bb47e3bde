"""``JobRec-v0``: recommend one job out of a candidate set to an applicant."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from jobrec_gym.beginnings import Beginning, read_options
from jobrec_gym.candidates import CandidateSampler
from jobrec_gym.market import LabourMarket, MarketSpec, Split
from jobrec_gym.near_miss import with_known_keywords
from jobrec_gym.picture import RENDER_SIZES, RenderSize, render_image
from jobrec_gym.problem import (
    JobRecSpec,
    Observation,
    Payer,
    RecommendationProblem,
    Recommendations,
    Resample,
    UndoneOnError,
)
from jobrec_gym.rendering import Scene, render_text
from jobrec_gym.rewards import Cosines, unit_cosine
from jobrec_gym.screen import show

__all__ = ["JobRecEnv"]

_Shown = tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float32] | None, NDArray[np.float32] | None]
"""What was shown at a decision: candidates (1, k), mask (k,), pair features (1, k, p) and progress (1, m)."""


class JobRecEnv(gym.Env[dict[str, NDArray[Any]], int]):
    """Recommend one job out of a candidate set to an applicant.

    ## Description

    An applicant with hard and soft skills is recommended one of ``k`` candidates, which are jobs. The agent sees the
    applicant's vector and the candidates' vectors; its action is the index of a candidate. The applicant stays the same
    for the whole episode (``s' = s``), and the candidates do not depend on earlier recommendations. So the problem is a
    contextual bandit, written as a Markov decision process. The default market is *generated* over a hand-curated
    taxonomy; nobody in it is real.

    The base reward is the cosine similarity of applicant and job. For other rewards wrap the environment in a reward
    wrapper, such as ``FeedbackReward``.

    ## Action Space

    ``Discrete(k)``: which candidate to recommend. With ``repeats=False`` a job that was recommended is masked for the
    rest of the episode, and recommending it again raises ``ValueError``. The mask is in ``info["action_mask"]``, in the
    observation (below), and at ``env.get_wrapper_attr("action_masks")()``.

    ## Observation Space

    A ``Dict``. A vector is ``hard | soft``: two blocks of 384 numbers. Each block is the mean of the unit vectors of
    its skills, scaled to unit length. The two blocks are then joined, and scaled to unit length once more. A block
    without skills is zero. If one vector has a zero block and the other vector has two blocks that are not zero, the
    cosine of the two vectors is at most 0.71.

    | entry | ``observation="features"`` | ``observation="ids"`` |
    |---|---|---|
    | ``applicant`` | ``Box(-1, 1, (768,), float32)`` | the same |
    | ``candidates`` | ``Box(-1, 1, (k, d_a), float32)``, the jobs' vectors | ``Box(0, n_jobs - 1, (k,), int64)`` |
    | ``pairs`` (optional) | ``Box(0, 1, (k, p), float32)``, of applicant and job | the same |
    | ``action_mask`` (optional) | ``Box(0, 1, (k,), int8)`` | the same |

    ``action_mask`` is there with ``mask_in_observation=True`` or ``repeats=False``. ``d_a`` is 768, plus
    384 for each entry of ``job_fields``. ``"features"`` is self-contained and works with any library; ``"ids"`` is
    smaller and faster, for agents that look ids up in the table (n_jobs, d_a) at
    ``env.get_wrapper_attr("action_features")``.

    ``pairs`` is there with ``pair_features`` or ``prior_sources``, one column for each name: numbers that a job board
    knows about applicant and job together, and that the mean of embeddings does not show. For pairs that nobody was
    shown, ask ``env.get_wrapper_attr("pair_features")(applicant_ids, job_ids)``.

    ## Rewards

    ``(1 + c) / 2`` in [0, 1], with ``c`` the cosine of the applicant's and the recommended job's ``hard | soft``
    vectors.

    After a step, ``info`` holds ``applicant_id``, ``job_id``, ``candidate_ids`` (k,) int64 (of the returned
    observation), ``action_mask`` (k,) int8, ``reward/cosine``, ``transition_valid`` (False if there is no valid reward)
    and ``reward_components`` (a dict). An ``_id`` is a row of the market's tables. ``market.jobs.keys`` has the keys:
    the names that jobs have in the file or data set that the market was loaded from. The ``info`` of ``reset`` has the
    same entries, except those that describe a recommendation.

    ## Starting State

    A reset draws one 64-bit number from ``np_random``: the episode number. The applicant is uniform over the split;
    candidates and reward noise are hashes of (episode number, step). Equal seeds therefore give equal episodes in
    single and vectorised environments, and the same ids on every platform.

    ``reset(options=...)`` sets, for one episode, what would otherwise be drawn:

    | option | what it is |
    |---|---|
    | ``applicant_id`` | a row of the market's applicants |
    | ``applicant_key`` | the key of an applicant, in place of ``applicant_id`` |
    | ``candidate_ids`` | ``k`` distinct rows of the market's jobs; with ``resample="step"`` for the first step only |

    A chosen applicant or job may be outside of the split. The ``info`` of that reset says whether it is inside:
    ``applicant_in_split`` (bool) for a chosen applicant, ``candidates_in_split`` (k,) for chosen candidates. An unknown
    option is a ``ValueError``.

    ## Episode End

    The environment itself terminates only with ``repeats=False``, when every candidate is masked. ``gym.make``
    truncates after ``max_episode_steps=10``.

    ## Arguments

    ```python
    import gymnasium as gym, jobrec_gym

    env = gym.make("JobRec-v0", market="default", split="train", job_split="train", num_candidates=20)
    ```

    Args:
        market: ``"default"``, the folder of a saved market, ``"SCHEME:PATH"``, a dictionary with ``source``, or a
            ``LabourMarket``; see :func:`~jobrec_gym.market.load_market`.
        split: Which applicants: ``"train"``, ``"test"`` or ``"all"``.
        job_split: Which jobs. ``split`` and ``job_split`` together choose one of four quadrants: warm (``"train"``) or
            cold (``"test"``, held out) applicants with warm or cold jobs.
        num_candidates: ``k``, at most the number of jobs in the split.
        candidate_sampler: ``"uniform"``, ``"retrieval"`` (the nearest by cosine), ``"mixed"`` (half of each),
            ``"all"`` (the whole split in fixed order, whatever ``num_candidates``), or an object with ``bind``.
        resample: When candidates are drawn: for each ``"episode"`` or each ``"step"``.
        repeats: Whether a job may be recommended twice in an episode.
        observation: ``"features"`` or ``"ids"``.
        mask_in_observation: Put the mask into the observation; always so with ``repeats=False``.
        job_fields: Further blocks of the jobs' vectors: ``"title"``, ``"experience"``.
        pair_features: Columns of the entry ``pairs``, or ``"all"`` of them. ``"hard_coverage"`` and
            ``"soft_coverage"`` are the share of the job's hard or soft skills that the applicant has, ignoring case,
            and 0 for a job that asks for none. Where skills are free texts, a coverage is the cosine of the
            applicant's block and the job's block, at least 0.
            ``"seniority"`` is ``1 - |level_i - level_j| / 4``, and 0.5 where a level is unknown.
        pair_noise: Standard deviation of normally distributed noise that is added to each value of ``pair_features``.
            The sum is clipped to [0, 1]. The noise is a hash of feature, applicant and job. So a pair's value is wrong
            in the same way in every episode, whatever the seed, like a job board's estimate.
        prior_sources: Further columns of ``pairs``: names of your choice, each with a source of values that an agent
            can use as a prior. A source is ``"cosine"``, an array (n_applicants, n_jobs), a function of ids, or a
            recorded or live language model; see :class:`~jobrec_gym.prior_sources.SourcedPairValues`.
        render_mode: ``"ansi"`` (a text), ``"human"`` (printed, or drawn in a notebook) or ``"rgb_array"``.
        render_size: Size of pictures: ``"small"`` (960 x 540) or ``"large"`` (1920 x 1080).

    Raises:
        ValueError: If an argument has a value that is not allowed; the message names it.

    ## Version History

    * v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human", "rgb_array"], "render_fps": 2}  # noqa: RUF012

    @with_known_keywords
    def __init__(
        self,
        market: MarketSpec | os.PathLike[str] | LabourMarket = "default",
        split: Split = "train",
        job_split: Split = "train",
        num_candidates: int = 20,
        candidate_sampler: str | CandidateSampler = "uniform",
        resample: Resample = "episode",
        repeats: bool = True,
        observation: Observation = "features",
        mask_in_observation: bool = False,
        job_fields: Sequence[str] = (),
        pair_features: Sequence[str] = (),
        pair_noise: float = 0.0,
        prior_sources: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
        render_size: RenderSize = "small",
    ):
        problem = RecommendationProblem(
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
            prior_sources,
        )
        self._pose(problem, render_mode, render_size)

    def _pose(self, problem: RecommendationProblem, render_mode: str | None, render_size: RenderSize) -> None:
        """Sets up what every environment of a problem has."""
        if render_size not in RENDER_SIZES:
            raise ValueError(f"`render_size` must be one of {list(RENDER_SIZES)}, got {render_size!r}.")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"`render_mode` must be one of {self.metadata['render_modes']}, got {render_mode!r}.")
        self._problem = problem
        self.render_mode = render_mode
        self.render_size = render_size
        self.observation_space = self._problem.observation_space()
        self.action_space = self._problem.action_space()
        self._k = self._problem.num_candidates
        self._episode: NDArray[np.uint64]
        self._beginning: Beginning  # the part of the episode that was chosen instead of drawn
        self._steps: NDArray[np.int64]
        self._applicant_ids: NDArray[np.int64]
        self._candidate_ids: NDArray[np.int64]
        self._mask: NDArray[np.int8]
        self._pairs: NDArray[np.float32] | None  # (1, k, p)
        self._progress: NDArray[np.float32] | None = None  # (1, m), where applicants move
        self._recommended: NDArray[np.bool_]  # (n_jobs,), in this episode; empty with `repeats=True`
        # The last recommendation: job, number of the step, and cosine of applicant and job; ``None`` after a reset.
        self._last: tuple[NDArray[np.int64], int, Cosines] | None
        self._recommendation: Recommendations | None
        # Vectors that are observed for the whole episode.
        self._applicant_vectors: NDArray[np.float32]
        self._started = False
        # What a picture of the last decision needs: the next decision may have other candidates.
        self._shown: _Shown
        self._last_info: dict[str, Any] = {}
        self._last_reward: float | None = None
        self._scorer: tuple[str, Callable[[dict[str, NDArray[Any]]], Any]] | None = None
        # Set by a reward wrapper while it makes a step. Its reward is then shown, in place of the environment's own.
        self.payer: Payer | None = None
        self._screen: Any = None

    @property
    def market(self) -> LabourMarket:
        """The market of the environment."""
        return self._problem.market

    @property
    def action_features(self) -> NDArray[np.floating]:
        """Table of job vectors (n_jobs, d_a), read-only; ids in the observation are its rows."""
        return self._problem.action_features

    @property
    def job_fields(self) -> tuple[str, ...]:
        """Names of the blocks that follow hard and soft skills in a job's vector; empty if there are none."""
        return self._problem.job_fields

    @property
    def pair_feature_names(self) -> tuple[str, ...]:
        """Names of the columns of the entry ``pairs``, (p,); empty if there is no such entry."""
        return self._problem.pair_values.names

    @property
    def prior_sources(self) -> dict[str, str]:
        """The columns of ``pairs`` that are sources of a prior: name and description; empty if there are none."""
        return self._problem.prior_sources

    @property
    def source_settings(self) -> dict[str, str]:
        """For each live language model in ``prior_sources``: its address, sampling and order of decisions."""
        return self._problem.source_settings

    def pair_features(self, applicant_ids: NDArray[np.integer], job_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Pair features of any pairs, shown or not; the entry ``pairs`` has only those of the shown pairs.

        Args:
            applicant_ids: Rows of the market's applicants, integers of any shape, e.g. (n, 1).
            job_ids: Rows of the market's jobs, of a shape that broadcasts with that of ``applicant_ids``, e.g. (n, k).

        Returns:
            float32 (..., p) in [0, 1], one column for each name of :attr:`pair_feature_names`, with the same
            ``pair_noise`` as in the observation.

        Raises:
            ValueError: If the environment was made with neither ``pair_features=`` nor ``prior_sources=``, or if ids
                are not integers, name no row, or do not broadcast.
        """
        return self._problem.pair_values.ask(applicant_ids, job_ids)

    @property
    def observation_sample(self) -> dict[str, NDArray[Any]]:
        """A batch of n observations that shows the scale of their numbers to an algorithm before it learns.

        The observations are the first ones of at most 1,000 fixed episodes, with at most 20,000 candidates in all. No
        episode is played for the sample, and it is the same for every seed. n is 0 if one of ``prior_sources`` is a
        live model, because such a model is asked only about pairs that are shown.
        """
        return self._problem.observation_sample()

    @property
    def recommendations(self) -> Recommendations:
        """The last step's recommendation, for reward wrappers: one row, whose ``made`` is False after a reset."""
        self._check_started()
        if self._recommendation is None:  # the key is hashed later, when it is asked for
            if self._last is None:
                nothing = _NO_JOB, self._episode, _NOT_MADE, _NO_COSINE
                self._recommendation = Recommendations(self._applicant_ids, *nothing)
            else:
                job_ids, step, cosine = self._last
                # The key is made from Python integers, because arrays of one number take many times as long.
                keys = partial(self._problem.interaction_keys, int(self._episode[0]), step)
                self._recommendation = Recommendations(self._applicant_ids, job_ids, keys, _MADE, cosine)
        return self._recommendation

    @property
    def candidate_ids(self) -> NDArray[np.int64]:
        """Ids of the jobs that are shown now, (k,)."""
        self._check_started()
        return self._candidate_ids[0].copy()

    def begun(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Applicant (1,) and candidates (1, k) of an episode that has made exactly one step, for reward wrappers.

        ``None`` after any other step. Also ``None`` if candidates change at each step, or are too many to compute all
        their rewards ahead.
        """
        if not self._problem.is_foreseeable or not self._started or self._steps[0] != 1:
            return None
        return self._applicant_ids, self._candidate_ids

    def action_masks(self) -> NDArray[np.bool_]:
        """Bool (k,), which actions are allowed now; the form that sb3-contrib expects."""
        self._check_started()
        return self._mask.astype(bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode. Its applicant is drawn, unless ``options`` chooses one.

        After an exception, such as one of a live prior source, the environment is as before.

        Args:
            seed: Seed of this episode and of all episodes that follow.
            options: ``applicant_id``, ``applicant_key``, ``candidate_ids``: what is chosen in this episode instead of
                drawn.

        Raises:
            ValueError: For an unknown option, an unknown applicant, or candidates that are not ``k`` distinct jobs.
        """
        beginning = read_options(self._problem, options)
        with UndoneOnError(self, self._problem), _rewound_on_error(self.np_random):
            super().reset(seed=seed)
            number = int(self.np_random.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
            self._start(number, beginning=beginning)
            self._last_info = self._info()
            for key, values in () if beginning is None else beginning.infos(self._problem):
                self._last_info[key] = values[0] if values.ndim > 1 else bool(values[0])
            self._last_reward = None
            if self.render_mode == "human":
                self.render()
            return self._observe(), dict(self._last_info)

    def step(self, action: int) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Recommends candidate number ``action``.

        After an exception, such as one of a simulator, the environment is as before.

        Raises:
            ValueError: If there is no such candidate, or it is masked.
            RuntimeError: Before the first reset.
        """
        index = self._checked_action(action)
        with UndoneOnError(self, self._problem):
            return self._recommend(self._candidate_ids[:, index])

    def _checked_action(self, action: int) -> int:
        self._check_started()
        try:
            index = operator.index(action)
        except TypeError:
            raise ValueError(f"`action` must be one integer in [0, {self._k}), got {action!r}.") from None
        if not 0 <= index < self._k:
            raise ValueError(f"`action` must be in [0, {self._k}), got {action}.")
        if not self._mask[index]:
            raise ValueError(
                f"`action` {index} is masked: job {self._candidate_ids[0, index]} was recommended before in this "
                'episode (repeats=False); choose where `info["action_mask"]` is 1.'
            )
        return index

    def _recommend(
        self, job_ids: NDArray[np.int64]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Makes the step that recommends a job (1,)."""
        raw = self.market.cosine_of(self._applicant_vectors, job_ids)
        cosine = unit_cosine(float(raw[0]))
        self._last = job_ids, int(self._steps[0]), Cosines(raw, np.array([cosine]))
        self._recommendation = None
        reward, entries = self._answer(job_ids, cosine)
        paid, terminated = reward, False
        if self.payer is not None:
            paid, terminated = self.payer(self.recommendations, entries)
        self._steps = self._steps + 1
        self._shown = self._candidate_ids, self._mask, self._pairs, self._progress
        self._move()
        if self._problem.resample == "step":
            self._candidate_ids = self._problem.candidates(self._applicant_ids, self._episode, self._steps)
        if self._sees_anew:
            self._see()
        if not self._problem.repeats:
            self._recommended = self._recommended.copy()
            self._recommended[job_ids] = True
            shown = self._candidate_ids[0]
            if self._problem.resample == "step":
                self._mask = (~self._recommended[shown]).astype(np.int8)
            else:  # the same jobs are shown again: only the recommended job has to be masked
                self._mask = self._mask & (shown != job_ids[0])
        self._last_info = {**self._info(), "job_id": int(job_ids[0]), **entries}
        self._last_reward = paid
        if self.render_mode == "human":
            self.render()
        terminated = terminated or self._left() or (not self._problem.repeats and not self._mask.any())
        return self._observe(), reward, terminated, False, dict(self._last_info)

    def _answer(self, job_ids: NDArray[np.int64], cosine: float) -> tuple[float, dict[str, Any]]:
        """Reward of recommending a job (1,) with a unit cosine, and the entries of ``info`` that explain it."""
        return cosine, {"reward/cosine": cosine, "transition_valid": True, "reward_components": {"cosine": cosine}}

    def _left(self) -> bool:
        """Whether the applicant left in this step."""
        return False

    def render(self) -> Any:
        """Shows the applicant, the candidates, the last recommendation, the decision and the reward.

        Returns:
            A text (``"ansi"``), a picture (height, width, 3) uint8 (``"rgb_array"``), or ``None`` (``"human"``, which
            prints, or draws in a notebook).
        """
        if self.render_mode is None:
            gym.logger.warn(
                "You are calling render without a render mode; "
                'give one to gym.make, e.g. gym.make("JobRec-v0", render_mode="ansi").'
            )
            return None
        self._check_started()
        scene = self._scene()
        if self.render_mode == "rgb_array":
            return render_image(scene, self.render_size)
        if self.render_mode == "ansi":
            return render_text(scene)
        self._screen = show(scene, None if self._last_reward is None else self._screen, self.render_size)
        return None

    def rank_by(self, scorer: Callable[[dict[str, NDArray[Any]]], Any] | None, name: str = "Q") -> None:
        """Makes :meth:`render` rank the shown candidates by an agent's values in place of the cosine.

        Args:
            scorer: Takes one observation of this environment and returns one number for each candidate, (k,) or (1, k),
                such as ``DynaQ.q_values``. Only :meth:`render` calls it. ``None`` for the cosine.
            name: The name of the agent's values in texts and pictures.

        Example:
            >>> env.unwrapped.rank_by(model.q_values)  # doctest: +SKIP
        """
        self._scorer = None if scorer is None else (name, scorer)

    def get_state(self) -> dict[str, Any]:
        """The state of the environment in plain JSON; :meth:`set_state` continues from it, equal to the bit.

        Wrappers have a state of their own, such as the step count of ``TimeLimit``. Checkpoints of ``dynaq_algo`` ask
        each wrapper for its state.
        """
        self._check_started()
        return {
            "np_random": self.np_random.bit_generator.state,
            "episode": int(self._episode[0]),
            "steps": int(self._steps[0]),
            "recommended": np.flatnonzero(self._recommended).tolist(),
            "beginning": self._beginning.to_state(),
            **self._problem.state_of_sources(self._pairs),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state of :meth:`get_state`.

        Raises:
            ValueError: If the state was saved with live models in ``prior_sources`` whose names are not those of this
                environment's live models. The environment is then unchanged.
        """
        pairs = self._problem.stored_pairs(state)
        self.np_random.bit_generator.state = state["np_random"]
        beginning = Beginning.from_state(state.get("beginning", {}))  # older checkpoints lack the entry
        self._start(state["episode"], state["steps"], state["recommended"], beginning, pairs)
        self._problem.restore_sources(state)
        self._last_info = self._info()
        self._last_reward = None

    @property
    def spec(self) -> EnvSpec | None:
        """How ``gym.make`` makes this environment again."""
        return self.__dict__.get("_spec")

    @spec.setter
    def spec(self, value: EnvSpec | None) -> None:
        self.__dict__["_spec"] = None if value is None else JobRecSpec.of(value)

    def _start(
        self,
        episode: int,
        steps: int = 0,
        recommended: Sequence[int] = (),
        beginning: Beginning | None = None,
        pairs: NDArray[np.float32] | None = None,
    ) -> None:
        """Begins an episode, or continues it; ``pairs`` (1, k, p) are pair features that are known already."""
        self._episode = np.array([episode], dtype=np.uint64)
        self._steps = np.array([steps])
        self._beginning = _ALL_DRAWN if beginning is None else beginning
        self._applicant_ids, self._candidate_ids = self._beginning.begin(self._problem, self._episode, self._steps)
        self._recommended = np.zeros(0 if self._problem.repeats else len(self.market.jobs), dtype=bool)
        self._mask = np.ones(self._k, dtype=np.int8)
        if not self._problem.repeats:
            self._recommended[list(recommended)] = True
            self._mask = (~self._recommended[self._candidate_ids[0]]).astype(np.int8)
        self._applicant_vectors = self._problem.applicant_vectors(self._applicant_ids)
        self._enter()
        if pairs is None:
            self._see()
        else:
            self._pairs = pairs
        self._last = self._recommendation = None
        self._shown = self._candidate_ids, self._mask, self._pairs, self._progress
        self._started = True

    def _enter(self) -> None:
        """Puts the applicant into the state that an episode begins with; does nothing where nobody moves."""

    def _move(self) -> None:
        """Puts the applicant into the state after the last answer; does nothing where nobody moves."""

    def _standing(self) -> str:
        """The applicant's present state in words, for people to read; empty where nobody moves."""
        return ""

    @property
    def _sees_anew(self) -> bool:
        """Whether what is observed of the applicant and the shown jobs changes with each step."""
        return self._problem.resample == "step"

    def _see(self) -> None:
        """Updates what is observed of the applicant and the shown jobs together."""
        self._pairs = self._problem.pairs(self._applicant_ids, self._candidate_ids)

    def _check_started(self) -> None:
        if not self._started:
            raise RuntimeError("the environment has no episode yet: call `reset` first.")

    def _observe(self) -> dict[str, NDArray[Any]]:
        return self._observation((self._candidate_ids, self._mask, self._pairs, self._progress))

    def _observation(self, shown: _Shown) -> dict[str, NDArray[Any]]:
        candidate_ids, mask, pairs, progress = shown
        pairs = None if pairs is None else pairs[0]
        observation = self._problem.observe(self._applicant_vectors[0], candidate_ids[0], pairs)
        if progress is not None:
            observation["progress"] = progress[0].copy()
        if self._problem.mask_in_observation:
            observation["action_mask"] = mask.copy()
        return observation

    def _scene(self) -> Scene:
        shown, mask, *_ = self._shown
        name = "cosine"
        scores: NDArray[np.floating] = self.market.cosine(np.repeat(self._applicant_ids, self._k), shown[0])
        if self._scorer is not None:
            name, scorer = self._scorer
            scores = np.asarray(scorer(self._observation(self._shown)), dtype=np.float64).ravel()
            if scores.shape != (self._k,) or not np.isfinite(scores).all():
                raise ValueError(
                    f"`scorer` must return {self._k} finite numbers, one for each candidate, got {scores.size} "
                    f"of which {int(np.isfinite(scores).sum())} are finite."
                )
        return Scene(
            self.market,
            int(self._applicant_ids[0]),
            shown[0],
            mask.astype(bool),
            scores,
            name,
            self._last_info,
            self._last_reward,
            int(self._steps[0]),
            self._standing(),
        )

    def _info(self) -> dict[str, Any]:
        return {
            "applicant_id": int(self._applicant_ids[0]),
            "candidate_ids": self._candidate_ids[0].copy(),
            "action_mask": self._mask.copy(),
        }


@contextlib.contextmanager
def _rewound_on_error(generator: np.random.Generator) -> Iterator[None]:
    """After an exception within, the generator draws the same numbers once more."""
    state = generator.bit_generator.state
    try:
        yield
    except BaseException:
        generator.bit_generator.state = state
        raise


_ALL_DRAWN = Beginning()
_MADE, _NOT_MADE = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)
_NO_JOB, _NO_COSINE = np.zeros(1, dtype=np.int64), Cosines(np.zeros(1, dtype=np.float32), np.zeros(1))
