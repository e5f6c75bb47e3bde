"""Learning without interaction: data sets to pre-train on, and answers given outside of `learn`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch as th

from dynaq_algo.action_table import ActionTable
from dynaq_algo.arguments import suggestion
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.layout import CandidateLayout, DecisionBatch
from dynaq_algo.networks import squared_error_step
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.vec_env import infos_of_each
from dynaq_algo.world_model import WorldModel

__all__ = ["Answers", "OfflineBatch", "OfflineData", "offline_update", "passes"]

# Most rows that are shown to the features before the first update.
SHOWN_FIRST = 20_000
# Numbers may be beyond a bound by this much, because they are rounded.
_CLOSE = 1e-4


class OfflineBatch(NamedTuple):
    """n rows of a data set as tensors.

    Attributes:
        inputs: (n, output_dim) features of the pairs.
        reward: (n,).
        terminated: (n,) bool.
        weight: (n,) how much each row counts; None if all count alike.
        row: (n,) the numbers of the rows.
    """

    inputs: th.Tensor
    reward: th.Tensor
    terminated: th.Tensor
    weight: th.Tensor | None
    row: np.ndarray


class OfflineData:
    """Logged pairs and their rewards, checked.

    Args:
        dataset: Columns by name, see :meth:`~dynaq_algo.dynaq.DynaQ.pretrain`.
        policy: The policy that is to learn from the data set. Its spaces fix the shapes of the columns.

    Raises:
        ValueError: If an entry is missing, unknown, of another shape, or holds a value that is not finite; or if an id
            is not in the table of actions.
    """

    def __init__(self, dataset: Mapping[str, Any], policy: CandidatePolicy):
        self.policy = policy
        self.columns = _check_dataset(dataset, policy)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.columns["reward"])

    def show(self) -> None:
        """Show up to 20,000 evenly spread rows to the features, which learn the scale of their inputs from them."""
        policy, columns = self.policy, self.columns
        spread = np.linspace(0, len(self) - 1, min(len(self), SHOWN_FIRST), dtype=np.int64)
        for rows in np.array_split(spread, 20):
            if len(rows) and not policy.features.settled:
                state = np.asarray(columns["state"][rows], np.float32)
                actions = np.asarray(policy.action_rows(columns["action"][rows, None]), np.float32)
                pairs = np.asarray(columns["pairs"][rows, None], np.float32) if policy.layout.n_pairs else None
                policy.features.see(state, actions, pairs)

    def shuffled(self, batch_size: int, rng: np.random.Generator) -> Iterator[OfflineBatch]:
        """Batches of `batch_size` rows, which together hold every row once, in a new order."""
        for rows in np.split(rng.permutation(len(self)), range(batch_size, len(self), batch_size)):
            yield self._batch(rows)

    def _batch(self, rows: np.ndarray) -> OfflineBatch:
        columns, tensor = self.columns, self.policy.tensor
        actions = columns["action"][rows]
        inputs = self.policy.features(
            tensor(np.asarray(columns["state"][rows], np.float32)),
            self.policy.action_features(actions) if actions.ndim == 1 else tensor(actions.astype(np.float32)),
            tensor(np.asarray(columns["pairs"][rows], np.float32)) if "pairs" in columns else None,
        )
        weight = tensor(columns["weight"][rows]) if "weight" in columns else None
        return OfflineBatch(inputs, tensor(columns["reward"][rows]), tensor(columns["terminated"][rows]), weight, rows)


class Answers(NamedTuple):
    """n answers to recommendations, checked.

    Attributes:
        decisions: The n decisions.
        following: The n decisions that followed.
        action: (n,) indices of the recommended candidates.
        reward: (n,) the rewards they earned.
        terminated: (n,) bool.
        infos: The n infos.
    """

    decisions: DecisionBatch
    following: DecisionBatch
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    infos: Sequence[Mapping[str, Any]]

    @classmethod
    def read(
        cls,
        layout: CandidateLayout,
        table: ActionTable | None,
        observation: Mapping[str, Any],
        action: np.ndarray | int,
        reward: np.ndarray | float,
        next_obs: Mapping[str, Any] | None = None,
        terminated: np.ndarray | bool = False,
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Answers:
        """Answers to one observation or a batch, from the arguments of an agent's `observe`.

        Without `next_obs`, `observation` stands for the next observation too. If an environment was reset in the same
        step, the next observation is that of the info, `terminal_observation`.

        Raises:
            ValueError: If numbers of rows differ, an action is not the index of a candidate that the mask allows, an
                id is not in the table of actions, a number is not finite in float32, `progress` is beyond its bounds,
                `terminated` is neither True nor False, an info is not a dict, or `next_obs` allows no candidate though
                the episode goes on.
        """
        decisions = layout.read(observation, finite=False)
        following = decisions if next_obs is None else layout.read(next_obs, finite=False)
        n, k = decisions.candidates.shape[:2]
        actions, rewards = np.reshape(action, -1), np.reshape(np.asarray(reward, np.float64), -1)
        infos = infos_of_each(info, n)
        ends = np.reshape(np.asarray(terminated), -1)
        if not np.isin(ends, (0, 1)).all():
            raise ValueError(f"`terminated` must be True or False (or 1 or 0), got {ends[:3].tolist()}.")
        ends = ends.astype(bool)
        ends = np.repeat(ends, n) if len(ends) == 1 else ends
        sizes = {"action": len(actions), "reward": len(rewards), "next_obs": len(following.state)}
        for name, size in {**sizes, "terminated": len(ends), "info": len(infos)}.items():
            if size != n:
                raise ValueError(f"`{name}` must have {n} rows, as `observation` has, got {size}.")
        if not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(f"`action` must be integers, indices of candidates, got {actions.dtype}.")
        if (bad := (actions < 0) | (actions >= k)).any():
            row = bad.argmax()
            raise ValueError(f"`action` must be in [0, {k}), the candidates shown, row {row} is {actions[row]}.")
        if decisions.mask is not None and not (allowed := decisions.mask[np.arange(n), actions]).all():
            row = allowed.argmin()
            raise ValueError(
                f"`action` must be a candidate that `action_mask` allows, row {row} is {actions[row]}, which it "
                "forbids. Pass the mask that was shown with the candidates."
            )
        if (bad := ~(np.abs(rewards) <= np.finfo(np.float32).max)).any():
            row = bad.argmax()
            raise ValueError(
                f"`reward` must be finite, row {row} is {rewards[row]}. Leave out answers without a reward, and "
                "give numbers that float32 can hold."
            )
        _refuse_unusable("observation", decisions, table)
        _refuse_beyond_bounds("observation", decisions, layout, np.ones(n, bool))
        if next_obs is not None:
            last = {row: one.get("terminal_observation") for row, one in enumerate(infos) if not ends[row]}
            finals = {row: layout.read(obs, finite=False) for row, obs in last.items() if obs is not None}
            following = following.replaced(finals)
            _refuse_unusable("next_obs", following, table)
            _refuse_beyond_bounds("next_obs", following, layout, ~ends)
            if following.mask is not None and (bad := ~(following.mask.any(axis=1) | ends)).any():
                raise ValueError(
                    f"`next_obs` must allow at least one candidate, row {bad.argmax()} allows none. Pass "
                    "`terminated=True` where nothing is left to choose."
                )
        return cls(decisions, following, actions, rewards, ends, infos)

    def one_by_one(self, n_candidates: int) -> Iterator[Answers]:
        """Each answer by itself, with as many candidates as in training.

        If another number was shown, the recommended candidate stands first, then those that the mask allows. In the
        decision that follows, those that the mask allows stand first. If there are too few candidates, the first one is
        repeated; if there are too many, the last ones are left out.
        """
        for i in range(len(self.reward)):
            row = np.array([i])
            first = self.action[i] if self.decisions.candidates.shape[1] != n_candidates else None
            decisions = _as_in_training(self.decisions.take(row), n_candidates, first)
            following = _as_in_training(self.following.take(row), n_candidates)
            action = self.action[row] if first is None else np.array([0])
            yield Answers(decisions, following, action, self.reward[row], self.terminated[row], [self.infos[i]])


def passes(
    data: OfflineData,
    epochs: int,
    batch_size: int,
    rng: np.random.Generator,
    update: Callable[[OfflineBatch, int], Mapping[str, th.Tensor]],
    progress_bar: bool = False,
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Pass over a data set, each time in a new order.

    Args:
        data: The data set.
        epochs: How many passes.
        batch_size: Rows in each update.
        rng: Generator of the order.
        update: Function that learns from a batch and returns losses by name. Its second argument is the number of the
            update, from 1 on.
        progress_bar: Show a progress bar.

    Yields:
        After each pass its number, the number of updates so far, and the means of its losses.

    Raises:
        ImportError: If a progress bar cannot be shown.
    """
    n_updates = 0
    for epoch in _progress(range(1, epochs + 1), progress_bar):
        losses = []
        for batch in data.shuffled(batch_size, rng):
            n_updates += 1
            losses.append(update(batch, n_updates))
        yield epoch, n_updates, {name: float(th.stack([loss[name] for loss in losses]).mean()) for name in losses[0]}


