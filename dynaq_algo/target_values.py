"""The target network's values of stored transitions. A value is kept until the network or its transition changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th

from dynaq_algo.networks import PairNetwork
from dynaq_algo.replay import CandidateReplay, Transitions

__all__ = ["TargetValues"]

# About how many entries of each parameter are compared. A copy or an update changes nearly all, so a sample will do.
SAMPLE_SIZE = 512


class TargetValues:
    """A target network's values of the next step, each computed when it is first asked for.

    Between two copies of the target network, updates and planning draw the same transitions again and again. A value is
    kept until the network or the scale of its inputs changes, or the transition is overwritten. If the replay holds no
    more transitions than are expected to be drawn between two copies, all values are computed at once. That is far
    cheaper than one by one, because many transitions share their states and candidates.

    Args:
        capacity: Transitions in replay.
        device: The network's device.
        expected_draws: How many transitions are drawn between two copies of the network.
    """

    def __init__(self, capacity: int, device: th.device | str = "cpu", expected_draws: int = 0):
        self.expected_draws = expected_draws
        self._values = th.zeros(capacity, device=device)
        # The transition that each value belongs to; -1 for none.
        self._serial = np.full(capacity, -1, np.int64)
        self._origin: tuple[Any, ...] = ()
        self._sample = th.empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the kept values."""
        return self._values.nbytes + self._serial.nbytes

    def of(
        self,
        transitions: Transitions,
        replay: CandidateReplay,
        network: PairNetwork,
        kind: str,
        evaluate: Callable[[Transitions], th.Tensor],
        imagined: bool = True,
    ) -> th.Tensor:
        """Values (n,) of n transitions.

        Args:
            transitions: Drawn from `replay`. If planning has changed one, its value is computed and not kept.
            replay: Where they are stored.
            network: The target network.
            kind: `"same_action"` for the value of the candidate that was chosen, or `"max"` for the largest value of
                the next candidates.
            evaluate: Function from m transitions to the network's values of their next steps, (m,), 0 where no
                step follows.
            imagined: Whether planning may have changed transitions; False says that all are as they are stored.
        """
        self._forget_if_changed(network, replay, kind)
        position = transitions.position
        as_stored = np.ones(len(position), bool)
        if imagined:
            as_stored = replay.as_stored(transitions, same_candidate=kind == "same_action")
        if (as_stored & (self._serial[position] != transitions.serial)).any():
            at_once = len(replay) <= self.expected_draws
            wanted = np.arange(len(replay)) if at_once else np.unique(position[as_stored])
            missing = wanted[self._serial[wanted] != replay.serials(wanted)]
            self._values[self._index(missing)] = evaluate(replay[missing])
            self._serial[missing] = replay.serials(missing)
        values = self._values.index_select(0, self._index(position))
        if not as_stored.all():
            others = np.flatnonzero(~as_stored)
            values[self._index(others)] = evaluate(transitions.take(others))
        return values

    def forget(self) -> None:
        """Forget all values, so that they are computed again."""
        self._serial[:] = -1

    def state(self, network: PairNetwork, replay: CandidateReplay, kind: str) -> dict[str, Any]:
        """What is kept, so that a continued run is the same to the bit: a value's last bit may depend on its batch."""
        self._forget_if_changed(network, replay, kind)
        size = len(replay)
        return {"kind": kind, "next_values": self._values[:size].cpu().numpy(), "serial": self._serial[:size]}

    def restore(self, state: Mapping[str, Any], network: PairNetwork, replay: CandidateReplay, kind: str) -> None:
        """Put back what :meth:`state` gave for the same network and replay. A state of another kind is ignored."""
        self._forget_if_changed(network, replay, kind)
        if state["kind"] == kind:
            size = len(replay)
            self._values[:size] = th.as_tensor(state["next_values"], device=self._values.device)
            self._serial[:size] = state["serial"]

    def _index(self, rows: np.ndarray) -> th.Tensor:
        return th.as_tensor(rows, dtype=th.int64, device=self._values.device)

    def _forget_if_changed(self, network: PairNetwork, replay: CandidateReplay, kind: str) -> None:
        """Forget if the network, the scale of its inputs, the replay or the kind is another one than last time."""
        origin = (replay, replay.n_loaded, network.features.version, kind)
        # The parameters are compared, because code that writes to a network does not have to announce it.
        sample = th.cat([_sample_of(parameter.detach()) for parameter in network.parameters()])
        if origin == self._origin and th.equal(sample, self._sample):
            return
        self._origin, self._sample = origin, sample
        if replay.capacity != len(self._serial):
            self._values, self._serial = self._values.new_zeros(replay.capacity), np.zeros(replay.capacity, np.int64)
        self.forget()


def _sample_of(parameter: th.Tensor) -> th.Tensor:
    """Some entries, evenly spread. The distance between two is odd, so that not all lie in a few columns."""
    return parameter.reshape(-1)[:: parameter.numel() // SAMPLE_SIZE | 1]
