"""Episodes of a behaviour policy as a Minari data set, with the propensity (probability) of each action."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from jobrec_gym import Interactions, ObservationForm
from jobrec_gym.extras import install_command

__all__ = ["Episode", "logged_episodes", "record_episodes", "recovered", "save_minari", "unused_folder"]

Infos = dict[str, list[Any]]

_FINGERPRINT = "market_fingerprint"
"""Entry of a data set's metadata."""


class Episode(NamedTuple):
    """An episode of T steps, in Minari's order: ``observations[t]`` and ``infos[...][t]`` are those before step t.

    Attributes:
        seed: Seed of the reset. For an episode from a log: the row of the log.
        observations: T + 1 values of each entry.
        actions: T actions.
        rewards: T rewards.
        terminations: T flags.
        truncations: T flags.
        infos: T + 1 values of each entry; what step t produced is at ``t + 1``. ``propensity`` is the probability with
            which the action was chosen, NaN at 0. ``transition_valid`` is False if the reward has no meaning. The
            other entries are ``applicant_id``, ``job_id`` (-1 at 0), ``candidate_ids`` (k,) and ``action_mask`` (k,).
    """

    seed: int
    observations: dict[str, list[NDArray[Any]]]
    actions: list[int]
    rewards: list[float]
    terminations: list[bool]
    truncations: list[bool]
    infos: Infos


def record_episodes(
    env: gym.Env, model: Any, n_episodes: int, epsilon: float = 0.1, seed: int = 0
) -> Iterator[Episode]:
    """Plays epsilon-greedily, so that every allowed action has a propensity above 0.

    Args:
        env: A ``JobRec-v0`` in its reward wrapper.
        model: The agent whose greedy choice, ``predict(obs, deterministic=True)``, is taken; ``None`` for uniform
            choices.
        n_episodes: How many episodes.
        epsilon: Share of choices that are uniform over the allowed candidates.
        seed: Seed of the choices; episode i is reset with ``seed + i``.

    Raises:
        ValueError: If ``epsilon`` is not in (0, 1], or ``n_episodes`` is below 1.
    """
    if not 0 < epsilon <= 1:
        raise ValueError(
            f"`epsilon` must be in (0, 1], got {epsilon}: at 0 the other actions have no propensity to weigh with."
        )
    if n_episodes < 1:
        raise ValueError(f"`n_episodes` must be at least 1, got {n_episodes}.")
    rng = np.random.default_rng(seed)
    for number in range(n_episodes):
        yield _play(env, model, 1.0 if model is None else epsilon, rng, seed + number)


def logged_episodes(interactions: Interactions, env: gym.Env) -> Iterator[Episode]:
    """The answered rows of a log as episodes of one step, because a log does not say which rows follow each other.

    Args:
        interactions: A log that says which jobs were shown.
        env: A ``JobRec-v0`` on the same market, with as many candidates as each set of the log. Observations have the
            form that this environment gives them.

    Raises:
        ValueError: If a set has another size, or the environment is on another market.
    """
    base: Any = env.unwrapped
    if base.market is not interactions.market:
        raise ValueError("`env` must be on the log's market: gym.make('JobRec-v0', market=interactions.market, ...).")
    k = int(base.action_space.n)
    sizes = np.unique(interactions.sizes)
    if set(sizes.tolist()) != {k}:
        raise ValueError(
            f"`env` has {k} candidates, but the log has sets of {sizes.tolist()}: make the environment with "
            "`num_candidates` of one size k, and take the log's sets of that size, `log.take(log.sizes == k)`."
        )
    known = interactions.propensity
    rows = np.flatnonzero(interactions.answered).tolist()
    for number, (obs, action, reward) in zip(rows, interactions.answers(ObservationForm.of(env)), strict=True):
        info = {
            "applicant_id": int(interactions.applicant_ids[number]),
            "candidate_ids": interactions.shown(number).copy(),
            "action_mask": np.ones(k, np.int8),
        }
        observations = {key: [value, value] for key, value in obs.items()}
        episode = Episode(number, observations, [action], [float(reward)], [False], [True], {})
        _add_info(episode.infos, info, float("nan"))
        propensity = float("nan") if known is None else float(known[number])
        _add_info(episode.infos, {**info, "job_id": int(interactions.job_ids[number])}, propensity)
        yield episode


def _play(env: gym.Env, model: Any, epsilon: float, rng: np.random.Generator, seed: int) -> Episode:
    obs, info = env.reset(seed=seed)
    episode = Episode(seed, {key: [value] for key, value in obs.items()}, [], [], [], [], {})
    _add_info(episode.infos, info, float("nan"))
    ended = False
    while not ended:
        allowed = np.flatnonzero(info["action_mask"])
        greedy = None if model is None else int(model.predict(obs, deterministic=True)[0])
        action = int(rng.choice(allowed)) if greedy is None or rng.random() < epsilon else greedy
        propensity = epsilon / len(allowed) + (1 - epsilon) * (action == greedy)
        obs, reward, terminated, truncated, info = env.step(action)
        for key, value in obs.items():
            episode.observations[key].append(value)
        episode.actions.append(action)
        episode.rewards.append(float(reward))
        episode.terminations.append(terminated)
        episode.truncations.append(truncated)
        _add_info(episode.infos, info, propensity)
        ended = terminated or truncated
    return episode