def offline_update(
    batch: OfflineBatch,
    policy: CandidatePolicy,
    world_model: WorldModel | GaussianProcess,
    gamma: float,
    max_grad_norm: float,
    learns_values: bool,
) -> dict[str, th.Tensor]:
    """One update of each network from rows of a data set, with s' = s and the same action.

    Args:
        batch: n rows.
        policy: The policy with the Q-network and its target.
        world_model: The model that learns the rewards.
        gamma: Discount.
        max_grad_norm: A gradient of the Q-network with a larger norm is clipped to this norm.
        learns_values: Whether the Q-network has anything to learn.

    Returns:
        `loss`, if the Q-network learns, and `model_loss`.
    """
    losses = {}
    if learns_values:
        with th.no_grad():
            future = policy.values_of_inputs(policy.q_net_target, batch.inputs).masked_fill(batch.terminated, 0.0)
        target = future if policy.plans_at_decision_time else batch.reward + gamma * future
        losses["loss"], _ = squared_error_step(
            policy.q_net, policy.optimizer, batch.inputs, target, batch.weight, max_grad_norm
        )
    losses["model_loss"] = world_model.update(batch.inputs, batch.reward, batch.row, batch.weight)
    return losses


def _progress(epochs: Iterable[int], progress_bar: bool) -> Iterable[int]:
    if not progress_bar:
        return epochs
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('`progress_bar=True` needs tqdm: pip install "stable-baselines3[extra]".') from error
    return tqdm(epochs, desc="pretrain")


