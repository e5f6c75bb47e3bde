"""The SB3 policy: a Q-network that scores every candidate, and the greedy choice among them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import get_device
from torch import nn

from dynaq_algo.action_table import ActionTable
from dynaq_algo.agent_file import AgentFileError, building, place_of, reading, whole_file
from dynaq_algo.arguments import require_row, require_sizes
from dynaq_algo.features import DistinctPairs, PairFeatures, candidates_of_ids, make_features
from dynaq_algo.layout import CandidateLayout, DecisionBatch, check_mask, refuse_nan
from dynaq_algo.networks import PairNetwork, make_optimizer
from dynaq_algo.plain_data import MAX_BYTES, NotPlain, from_json, to_json
from dynaq_algo.tensor_file import TensorReader, require_finite

__all__ = ["CandidatePolicy", "masked"]

FORMAT = "dynaq-policy/2"


class CandidatePolicy(BasePolicy):
    """Q-values of the candidates in a Dict observation; the greedy policy takes the best that the mask allows.

    The observation has an entry `candidates`: features, Box (k, d_a), or ids, integer Box (k,), which name rows of a
    table. An optional entry `pairs` (k, p) holds numbers of each (state, candidate) pair. An optional `action_mask`
    (k,) says which candidates are allowed. All other entries, flattened in key order, are the state.

    Args:
        observation_space: See :class:`~dynaq_algo.layout.CandidateLayout`.
        action_space: Discrete(k).
        lr_schedule: Learning rate by progress remaining (1 to 0).
        action_table: Features of every id; for id observations only.
        features: `"concat"`, `"interaction"`, `"blockwise"` or a subclass of
            :class:`~dynaq_algo.features.PairFeatures`.
        features_kwargs: Further arguments of the features, such as `n_blocks`.
        prior: Initial weights of the similarities in the Q-network, see :class:`~dynaq_algo.networks.PairNetwork`.
        net_arch: Sizes of the hidden layers, [256, 256] by default.
        activation_fn: Class of the activation between layers.
        optimizer_class: Adam by default, fused where the device supports that.
        optimizer_kwargs: Further arguments of the optimiser.

    Raises:
        ValueError: If a space is of another kind, or ids come without a table.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        action_table: ActionTable | None = None,
        features: str | type[PairFeatures] = "concat",
        features_kwargs: dict[str, Any] | None = None,
        prior: Sequence[float] | None = None,
        net_arch: Sequence[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__(
            observation_space, action_space, optimizer_class=optimizer_class, optimizer_kwargs=optimizer_kwargs
        )
        self.layout = CandidateLayout(observation_space, action_space)
        self.action_table = action_table
        self.net_arch = [256, 256] if net_arch is None else require_sizes("net_arch", net_arch)
        self.activation_fn = activation_fn
        self.features_name = features
        self.features_kwargs = dict(features_kwargs or {})
        self.prior = None if prior is None else require_row("prior", prior)
        self._plan: tuple[Any, float | None] | None = None
        self.features = make_features(features, self.layout, action_table, **self.features_kwargs)
        self.q_net = PairNetwork(self.features, self.net_arch, activation_fn, self.prior)
        self.q_net_target = PairNetwork(self.features, self.net_arch, activation_fn, self.prior)
        self.q_net_target.load_state_dict(self.q_net.state_dict())
        self.q_net_target.requires_grad_(False)
        self.q_net_target.train(False)
        self.optimizer = make_optimizer(self.q_net.parameters(), lr_schedule(1), optimizer_class, optimizer_kwargs)

    def forward(self, obs: Mapping[str, Any], deterministic: bool = True) -> th.Tensor:
        """The greedy choice, like :meth:`predict`, but as a tensor."""
        return self._predict(obs, deterministic=deterministic)

    def action_features(self, candidates: np.ndarray) -> th.Tensor:
        """Features (..., d_a) of candidates, which an observation gives as features (..., d_a) or as ids (...)."""
        return self.tensor(self.action_rows(candidates))

    def action_rows(self, candidates: np.ndarray) -> np.ndarray:
        """The features of :meth:`action_features` as an array."""
        if not self.layout.uses_ids:
            return candidates
        assert self.action_table is not None  # checked in __init__
        return self.action_table.rows(candidates)

    def plan_with(self, world_model: nn.Module, gamma: float | None) -> None:
        """Use the world model for exploration bonuses and, with `gamma`, for planning at decision time.

        Args:
            world_model: A model with `score(state, candidates, pairs, with_spread)` and `explore(state, candidates,
                pairs, bonus)`. It is not part of the policy's own state.
            gamma: If given, Q-values are the model's rewards plus `gamma` times the Q-network's value of the next
                state, which begins at 0. A model that `knows_transitions` computes that value itself, with a
                gamma of its own. None if the Q-network estimates the whole value.
        """
        # The model is kept in a tuple, so that torch does not count the model's weights as the policy's own.
        self._plan = (world_model, gamma)
        if self.plans_at_decision_time:
            self.q_net.begin_at_zero()
            self.q_net_target.begin_at_zero()

    @property
    def plans_at_decision_time(self) -> bool:
        """Whether the Q-network learns only the value of the next state, see :meth:`plan_with`."""
        return self._plan is not None and self._plan[1] is not None

    def values_of_pairs(self, network: PairNetwork, pairs: DistinctPairs) -> th.Tensor:
        """Q of pairs, (n,) or (n, k), by the Q-network or its target."""
        values = network.of_pairs(pairs)
        if self._plan is None:
            return values
        model, gamma = self._plan
        return values if gamma is None else model.of_pairs(pairs) + gamma * values

    def values_of_inputs(self, network: PairNetwork, inputs: th.Tensor) -> th.Tensor:
        """Q of features (n, output_dim) of pairs, (n,), by the Q-network or its target."""
        values = network(inputs)
        if self._plan is None:
            return values
        model, gamma = self._plan
        return values if gamma is None else model(inputs, with_spread=False)[0] + gamma * values

    def q_values(self, decisions: DecisionBatch, bonus: float = 0.0) -> th.Tensor:
        """Q-values (n, k) of n decisions, masked candidates included. With a `bonus`, the values for exploration."""
        seen = self.tensors(decisions)
        if self._plan is None:
            return self.q_net.score(*seen)
        model, gamma = self._plan
        if gamma is None:
            values = self.q_net.score(*seen)
            return values + bonus * model.score(*seen)[1] if bonus else values
        if model.knows_transitions:
            return model.look_ahead(*seen)
        reward = model.explore(*seen, bonus) if bonus else model.score(*seen, with_spread=False)[0]
        return reward + gamma * self.q_net.score(*seen) if gamma else reward

    def tensor(self, array: np.ndarray) -> th.Tensor:
        """An array on the policy's device."""
        # The device of one weight, because `self.device` searches all parameters each time.
        return th.as_tensor(array, device=self.q_net.first.weight.device)

    def tensors(self, decisions: DecisionBatch) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        """States (n, d_s), candidates (n, k, d_a) and `pairs` (n, k, p) of n decisions; None where there are none."""
        pairs = None if decisions.pairs is None else self.tensor(decisions.pairs)
        if self.action_table is None:
            candidates = self.tensor(decisions.candidates)
        else:
            candidates = candidates_of_ids(self.action_table, decisions.candidates).to(self.q_net.first.weight.device)
        return self.tensor(decisions.state), candidates, pairs

    def greedy(self, decisions: DecisionBatch, bonus: float = 0.0) -> np.ndarray:
        """The allowed candidate with the highest Q-value in each row, (n,) int64; the first among equals.

        With a `bonus` it is the one with the highest value for exploration, see :meth:`plan_with`.

        Raises:
            ValueError: If a row allows no candidate, or a Q-value is NaN.
        """
        check_mask(decisions.mask)
        with th.no_grad():
            q_values = self.q_values(decisions, bonus)
            refuse_nan(q_values)
            mask = None if decisions.mask is None else self.tensor(decisions.mask)
            return masked(q_values, mask).argmax(dim=1).cpu().numpy()

    def predict(  # type: ignore[override]
        self,
        observation: Mapping[str, Any],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The greedy choice for one observation, (), or for a batch, (n,). A policy by itself never explores."""
        action = self.greedy(self.layout.read(observation))
        return (action if self.layout.is_batch(observation) else action[0]), state

    def save(self, path: str) -> None:
        """Save the policy by itself, see SB3, but as JSON and tensors.

        Raises:
            ValueError: If the policy plans at decision time, because the world model belongs to the agent; or if an
                argument is code, such as a class of your own.
            OSError: If it cannot be written; the message names the path.
        """
        if self.plans_at_decision_time:
            raise ValueError(
                "A policy that plans at decision time cannot be saved by itself: its Q-values are rewards of a world "
                "model that belongs to the agent. Save the agent, `model.save(path)`."
            )
        data = {name: value for name, value in self._get_constructor_parameters().items() if name != "lr_schedule"}
        try:
            arguments = json.dumps(to_json(data))
        except NotPlain as error:
            raise ValueError(
                f"A policy is saved as JSON and tensors, and this one holds {error}. Keep `policy.state_dict()`, and "
                "load that into a policy of the same arguments."
            ) from error
        content = {"format": FORMAT, "state_dict": self.state_dict(), "data": arguments}
        if self.action_table is not None:
            content["action_table"] = self.action_table.reference
        # The content goes to memory first, because torch reports a full disk only as an unexpected file position.
        buffer = io.BytesIO()
        th.save(content, buffer)
        with whole_file(path) as file:
            file.write(buffer.getbuffer())

    @classmethod
    def load(
        cls,
        path: str,
        device: th.device | str = "auto",
        action_features: np.ndarray | str | PathLike[str] | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Self:
        """Load what :meth:`save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            device: Where networks are computed.
            action_features: For id observations, the table of the training run (n_actions, d_a), which may have more
                rows at its end, or the path of an .npy file. The argument may be left out if the table of
                the training run was an .npy file that is still there.
            max_bytes: Largest uncompressed size of the file, 2 GiB by default.

        Raises:
            FileNotFoundError: If there is no such file.
            AgentFileError: If it is not a policy of this version, is not whole, was changed, or holds code.
            ValueError: If candidates are ids, and `action_features` are missing or name other actions.
        """
        with place_of(path).open("rb") as file:
            saved = TensorReader(str(path), "policy", max_bytes).read(file)
        with building(str(path)):
            if saved["format"] != FORMAT:
                raise AgentFileError(f"{path} has the format {saved['format']!r:.80}, this version reads {FORMAT!r}.")
            require_finite(str(path), "policy", saved["state_dict"])
            with reading(str(path), "policy"):
                arguments = from_json(json.loads(saved["data"]), max_bytes)
            if CandidateLayout(arguments["observation_space"], arguments["action_space"]).uses_ids:
                arguments["action_table"] = _saved_table(action_features, saved.get("action_table") or {})
            policy = cls(lr_schedule=cls._dummy_schedule, **arguments)
            policy.load_state_dict(saved["state_dict"])
        return policy.to(get_device(device))

    def set_training_mode(self, mode: bool) -> None:
        """Set training or evaluation mode of the Q-network. Its target always stays in evaluation mode."""
        if self.training != mode:
            for module in self.q_net.modules():  # this does what `train` does, in half the time
                module.training = mode
            self.training = mode
        if self.q_net_target.training:
            self.q_net_target.train(False)

    def get_extra_state(self) -> dict[str, th.Tensor]:
        """What the features have learned about the scale of their inputs, for `state_dict`."""
        return self.features.get_state()

    def set_extra_state(self, state: Mapping[str, th.Tensor]) -> None:
        """Put back what :meth:`get_extra_state` gave."""
        self.features.set_state(state)

    def _predict(self, observation: Any, deterministic: bool = True) -> th.Tensor:
        obs = {key: value.cpu() if isinstance(value, th.Tensor) else value for key, value in observation.items()}
        return th.as_tensor(self.greedy(self.layout.read(obs)), device=self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "features": self.features_name,
            "features_kwargs": self.features_kwargs,
            "prior": self.prior,
            "net_arch": self.net_arch,
            "activation_fn": self.activation_fn,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }


def _saved_table(given: np.ndarray | str | PathLike[str] | None, reference: Mapping[str, Any]) -> ActionTable:
    """The table of a saved policy: the given one, or the one in a file that the policy refers to."""
    source = reference.get("path") if given is None else given
    if source is None or (given is None and not Path(str(source)).exists()):
        where = f" The policy was trained with {source}, which is not there." if source else ""
        raise ValueError(
            "`action_features` must be given where `candidates` are ids: an array (n_actions, d_a) or the path of an "
            f".npy file.{where}"
        )
    table = ActionTable(source)
    if reference:
        table.check_beginning(reference)
    return table


def masked(values: th.Tensor, mask: th.Tensor | None) -> th.Tensor:
    """Values (n, k) with -inf where the mask (n, k) forbids a candidate."""
    return values if mask is None else values.masked_fill(~mask, -th.inf)
