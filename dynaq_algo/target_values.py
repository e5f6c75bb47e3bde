"""What the target network said of stored transitions, kept for as long as neither changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th

from dynaq_algo.features import PairNetwork
from dynaq_algo.replay import CandidateReplay, Transitions

__all__ = ["TargetValues"]

# Pairs whose vectors are gathered at a time, each vector once.
CHUNK = 16_384
# Entries of each parameter that are compared, about.
SAMPLE_SIZE = 512


class TargetValues:
    """Values of the next step by a target network, 0 where there is none, each computed when it is first asked for.

    Between two copies of the target network, updates and planning draw the same transitions again and again. A value is
    kept until the network or the scale of its inputs changes, or the transition is overwritten. Where more values were
    asked for in the network's last life than there are transitions, all are computed at once: states and candidates are
    in many transitions, so that this is far cheaper than by and by.

    Args:
        capacity: Transitions in replay.
        device: Of the network.
    """

    def __init__(self, capacity: int, device: th.device | str = "cpu"):
        self._values = th.zeros(capacity, device=device)
        # Which transition a value is of; -1 for none.
        self._serial = np.full(capacity, -1, np.int64)
        self._n_asked = self._n_asked_before = 0
        self._kind = ""
        self._replay: tuple[CandidateReplay | None, int] = None, 0
        self._places: list[tuple[int, int]] = []
        self._version = 0
        self._views: list[th.Tensor] = []
        self._sample = th.empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
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
            transitions: Drawn from `replay`. Where planning has made something else of one, its value is computed and
                not kept.
            replay: Where they are stored.
            network: The target network.
            kind: `"same_action"`, of the candidate that was chosen, or `"max"`, of all next candidates.
            evaluate: What the network says of the next steps of m transitions, (m,), 0 where there is none.
            imagined: Whether planning may have done so; False says that all are as they are stored.
        """
        self._forget_if_changed(network, replay, kind)
        position = transitions.position
        as_stored = np.ones(len(position), bool)
        if imagined:
            as_stored = replay.as_stored(transitions, same_candidate=kind == "same_action")
        self._n_asked += int(np.count_nonzero(as_stored))
        if (as_stored & (self._serial[position] != transitions.serial)).any():
            at_once = len(replay) <= self._n_asked_before
            stored = np.arange(len(replay)) if at_once else np.unique(position[as_stored])
            missing = stored[self._serial[stored] != replay.serials(stored)]
            chunk = max(1, CHUNK // (1 if kind == "same_action" else replay.n_candidates))
            for places in np.split(missing, range(chunk, len(missing), chunk)):
                self._values[self._index(places)] = evaluate(replay[places])
                self._serial[places] = replay.serials(places)
        values = self._values.index_select(0, self._index(position))
        if not as_stored.all():
            others = np.flatnonzero(~as_stored)
            values[self._index(others)] = evaluate(transitions.take(others))
        return values

    def network_changed(self) -> None:
        """The network was written to: what is kept is of no use."""
        self._places = []

    def forget(self) -> None:
        """Compute everything anew."""
        self._serial[:] = -1
        if self._n_asked:  # one life at a time, however often it is ended
            self._n_asked_before, self._n_asked = self._n_asked, 0

    def state(self, network: PairNetwork, replay: CandidateReplay, kind: str) -> dict[str, Any]:
        """What is kept, for a run that goes on to the bit: which values are computed together may decide a last bit."""
        self._forget_if_changed(network, replay, kind)
        size = len(replay)
        return {
            "kind": kind,
            "next_values": self._values[:size].cpu().numpy(),
            "serial": self._serial[:size],
            "n_asked": [self._n_asked_before, self._n_asked],
        }

    def restore(self, state: Mapping[str, Any], network: PairNetwork, replay: CandidateReplay, kind: str) -> None:
        """Put back what :meth:`state` gave of the same network and replay; of another kind, nothing."""
        self._forget_if_changed(network, replay, kind)
        # Earlier releases kept `values` before they were made 0 at an end.
        if state["kind"] == kind and "next_values" in state:
            size = len(replay)
            self._values[:size] = th.as_tensor(state["next_values"], device=self._values.device)
            self._serial[:size] = state["serial"]
            self._n_asked_before, self._n_asked = state["n_asked"]

    def _index(self, rows: np.ndarray) -> th.Tensor:
        return th.as_tensor(rows, dtype=th.int64, device=self._values.device)

    def _forget_if_changed(self, network: PairNetwork, replay: CandidateReplay, kind: str) -> None:
        """Forget if the network, the scale of its inputs, the replay or the kind is another one than last time.

        Torch counts what changes a tensor, but for changes through `.data`: hence a sample of every parameter.
        """
        parameters = list(network.parameters())
        places = [(parameter.data_ptr(), parameter._version) for parameter in parameters]
        if places != self._places:
            self._views = [_sample_of(parameter.detach()) for parameter in parameters]
        sample = th.cat(self._views)
        version = network.features.version
        same_replay = replay is self._replay[0] and replay.n_loaded == self._replay[1]
        same_scale = version == self._version
        if (
            same_replay
            and same_scale
            and kind == self._kind
            and places == self._places
            and th.equal(sample, self._sample)
        ):
            return
        if replay.capacity != len(self._serial):
            self._values, self._serial = self._values.new_zeros(replay.capacity), np.zeros(replay.capacity, np.int64)
        self.forget()
        self._replay, self._kind, self._places, self._sample = (replay, replay.n_loaded), kind, places, sample
        self._version = version


def _sample_of(parameter: th.Tensor) -> th.Tensor:
    """A view of some entries, evenly spread; an odd distance, lest they all lie in a few columns."""
    return parameter.reshape(-1)[:: parameter.numel() // SAMPLE_SIZE | 1]