def _as_in_training(decision: DecisionBatch, wanted: int, first: int | None = None) -> DecisionBatch:
    """A decision (n = 1) with `wanted` candidates: the column `first`, if any, then those that the mask allows."""
    k = decision.candidates.shape[1]
    if k == wanted:
        return decision
    allowed = np.ones(k, bool) if decision.mask is None else decision.mask[0]
    ordered = sorted(range(k), key=lambda column: (column != first, not allowed[column]))
    columns = np.array([*ordered, *ordered[:1] * wanted][:wanted])
    parts = (None if part is None else part[:, columns] for part in decision[1:])
    return DecisionBatch(decision.state, *parts)  # type: ignore[arg-type]


def _refuse_unusable(name: str, decisions: DecisionBatch, table: ActionTable | None) -> None:
    """Refuse decisions with numbers that are not finite: such a number would spoil all that was learned."""
    entries = {"state": decisions.state, "candidates": decisions.candidates, "pairs": decisions.pairs}
    for entry, values in entries.items():
        if values is not None and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(
                f"`{name}` must hold finite numbers, row {row} does not (in its {entry}). Leave such answers out."
            )
    if table is not None:
        table.check(decisions.candidates)


def _refuse_beyond_bounds(name: str, decisions: DecisionBatch, layout: CandidateLayout, rows: np.ndarray) -> None:
    """Refuse decisions whose `progress` is beyond the bounds of its space, among those of some rows, (n,) bool."""
    if layout.progress is None or layout.progress_bounds is None:
        return
    (low, high), progress = layout.progress_bounds, decisions.state[:, layout.progress]
    beyond = ((progress < low - _CLOSE) | (progress > high + _CLOSE)).any(axis=1) & rows
    if beyond.any():
        row = int(beyond.argmax())
        raise ValueError(
            f"`{name}` must hold `progress` within the bounds of the observation space, {low.tolist()} to "
            f"{high.tolist()}, row {row} has {progress[row].tolist()}. Pass it as the environment of training shows it."
        )


