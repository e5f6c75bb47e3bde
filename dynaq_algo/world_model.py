"""The world model, which predicts the reward of a (state, action) pair."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn

from dynaq_algo.arguments import refuse_other_choice, refuse_unknown_kwargs, require_whole
from dynaq_algo.features import DistinctPairs, PairFeatures
from dynaq_algo.gaussian_process import GaussianProcess
from dynaq_algo.networks import PairNetwork, make_optimizer, squared_error_step
from dynaq_algo.policies import CandidatePolicy
from dynaq_algo.transition_model import TransitionModel

__all__ = ["WORLD_MODELS", "RewardForecasts", "WorldModel", "check_world_model", "make_world_model"]


class WorldModel(nn.Module):
    """Predicts the reward of an action by an ensemble of networks, and the spread of its members' predictions.

    Members differ by initialisation. If there are several, they also differ by bootstrap: each member learns from
    about half of the transitions, chosen by a hash of the transition's number (Osband et al., 2016; Lakshminarayanan
    et al., 2017).

    Args:
        features: How an input is made of a state and an action, and its size; shared with the Q-network.
        net_arch: Sizes of each member's hidden layers.
        n_members: How many networks; 1 gives no spread and learns from every transition.
        activation_fn: Class of the activation between layers.
        learning_rate: Learning rate of the optimiser, until a schedule sets another.
        optimizer_class: Adam by default, fused where the device supports that.
        optimizer_kwargs: Further arguments of the optimiser.

    Raises:
        ValueError: If `n_members` is below 1.

    Example:
        >>> from dynaq_algo.features import ConcatFeatures
        >>> mean, spread = WorldModel(ConcatFeatures(3, 2), n_members=5)(th.zeros(32, 5))
        >>> mean.shape, spread.shape
        (torch.Size([32]), torch.Size([32]))
    """

    knows_transitions = False

    def __init__(
        self,
        features: PairFeatures,
        net_arch: Sequence[int] = (256, 256),
        n_members: int = 1,
        activation_fn: type[nn.Module] = nn.ReLU,
        learning_rate: float = 1e-3,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__()
        require_whole("n_members", n_members, 1)
        self.features = features
        self.members = nn.ModuleList(PairNetwork(features, net_arch, activation_fn) for _ in range(n_members))
        self.optimizer = make_optimizer(self.parameters(), learning_rate, optimizer_class, optimizer_kwargs)

    def forward(self, inputs: th.Tensor, with_spread: bool = True) -> tuple[th.Tensor, th.Tensor]:
        """Inputs (n, output_dim) of pairs -> mean and spread of the members' rewards, (n,) each.

        The spread costs nothing here, so `with_spread` is ignored.
        """
        return _mean_and_spread([member(inputs) for member in self.members])

    def score(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None, with_spread: bool = True
    ) -> tuple[th.Tensor, th.Tensor]:
        """States (n, d_s), candidates (n, k, d_a), pairs (n, k, p) -> mean and spread of the rewards, (n, k) each.

        The spread costs nothing here, so `with_spread` is ignored.
        """
        return _mean_and_spread([member.score(state, candidates, pairs) for member in self.members])  # type: ignore[operator]

    def explore(
        self, state: th.Tensor, candidates: th.Tensor, pairs: th.Tensor | None = None, bonus: float = 1.0
    ) -> th.Tensor:
        """Values (n, k) of candidates for exploration: mean rewards plus `bonus` times their spreads."""
        mean, spread = self.score(state, candidates, pairs)
        return mean + bonus * spread

    def of_pairs(self, pairs: DistinctPairs) -> th.Tensor:
        """Mean of the members' rewards for pairs, (n,) or (n, k), see :meth:`PairNetwork.of_pairs`."""
        if not self.features.separable:
            return self(self.features.of_pairs(pairs))[0]
        return _mean_and_spread([member.of_pairs(pairs) for member in self.members])[0]  # type: ignore[operator]

    def observe(self, state: th.Tensor, action: th.Tensor, pairs: th.Tensor | None, reward: th.Tensor) -> None:
        """Ignore new transitions, (n, d_s), (n, d_a), (n, p) and (n,): networks learn in :meth:`update`."""

    def update(
        self, inputs: th.Tensor, reward: th.Tensor, serial: np.ndarray, weight: th.Tensor | None = None
    ) -> th.Tensor:
        """One optimiser step on real transitions.

        Args:
            inputs: (n, output_dim) features of the chosen pairs.
            reward: (n,) earned rewards.
            serial: (n,) numbers of the transitions, which fix each member's share of the data.
            weight: (n,) how much each transition counts; None for 1.

        Returns:
            The mean squared error, averaged over members, before the step.
        """
        if len(self.members) == 1:
            return squared_error_step(self.members[0], self.optimizer, inputs, reward, weight)[0]
        errors = th.stack([(member(inputs) - reward).square() for member in self.members])
        if weight is not None:
            errors = errors * weight
        weights = th.as_tensor(_bootstrap_weights(serial, len(self.members)), device=errors.device)
        self.optimizer.zero_grad()
        # The members' losses are summed, so that each member learns as fast as it would alone.
        (weights * errors).mean(dim=1).sum().backward()
        self.optimizer.step()
        return errors.mean().detach()


