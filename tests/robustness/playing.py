"""Kinds of inputs that are calls: of environments, with odd keywords, actions and options, and of reward wrappers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from robustness.edits import ODD_VALUES, Edit
from robustness.files import one_of
from robustness.trying import Kind, Wrong, is_own, where

from jobrec_gym import (
    CosineReward,
    FeedbackReward,
    HybridReward,
    VectorCosineReward,
    VectorFeedbackReward,
    VectorHybridReward,
    load_market,
)

_KEYWORDS: dict[str, tuple[Any, ...]] = {
    "split": ("train", "test", "all", "tran"),
    "job_split": ("train", "test", "all", None),
    "num_candidates": (1, 2, 3, 5, 17, 30, 31, 0, -1, 2.5),
    "candidate_sampler": ("uniform", "retrieval", "mixed", "all", "nearest"),
    "resample": ("episode", "step", "never"),
    "repeats": (True, False),
    "observation": ("features", "ids", "id"),
    "mask_in_observation": (True, False),
    "job_fields": ((), ("title",), ("experience", "title"), ("salary",), "title"),
    "pair_features": ((), ("seniority",), "all", ("hard_coverage", "place"), ("seniority", "seniority"), ("sen",)),
    "pair_noise": (0.0, 0.5, -1.0, float("nan"), "x"),
    "render_mode": (None, "ansi", "rgb_array", "svg"),
    "max_episode_steps": (1, 3, 10, 0, -1, "x"),
    "market": ("default", {"source": "default", "n_jobs": 40}, "defalt", "no/such/folder", 3),
}
_ACTIONS: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 4, 10**30, 1.0, 0.5, float("nan"), "0", None, True, [0], [], {}, "x" * 200),
    *({"array": 1}, {"array": [1]}, {"array": [[0, 1]]}, {"array": 1.5}),
)
_OPTIONS: tuple[Any, ...] = (
    *(None, {}, {"applicant_id": 5}, {"applicant_id": -1}, {"applicant_id": 10**30}, {"applicant_id": True}),
    *({"applicant_id": 1.5}, {"applicant_id": "5"}, {"applicant_id": [5]}, {"applicant_id": {"array": 3}}),
    *({"applicant_key": "A0000003"}, {"applicant_key": "nobody"}, {"applicant_key": 3}, {"applicant_key": ["x"]}),
    *({"candidate_ids": [1, 2, 3]}, {"candidate_ids": [1, 1, 2]}, {"candidate_ids": []}, {"candidate_ids": "123"}),
    *({"candidate_ids": [1, [2], 3]}, {"candidate_ids": [1, 2, 10**9]}, {"candidate_ids": {"array": [4, 5, 6]}}),
    *({"aplicant": 5}, {"applicant_id": 1, "applicant_key": "A0000003"}, {3: 4}, "applicant_id", [], 7),
    *({"reset_mask": {"array": [True, False]}}, {"reset_mask": [1]}, {"reset_mask": "x"}),
)
_SEEDS: tuple[Any, ...] = (None, 0, 1, 2**31, 2**64, -1, 1.5, "x", True, [1, 2])


def _value(written: Any) -> Any:
    """What an edit says, arrays made of ``{"array": ...}``."""
    if isinstance(written, dict):
        if set(written) == {"array"}:
            return np.array(written["array"])
        return {key: _value(value) for key, value in written.items()}
    return [_value(value) for value in written] if isinstance(written, list) else written


def _drawn_keywords(rng: np.random.Generator, n: int) -> dict[str, Any]:
    names = rng.choice(list(_KEYWORDS), n, replace=False).tolist()
    # Mostly what is allowed, which stands first: of several errors only one is seen.
    drawn = {
        name: one_of(rng, _KEYWORDS[name][: 2 if rng.random() < 0.93 else None]) if rng.random() < 0.985
        else one_of(rng, ODD_VALUES)
        for name in names
    }  # fmt: skip
    return drawn | ({one_of(rng, ["spilt", "n_jobs", "seed", "markt"]): 1} if rng.random() < 0.04 else {})


class Environments(Kind):
    """``JobRec-v0``, single and vector, with odd keywords, actions and options.

    What is refused changes nothing: a twin that never heard of it goes on in the same way.
    """

    name = "environments"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.market = load_market("default", n_jobs=30, n_applicants=20, context="all")

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        vector = int(rng.integers(0, 3)) if rng.random() < 0.4 else None
        edits: list[Edit] = [["make", vector, _drawn_keywords(rng, int(rng.integers(0, 6)))], ["reset", 0, None]]
        for _ in range(int(rng.integers(1, 9))):
            how = rng.random()
            if how < 0.65:
                odd = rng.random() < 0.3
                edits.append(["step", one_of(rng, _ACTIONS if odd else (0, 1, 0, 2)), bool(rng.random() < 0.3)])
            elif how < 0.9:
                seed = one_of(rng, _SEEDS) if rng.random() < 0.4 else None
                edits.append(["reset", seed, one_of(rng, _OPTIONS)])
            else:
                edits.append(["render"])
        return edits

    def try_(self, edits: Sequence[Edit]) -> None:
        (what, *arguments), *others = edits or [["none"]]
        if what != "make":
            return
        env, twin = self._made(*arguments), self._made(*arguments)
        try:
            self._played(env, twin, others)
        finally:
            env.close()
            twin.close()

    def _made(self, vector: int | None, keywords: dict[str, Any]) -> Any:
        given = {"market": self.market, "num_candidates": 3, **_value(keywords)}
        if vector is None:
            # Gymnasium's own wrappers around it count a step or a reset before they know that it is refused.
            return gym.make("JobRec-v0", **given).unwrapped
        return gym.make_vec("JobRec-v0", num_envs=vector, vectorization_mode="vector_entry_point", **given)

    def _played(self, env: Any, twin: Any, edits: Sequence[Edit]) -> None:
        refused = None
        for edit in edits:
            try:
                said = self._done(env, edit)
            except (Exception, AssertionError) as error:
                if not is_own(error) and not self.explained(error):
                    raise
                refused = error
                continue
            _require_equal(said, self._done(twin, edit), edit)
            if edit[0] == "step":
                self._check(env, said)
        if refused is not None:
            last = ["reset", 3, None]
            _require_equal(self._done(env, last), self._done(twin, last), last)
            raise refused

    @staticmethod
    def _done(env: Any, edit: Edit) -> Any:
        what, *arguments = edit
        if what == "reset":
            return env.reset(seed=_value(arguments[0]), options=_value(arguments[1]))
        if what == "step":
            action = _value(arguments[0])
            vector = hasattr(env, "num_envs")
            # What is one action to one environment, is one each to several.
            return env.step([action] * env.num_envs if vector and not arguments[1] else action)
        return env.render()

    @staticmethod
    def _check(env: Any, said: tuple[Any, ...]) -> None:
        obs, reward = said[:2]
        if not env.observation_space.contains(obs):
            raise Wrong("observation: it is not in the space")
        if not ((np.asarray(reward) >= 0) & (np.asarray(reward) <= 1)).all():
            raise Wrong(f"reward: {reward} is not in [0, 1]")

    def explained(self, error: BaseException) -> bool:
        """What Gymnasium refuses before it asks this project, and what it says again of an environment's error."""
        if isinstance(error, gym.error.Error) or where(error).endswith("the test"):
            return error.__cause__ is None or is_own(error.__cause__) or self.explained(error.__cause__)
        return False


