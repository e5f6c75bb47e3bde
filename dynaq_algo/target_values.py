"""What the target network said of stored transitions, kept for as long as neither changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch as th
from torch import nn

from dynaq_algo.replay import CandidateReplay, Transitions

__all__ = ["TargetValues"]

CHUNK = 1_024
SAMPLE_STRIDE = 61


class TargetValues:
    """Values of the next step by a target network, each computed when it is first asked for.

    Between two copies of the target network, updates and planning draw the same transitions again and again. A value is
    kept until the network changes or the transition is overwritten. Where all that is stored will be asked for anyway,
    it is computed at once, which is far cheaper than by and by: states and candidates are in many transitions.

    Args:
        capacity: Transitions in replay.
        device: Of the network.
    """

    def __init__(self, capacity: int, device: th.device | str = "cpu"):
        self._values = th.zeros(capacity, device=device)
        # Which transition a value is of; -1 for none.
        self._serial = np.full(capacity, -1, np.int64)
        self._replay: CandidateReplay | None = None
        self._network: nn.Module | None = None
        self._parameters: list[nn.Parameter] = []
        self._places: list[tuple[int, int]] = []
        self._sample = th.empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._values.nbytes + self._serial.nbytes

    def of(
        self,
        transitions: Transitions,
        replay: CandidateReplay,
        network: nn.Module,
        evaluate: Callable[[Transitions], th.Tensor],
        n_asked: int = 0,
    ) -> th.Tensor:
        """Values (n,) of n transitions.

        Args:
            transitions: Drawn from `replay`. Where planning has put another candidate or state into one, its value is
                computed and not kept.
            replay: Where they are stored.
            network: The target network.
            evaluate: What it says of m transitions, (m,).
            n_asked: How many values of stored transitions are asked for before the network changes.
        """
        self._forget_if_changed(network, replay)
        position = transitions.position
        as_stored = replay.as_stored(transitions)
        if (as_stored & (self._serial[position] != transitions.serial)).any():
            stored = np.arange(len(replay)) if len(replay) <= n_asked else np.unique(position[as_stored])
            missing = stored[self._serial[stored] != replay.serials(stored)]
            for places in np.split(missing, range(CHUNK, len(missing), CHUNK)):
                self._values[self._index(places)] = evaluate(replay[places])
                self._serial[places] = replay.serials(places)
        values = self._values[self._index(position)]
        if not as_stored.all():
            others = np.flatnonzero(~as_stored)
            values[self._index(others)] = evaluate(Transitions(*(column[others] for column in transitions)))
        return values

    def forget(self) -> None:
        """Compute everything anew."""
        self._serial[:] = -1

    def state(self, network: nn.Module, replay: CandidateReplay) -> dict[str, np.ndarray]:
        """What is kept, for a run that goes on to the bit: a value may depend on those computed with it in its last."""
        self._forget_if_changed(network, replay)
        return {"values": self._values.cpu().numpy(), "serial": self._serial}

    def restore(self, state: dict[str, np.ndarray], network: nn.Module, replay: CandidateReplay) -> None:
        """Put back what :meth:`state` gave of the same network and replay."""
        self._forget_if_changed(network, replay)
        self._values.copy_(th.as_tensor(state["values"]))
        self._serial[:] = state["serial"]

    def _index(self, rows: np.ndarray) -> th.Tensor:
        return th.as_tensor(rows, dtype=th.int64, device=self._values.device)

    def _forget_if_changed(self, network: nn.Module, replay: CandidateReplay) -> None:
        """Forget if the network or the replay is another one than last time.

        Torch counts what changes a tensor, but for changes through `.data`, as SB3's `polyak_update` makes them: hence
        the sample.
        """
        if network is not self._network:
            self._network, self._parameters = network, list(network.parameters())
        places = [(parameter.data_ptr(), parameter._version) for parameter in self._parameters]
        sample = self._parameters[0].detach().reshape(-1)[::SAMPLE_STRIDE]
        if replay is not self._replay or places != self._places or not th.equal(sample, self._sample):
            self.forget()
            self._replay, self._places, self._sample = replay, places, sample.clone()