def _add_info(infos: Infos, info: dict[str, Any], propensity: float) -> None:
    row = {
        "propensity": propensity,
        "applicant_id": info["applicant_id"],
        "job_id": info.get("job_id", -1),
        "candidate_ids": info["candidate_ids"],
        "action_mask": info["action_mask"],
        "transition_valid": info.get("transition_valid", True),
    }
    for key, value in row.items():
        infos.setdefault(key, []).append(value)


def unused_folder(dataset_id: str) -> Path:
    """The folder that Minari will make for a new data set. Call this before long work, because Minari checks late.

    Args:
        dataset_id: ``namespace/name-v0``.

    Raises:
        ImportError: If the extra ``minari`` is not installed.
        ValueError: If the id has another form, or there is already a data set of this name.
    """
    minari = _minari()
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:  # Minari converts a missing version to a number
        raise ValueError(
            "`dataset_id` must have the form namespace/name-v0, with letters, digits, - and _ in its names (the "
            f"namespace of at least two characters) and a whole number as version, got {dataset_id!r:.80}."
        ) from error
    folder: Path = minari.storage.get_dataset_path(dataset_id)
    if folder.exists():
        raise ValueError(
            f"`dataset_id`: there is a data set {dataset_id} already. Delete it: minari delete {dataset_id}."
        )
    return folder


def save_minari(dataset_id: str, episodes: Iterable[Episode], env: gym.Env, policy: str, description: str) -> Any:
    """Writes episodes where Minari keeps its data sets (``MINARI_DATASETS_PATH``, or the user's home).

    Args:
        dataset_id: ``namespace/name-v0``.
        episodes: See :func:`record_episodes`.
        env: The environment in which they were played. Its spec is written into the data set, with the absolute path
            of the market, so that ``recover_environment`` can make the environment again; the spec is left out if the
            market is not saved. The market's fingerprint is written too, see :func:`recovered`.
        policy: Name of the behaviour policy.
        description: A description for later readers.

    Returns:
        The ``MinariDataset``.

    Raises:
        ImportError: If the extra ``minari`` is not installed.
        ValueError: If the id does not have this form, or there is already a data set of this name.
    """
    folder = unused_folder(dataset_id)
    minari = _minari()
    base: Any = env.unwrapped
    spec = copy.copy(env.spec)
    try:
        if spec is not None:
            spec.kwargs = {**spec.kwargs, "market": base.market.to_spec()}
            spec.to_json()
    except ValueError:
        spec = None
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            seed=episode.seed,
            observations=_stacked(episode.observations),
            actions=np.array(episode.actions),
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=episode.truncations,
            infos=_stacked(episode.infos),
        )
        for number, episode in enumerate(episodes)
    ]
    try:
        data = minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            env=spec,
            observation_space=env.observation_space,
            action_space=env.action_space,
            algorithm_name=policy,
            description=description,
            data_format="hdf5",
            requirements=["jobrec-gym"],
        )
        data.storage.update_metadata({_FINGERPRINT: base.market.fingerprint()})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # Minari cannot list its data sets if one of them has no metadata
        raise
    return data


def recovered(data: Any) -> gym.Env:
    """The environment of a data set, if its market is still the one that the ids of the data set refer to.

    Args:
        data: A ``MinariDataset`` of :func:`save_minari`.

    Raises:
        ValueError: If the market has another content, or the data set does not say which content its market had.
    """
    written = data.storage.metadata.get(_FINGERPRINT)
    if written is None:
        raise ValueError(
            f"`data` must have the entry {_FINGERPRINT!r} in its metadata, which data sets of earlier versions lack: "
            "write it again, or use `data.recover_environment()` if you know that the market has not changed."
        )
    env: gym.Env = data.recover_environment()
    base: Any = env.unwrapped
    if (found := base.market.fingerprint()) != written:
        raise ValueError(
            f"`data` was recorded on a market with the fingerprint {written:.12}..., and {base.market!r} has "
            f"{found:.12}...: the ids would name other people and jobs. Put the market back where it was, or record "
            "again."
        )
    return env


def _minari() -> ModuleType:
    try:
        import minari
    except ImportError as error:
        raise ImportError(f"`format=minari` needs Minari: {install_command('minari')}.") from error
    return minari


def _stacked(columns: dict[str, list[Any]]) -> dict[str, NDArray[Any]]:
    return {key: np.stack(rows) for key, rows in columns.items()}
