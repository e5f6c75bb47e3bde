"""Kinds of inputs that are an agent's: its zip, its replay, its checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from robustness import edits as changes
from robustness.edits import Edit, Files
from robustness.files import drawn_edits, one_of
from robustness.trying import FilesKind, Wrong, read_files
from toy import make_toy

from dynaq_algo import DynaQ
from dynaq_algo.agent_file import AgentFileError

_LARGE = 1e6
_ATTRIBUTES = {"data", "dynaq_algo_format.json"}


def new_agent(**options: Any) -> DynaQ:
    """A small agent on a toy, which learns at each step."""
    small = {"policy_kwargs": {"net_arch": [8]}, "learning_starts": 5, "batch_size": 4, "buffer_size": 30}
    return DynaQ("CandidatePolicy", make_toy(), seed=0, device="cpu", **{**small, **options})


def values(agent: DynaQ) -> np.ndarray:
    """What it thinks of three observations, (12,)."""
    shown = [make_toy().reset(seed=seed)[0] for seed in range(3)]
    return np.concatenate([np.ravel(agent.q_values(obs)) for obs in shown])


def weights(agent: DynaQ) -> int:
    """A checksum of its networks."""
    return zlib.crc32(b"".join(value.detach().numpy().tobytes() for value in agent.policy.parameters()))


def entries_of(files: Files) -> list[str]:
    """Entries of all zips, those of zips within them left whole."""
    return [
        f"{name}!{entry}"
        for name, content in files.items()
        if name.endswith((".zip", ".npz"))
        for entry in changes.read_entries(content)
    ]


class _Agents(FilesKind):
    """What three kinds share: the files, their entries, how they are changed."""

    names_file = "or argument"

    def draw(self, rng: np.random.Generator) -> list[Edit]:
        return drawn_edits(rng, lambda: self._edit(rng))

    def _edit(self, rng: np.random.Generator) -> Edit:
        how, entry = rng.random(), one_of(rng, entries_of(self.files))
        documents = [name for name in self._documents() if name.partition("!")[0] in self.files]
        if how < 0.3 and documents:
            document = one_of(rng, documents)
            return changes.draw_json(rng, document, changes.read(self.files, document))
        if how < 0.6 and entry.endswith(".npy"):
            return changes.draw_array(rng, entry, changes.read(self.files, entry))
        if how < 0.75:
            return changes.draw_bytes(rng, entry, changes.read(self.files, entry))
        if how < 0.85:
            return changes.draw_files(rng, [*self.files, entry])
        file = one_of(rng, list(self.files))
        return changes.draw_bytes(rng, file, self.files[file])

    def _documents(self) -> list[str]:
        return []

    def explained(self, error: BaseException) -> bool:
        """What Stable-Baselines3 itself refuses of its own argument."""
        return isinstance(error, ValueError) and "`train_freq`" in str(error)

    def _is_as_saved(self, files: Files) -> bool:
        """Whether all in the files is what was written, whatever the zip around it says of dates and the like."""
        try:
            return all(
                changes.read_entries(files[name]) == changes.read_entries(content)
                if name.endswith((".zip", ".npz"))
                else files[name] == content
                for name, content in self.files.items()
            )
        except Exception:  # no zip, or not a whole one
            return False


class Agents(_Agents):
    """A saved agent. What is read decides and learns on; the one that was saved thinks what it thought."""

    name = "agents"

    def __init__(self, folder: Path):
        super().__init__(folder)
        agent = new_agent().learn(20)
        agent.save(folder / "original" / "agent.zip")
        self.files, self.right = read_files(folder / "original"), values(agent)

    def _documents(self) -> list[str]:
        return [f"agent.zip!{name}" for name in sorted(_ATTRIBUTES)]

    def try_(self, edits: Sequence[Edit]) -> None:
        files = self.written(edits)
        agent = DynaQ.load(self.place / "agent.zip", make_toy(), device="cpu")
        found = values(agent)
        if self._is_as_saved(files) and not np.array_equal(found, self.right):
            raise Wrong("another agent: it does not think what the saved one thought")
        if not np.isfinite(found).all():
            raise Wrong(f"no numbers: it thinks {found}")
        agent.learn(8, reset_num_timesteps=False)


class Replays(_Agents):
    """A saved replay. One that is refused changes nothing of the agent that was to take it; one that is read is learnt
    from, and if it is the one that was saved, equals it.
    """

    name = "replays"

    def __init__(self, folder: Path):
        super().__init__(folder)
        agent = new_agent(learning_starts=100).learn(20)
        (folder / "original").mkdir()
        agent.save_replay_buffer(folder / "original" / "replay.npz")
        self.files = read_files(folder / "original")
        self.right = self._content(agent)
        self.live = new_agent(learning_starts=7).learn(7)
        self.live.save(folder / "live.zip")
        self.live.save_replay_buffer(folder / "live.npz")

    def try_(self, edits: Sequence[Edit]) -> None:
        files = self.written(edits)
        before = self._content(self.live)
        try:
            self.live.load_replay_buffer(self.place / "replay.npz")
        except (AgentFileError, OSError):
            if self._content(self.live) != before:
                raise Wrong("half taken: a replay that was refused has changed the agent's") from None
            raise
        try:
            if self._is_as_saved(files) and self._content(self.live) != self.right:
                raise Wrong("another replay: it is not the one that was saved")
            self.live.learn(4, reset_num_timesteps=False)
            # Of numbers beyond all measure nobody learns anything.
            is_large = any(abs(edit[-1]) > _LARGE for edit in edits if edit[0] == "number")
            if not is_large and not all(th.isfinite(value).all() for value in self.live.policy.parameters()):
                raise Wrong("no numbers: the weights are none after learning from it")
        finally:
            self.live = DynaQ.load(self.folder / "live.zip", make_toy(), device="cpu")
            self.live.load_replay_buffer(self.folder / "live.npz")

    @staticmethod
    def _content(agent: DynaQ) -> bytes:
        replay = agent.replay_buffer
        assert replay is not None
        index = np.arange(len(replay))
        return b"".join(np.asarray(part).tobytes() for part in _arrays(replay[index]))


def _arrays(value: Any) -> list[Any]:
    """All arrays in nested tuples."""
    if value is None:
        return []
    return [part for item in value for part in _arrays(item)] if isinstance(value, tuple | list) else [value]


class Checkpoints(_Agents):
    """A checkpoint. What is read goes on; the one that was saved, to the bit as the run that was not stopped."""

    name = "checkpoints"

    def __init__(self, folder: Path):
        super().__init__(folder)
        new_agent().learn(20).save_checkpoint(folder / "original")
        self.files = read_files(folder / "original")
        self.right = self._gone_on(folder / "original")

    def _documents(self) -> list[str]:
        return ["state.json", *(f"model.zip!{name}" for name in sorted(_ATTRIBUTES))]

    def try_(self, edits: Sequence[Edit]) -> None:
        files = self.written(edits)
        right = self._gone_on(self.place)
        if self._is_as_saved(files) and right != self.right:
            raise Wrong("another run: it does not go on as the one that was not stopped")

    @staticmethod
    def _gone_on(folder: Path) -> int:
        agent = DynaQ.load_checkpoint(folder, make_toy(), device="cpu")
        return weights(agent.learn(8, reset_num_timesteps=False))


KINDS = (Agents, Replays, Checkpoints)