def _require_equal(one: Any, other: Any, edit: Edit) -> None:
    if not _is_equal(one, other):
        raise Wrong(f"another episode: {edit[0]} gives something else where something was refused before")


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_is_equal, one, other))
    if isinstance(one, np.ndarray) and one.dtype == object:
        return _is_equal(one.tolist(), other.tolist())
    return bool(np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f"))


class Wrappers(Kind):
    """Reward wrappers with odd arguments; the single one and its vector twin pay the same, to the bit.

    A copy that is put where the first one stands, by ``get_state`` and ``set_state``, goes on in the same way.
    """

    name = "wrappers"
    single: ClassVar = {"cosine": CosineReward, "feedback": FeedbackReward, "hybrid": HybridReward}
    vector: ClassVar = {"cosine": VectorCosineReward, "feedback": VectorFeedbackReward, "hybrid": VectorHybridReward}
    arguments: ClassVar[dict[str, tuple[Any, ...]]] = {
        "scale": ("unit", "raw", "matched", "big"),
        "cosine_scale": ("unit", "raw", "matched", None),
        "terminate_on": ((), ("apply",), ("ignore", "click"), "apply", ("aply",), (3,)),
        "simulator": (
            {"type": "rules", "seed": 0},
            {"type": "rules", "seed": 1, "noise": 0.5},
            {"type": "rules", "corruption": 0.2},
            {"type": "rules", "noise": -1},
            {"type": "rulez"},
            {"type": "os:system"},
            {"type": "rules", "rewards": {"apply": 2.0}},
            {"type": "rules", "rewards": {"aply": 2.0}},
            {},
        ),
        "schedule": (
            {"steps": 4},
            {"steps": 7, "kind": "cosine"},
            {"steps": 3, "kind": "step"},
            {"steps": 0},
            {"steps": 5, "start": 2.0},
            {"step": 4},
        ),
    }
    takes: ClassVar = {
        "cosine": ("scale",),
        "feedback": ("simulator", "terminate_on"),
        "hybrid": ("simulator", "schedule", "cosine_scale", "terminate_on"),
    }

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.market = load_market("default", n_jobs=30, n_applicants=20)

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        which = one_of(rng, list(self.single))
        given = {}
        for name in self.takes[which]:
            choices = self.arguments[name]
            if name in ("simulator", "schedule") or rng.random() < 0.5:
                given[name] = (
                    one_of(rng, ODD_VALUES)
                    if rng.random() < 0.05
                    else one_of(rng, choices[: 2 if rng.random() < 0.7 else None])
                )
        env = {"resample": one_of(rng, ["episode", "step"]), "repeats": bool(rng.random() < 0.7)}
        wraps = rng.permutation(["TimeAware", "Statistics"])[: int(rng.integers(0, 3))].tolist()
        actions = rng.integers(0, 3, int(rng.integers(1, 14))).tolist()
        return [["wrap", which, given, env, wraps], ["play", int(rng.integers(100)), actions]]

    def try_(self, edits: Sequence[Edit]) -> None:
        if [edit[0] for edit in edits] != ["wrap", "play"]:
            return
        (_, which, given, options, wraps), (_, seed, actions) = edits
        options = {"market": self.market, "num_candidates": 3, **options}
        env = self._single(which, given, options, wraps)
        vector = self.vector[which](
            gym.make_vec("JobRec-v0", num_envs=1, vectorization_mode="vector_entry_point", **options), **given
        )
        env.reset(seed=seed)
        vector.reset(seed=seed)
        middle = len(actions) // 2
        copy = None
        for number, action in enumerate(actions):
            if number == middle:
                copy = self._single(which, given, options, wraps)
                copy.reset(seed=seed + 1)
                self._put(copy, self._state(env))
            allowed = np.flatnonzero(env.get_wrapper_attr("action_masks")())
            action = int(allowed[action % len(allowed)])
            _, reward, terminated, truncated, info = env.step(action)
            _, rewards, ends, cuts, _ = vector.step(np.array([action]))
            if (reward, terminated, truncated) != (rewards[0], ends[0], cuts[0]):
                raise Wrong(f"twins: step {number} pays {reward}, and {rewards[0]} in the vector")
            if copy is not None and copy.step(action)[1:4] != (reward, terminated, truncated):
                raise Wrong("a copy: it does not go on as the one whose state it has")
            self._check(which, reward, info)
            if terminated or truncated:
                break

    def _single(self, which: str, given: dict[str, Any], options: dict[str, Any], wraps: Sequence[str]) -> Any:
        env: Any = self.single[which](gym.make("JobRec-v0", **options), **given)
        for name in wraps:
            if name == "TimeAware":
                env = gym.wrappers.TimeAwareObservation(env)
            else:
                env = gym.wrappers.RecordEpisodeStatistics(env)
        return env

    @staticmethod
    def _layers(env: Any) -> list[Any]:
        found = [env]
        while hasattr(found[-1], "env"):
            found.append(found[-1].env)
        return found

    def _state(self, env: Any) -> list[Any]:
        return [
            layer.get_state() if "get_state" in dir(type(layer)) else getattr(layer, "_elapsed_steps", None)
            for layer in self._layers(env)
        ]

    def _put(self, env: Any, states: list[Any]) -> None:
        for layer, state in zip(self._layers(env), states, strict=True):
            if "set_state" in dir(type(layer)):
                layer.set_state(state)
            elif state is not None:
                layer._elapsed_steps = state

    @staticmethod
    def _check(which: str, reward: float, info: dict[str, Any]) -> None:
        if not np.isfinite(reward):
            raise Wrong(f"reward: {reward} is no number")
        if which == "feedback" and reward != info["reward/feedback"]:
            raise Wrong(f"reward: {reward} is not that of the answer, {info['reward/feedback']}")
        if which == "hybrid" and "reward/feedback" in info:
            weight = info["reward/cosine_weight"]
            parts = info["reward_components"]
            mixed = weight * parts["cosine"] + (1 - weight) * parts["feedback"]
            if not np.isclose(reward, mixed):
                raise Wrong(f"reward: {reward} is not the mixture of its parts, {mixed}")


KINDS = (Environments, Wrappers)