class RewardForecasts:
    """The latest rewards, each with the model's prediction from before it was trained on that reward.

    Args:
        size: How many rewards are kept.

    Example:
        >>> forecasts = RewardForecasts(1_000)
        >>> forecasts.add([0.0, 1.0], [0.0, 0.5])
        >>> forecasts.r2()
        0.5
    """

    def __init__(self, size: int):
        self.earned: deque[float] = deque(maxlen=size)
        self.predicted: deque[float] = deque(maxlen=size)

    def add(self, earned: Iterable[float], predicted: Iterable[float]) -> None:
        """Add rewards and their predictions."""
        self.earned.extend(earned)
        self.predicted.extend(predicted)

    def check(self) -> None:
        """Check that there is a prediction for each reward, after rewards and predictions were read from a file.

        Raises:
            ValueError, TypeError, AttributeError: If their numbers differ, or one is no list of numbers.
        """
        earned, predicted = (np.fromiter(window, float, len(window)) for window in (self.earned, self.predicted))
        if len(earned) != len(predicted) or self.earned.maxlen != self.predicted.maxlen or not self.earned.maxlen:
            raise ValueError(f"{len(earned)} rewards and {len(predicted)} predictions")

    def r2(self) -> float | None:
        """R2, the share of the rewards' variance that was predicted; None if the rewards do not vary."""
        earned, predicted = (np.fromiter(window, float, len(window)) for window in (self.earned, self.predicted))
        spread = float(np.square(earned - earned.mean()).sum()) if len(earned) else 0.0
        return 1.0 - float(np.square(earned - predicted).sum()) / spread if spread > 0 else None


WORLD_MODELS: dict[str, type[WorldModel] | type[GaussianProcess] | type[TransitionModel]] = {
    "network": WorldModel,
    "gaussian_process": GaussianProcess,
    "transitions": TransitionModel,
}


def check_world_model(name: str, given: Iterable[str], relabel: bool, planning: str) -> None:
    """Check the name of a world model, its further arguments, and whether it fits `relabel` and `planning`.

    Raises:
        ValueError: If the name is unknown, if rewards are to be relabelled for a model that learns each reward once,
            or if a model of transitions is to plan in the background or gets a `gamma` of its own.
        TypeError: If an argument is unknown.
    """
    refuse_other_choice("world_model", name, tuple(WORLD_MODELS))
    if name == "transitions" and "gamma" in given:
        raise ValueError(
            "`world_model_kwargs` must not have `gamma`, because the model discounts as the agent does: give it to the "
            "agent, `DynaQ(gamma=...)`."
        )
    refuse_unknown_kwargs("world_model_kwargs", WORLD_MODELS[name], given)
    if relabel and name != "network":
        raise ValueError(
            f'`relabel` must be False with `world_model="{name}"`, which learns each reward once, as it '
            'was earned, got True. Use `world_model="network"`.'
        )
    if name == "transitions" and planning != "decision_time":
        raise ValueError(
            '`world_model="transitions"` computes the value of the next state at each decision: use it with '
            f'`planning="decision_time"`, got {planning!r:.80}.'
        )


def make_world_model(
    name: str,
    policy: CandidatePolicy,
    learning_rate: float,
    gamma: float,
    given: Mapping[str, Any],
    pair_names: Sequence[str] | int | None = None,
) -> WorldModel | GaussianProcess | TransitionModel:
    """Make a world model for a policy.

    Args:
        name: A key of :data:`WORLD_MODELS`.
        policy: Gives the features. It also gives the prior and the networks' architecture if `given` lacks them.
        learning_rate: Learning rate of the networks' optimiser.
        gamma: Discount, for a model that predicts whole transitions.
        given: Further arguments of the model.
        pair_names: Names of the columns of `pairs`, if the environment gives them. A prior whose sources are columns
            needs them.

    Raises:
        ValueError: If the model predicts whole transitions, and observations have no entry `progress`.
    """
    if name == "transitions":
        columns, bounds = policy.layout.progress, policy.layout.progress_bounds
        if columns is None or bounds is None:
            raise ValueError(
                '`world_model="transitions"` learns how the entry `progress`, a Box, changes, and observations have '
                f'none: {policy.observation_space}. Without one use "gaussian_process" or "network".'
            )
        arguments = {"prior": policy.prior, "gamma": gamma, **given}
        return TransitionModel(policy.features, columns, *bounds, **arguments)  # type: ignore[arg-type]
    if name == "gaussian_process":
        arguments = {"prior": policy.prior, "pair_names": pair_names, **given}
        return GaussianProcess(policy.features, **arguments)  # type: ignore[arg-type]
    shared = {"net_arch": policy.net_arch, "activation_fn": policy.activation_fn, "learning_rate": learning_rate}
    return WorldModel(policy.features, **{**shared, **given})


def _mean_and_spread(predictions: list[th.Tensor]) -> tuple[th.Tensor, th.Tensor]:
    if len(predictions) == 1:
        return predictions[0], th.zeros_like(predictions[0])
    stacked = th.stack(predictions)
    return stacked.mean(dim=0), stacked.std(dim=0, correction=0)


def _bootstrap_weights(serial: np.ndarray, n_members: int) -> np.ndarray:
    """Weights (n_members, n) float32: 2 where a member learns from a transition, 0 where it does not."""
    key = serial.astype(np.uint64)[None] * np.uint64(n_members) + np.arange(n_members, dtype=np.uint64)[:, None]
    # splitmix64: neighbouring numbers give independent bits.
    key = key * np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return 2 * (key >> np.uint64(63)).astype(np.float32)