def _check_dataset(dataset: Mapping[str, Any], policy: CandidatePolicy) -> dict[str, np.ndarray]:
    """The columns of a data set for pretraining, checked, with `terminated` added if it is missing."""
    if not isinstance(dataset, Mapping):
        raise ValueError(
            f"`dataset` must be a mapping with the entries state, action and reward, got {type(dataset).__name__}."
        )
    n_pairs = policy.layout.n_pairs
    needed = ("state", "action", "reward", *(("pairs",) if n_pairs else ()))
    if missing := [key for key in needed if key not in dataset]:
        also = f", and pairs (n, {n_pairs}) as the observations have" if n_pairs else ""
        raise ValueError(
            f"`dataset` must have the entries state (n, d_s), action (n, d_a) and reward (n,){also}, lacks {missing}, "
            f"got {sorted(dataset)}."
        )
    optional = ("terminated", "weight")
    if unknown := [key for key in dataset if key not in (*needed, *optional) and not str(key).startswith("info:")]:
        known = (*needed, *optional)
        raise ValueError(
            f"`dataset` may have the entries {known}, got {unknown[0]!r:.80} too{suggestion(unknown[0], known)} Leave "
            "out what is not to be learned from, or begin its name with `info:`."
        )
    data = {key: np.asanyarray(dataset[key]) for key in needed}
    n = len(data["reward"]) if data["reward"].ndim else 0
    data["reward"] = np.asarray(data["reward"], np.float32)
    terminated = np.asarray(dataset.get("terminated", np.zeros(n, bool)))
    if not np.isin(terminated, (0, 1)).all():
        raise ValueError(
            f"`dataset['terminated']` must be True or False (or 1 or 0), got {terminated.reshape(-1)[:3]}."
        )
    data["terminated"] = terminated.astype(bool)
    if "weight" in dataset:
        data["weight"] = np.asarray(dataset["weight"], np.float32)
    shapes: dict[str, tuple[int, ...]] = {
        "state": (n, policy.features.state_dim),
        "action": (n, policy.features.action_dim),
    }
    shapes |= {key: (n,) for key in ("reward", "terminated", "weight") if key in data}
    if n_pairs:
        shapes["pairs"] = (n, n_pairs)
    if policy.layout.uses_ids and data["action"].ndim == 1 and np.issubdtype(data["action"].dtype, np.integer):
        shapes["action"] = (n,)
    for key, shape in shapes.items():
        if data[key].shape != shape or n == 0:
            raise ValueError(f"`dataset[{key!r}]` must have shape {shape} with n >= 1, got {data[key].shape}.")
        if not np.isfinite(data[key]).all():
            row = int(np.argwhere(~np.isfinite(data[key]))[0][0])
            raise ValueError(f"`dataset[{key!r}]` must be finite, row {row} is not. Leave such rows out.")
    if data["action"].ndim == 1 and policy.action_table is not None:
        policy.action_table.check(data["action"])
    if "weight" in data:
        if data["weight"].min() < 0 or not data["weight"].any():
            raise ValueError("`dataset['weight']` must hold numbers of 0 or more, and not 0 alone.")
        data["weight"] = data["weight"] / data["weight"].mean()
    return data
