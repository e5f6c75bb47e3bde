"""Reads tensors from a file that others may have made: checks sizes before taking memory, and runs nothing."""

from __future__ import annotations

import copy
import io
import math
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any

import torch as th

from dynaq_algo.agent_file import VARIABLES, AgentFileError, reading

__all__ = ["TensorReader", "fitting_state", "read_parameters", "require_finite"]

MOST_STEPS = 1_000_000
"""Most steps in the description of the tensors. A tensor takes some 30."""
MOST_AXES = 64
DTYPES = {
    "torch DoubleStorage": th.float64,
    "torch FloatStorage": th.float32,
    "torch HalfStorage": th.float16,
    "torch BFloat16Storage": th.bfloat16,
    "torch LongStorage": th.int64,
    "torch IntStorage": th.int32,
    "torch ShortStorage": th.int16,
    "torch CharStorage": th.int8,
    "torch ByteStorage": th.uint8,
    "torch BoolStorage": th.bool,
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def read_parameters(
    entries: Mapping[str, bytes], shown: str, networks: Collection[str], max_bytes: int
) -> dict[str, Any]:
    """The state dictionaries of an agent's networks and optimisers by name.

    Args:
        entries: The agent's zip, see :func:`~dynaq_algo.agent_file.read_entries`.
        shown: How messages name the file.
        networks: Names of the networks that an agent has.
        max_bytes: Limit of all tensors together.

    Raises:
        AgentFileError: If an entry is not whole, was changed, holds more than tensors, belongs to no part of an agent,
            or if weights are not finite.
    """
    reader, found = TensorReader(shown, "agent", max_bytes), {}
    for entry, content in entries.items():
        name = entry.removesuffix(".pth")
        if name == entry or entry == VARIABLES:  # no agent needs the latter: SB3 would set any attribute that it names
            continue
        if name.removesuffix(".optimizer") not in networks:
            raise AgentFileError(f"{shown} holds tensors of {entry[:80]!r}, which no agent has. Save it again.")
        found[name] = reader.read(io.BytesIO(content))
        require_finite(shown, name, found[name])
    return found


def require_finite(shown: str, name: str, state: Any) -> None:
    """Refuse weights that are not finite.

    Args:
        shown: How the message names the file.
        name: What the state belongs to, such as `policy`.
        state: A state dictionary; what it holds beside tensors is not looked at.

    Raises:
        AgentFileError: If one of the tensors holds NaN or an infinite number.
    """
    for key, value in state.items() if isinstance(state, dict) else ():
        if isinstance(value, th.Tensor) and not value.isfinite().all():
            raise AgentFileError(
                f"{shown}: {key!r:.80} of `{name}` holds numbers that are not finite. Learning went wrong before the "
                "agent was saved, or the file was changed: use an earlier copy."
            )


def fitting_state(optimizer: th.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A saved state of an optimiser, for its `load_state_dict`, checked against what a step of the optimiser makes.

    Without the check, torch's fused Adam would read and write moments at the length of the parameters, beyond the end
    of shorter moments. Settings, such as betas, are not taken: they stay those of the optimiser.

    Args:
        optimizer: The optimiser that is to continue. It is not changed.
        state: A `state_dict()` of an optimiser of the same class and parameters.

    Raises:
        RuntimeError: If parameters differ, or a moment has another shape or holds no real numbers.
        KeyError: If a moment is missing.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in groups]:
        raise RuntimeError("an optimiser's state belongs to other parameters")
    if not state["state"]:
        return {"state": {}, "param_groups": groups}
    probe = copy.deepcopy(optimizer)
    for group in probe.param_groups:
        for parameter in group["params"]:
            parameter.grad = th.zeros_like(parameter)
    probe.step()
    made = probe.state_dict()["state"]
    for number, saved in state["state"].items():
        for name, values in made[number].items():
            found = saved[name]
            is_like = isinstance(found, th.Tensor) and found.shape == values.shape and found.is_floating_point()
            if not is_like or found.isnan().any():
                raise RuntimeError(f"`{name}` of an optimiser must be numbers of the shape {tuple(values.shape)}")
            values.copy_(found)
    return {"state": {number: made[number] for number in state["state"]}, "param_groups": groups}


class TensorReader:
    """Reads files that `torch.save` wrote, without torch's own reader.

    Such a file is a zip. It holds the bytes of the tensors and a pickle, which describes dictionaries, lists, tuples,
    numbers, texts and tensors. The pickle is interpreted here and never given to :mod:`pickle`. `torch.load` with
    `weights_only` would call functions that take any amount of memory, and would believe any size of a tensor.

    Args:
        shown: How messages name the file.
        what: What the file should be, in messages, such as "agent".
        max_bytes: Limit of all files together that this object reads.
    """

    def __init__(self, shown: str, what: str, max_bytes: int):
        self.shown, self.what, self.max_bytes = shown, what, max_bytes
        self._unpacked = self._taken = 0

    def read(self, file: IO[bytes]) -> Any:
        """The content of a file. Each tensor is contiguous, in memory of its own, on the CPU.

        Raises:
            AgentFileError: If the file is not whole, was changed, holds more than tensors, or is larger than
                `max_bytes`.
        """
        with reading(self.shown, self.what), zipfile.ZipFile(file) as archive:
            self._unpacked += sum(entry.file_size for entry in archive.infolist())
            self._require_room(self._unpacked)
            names = set(archive.namelist())
            (folder,) = (name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl"))
            order = f"{folder}byteorder"
            if order in names and archive.read(order) != sys.byteorder.encode():
                raise ValueError("its numbers have their bytes in the order of another kind of computer")
            kept: dict[str, th.Tensor] = {}

            def storage(_kind: str, dtype: th.dtype, key: str, _device: str, n: int) -> th.Tensor:
                if key not in kept:
                    kept[key] = _numbers(archive.read(f"{folder}data/{key}"), dtype)  # `read` compares the checksum
                if kept[key].dtype != dtype or len(kept[key]) != n:
                    raise ValueError(f"{key!r:.80} is not as large as the file says")
                return kept[key]

            return _described(archive.read(f"{folder}data.pkl"), storage, self._take)

    def _take(self, n_bytes: int) -> None:
        """Count memory that a tensor takes."""
        self._taken += n_bytes
        self._require_room(self._taken)

    def _require_room(self, n_bytes: int) -> None:
        if n_bytes > self.max_bytes:
            raise AgentFileError(
                f"{self.shown} unpacks to more than `max_bytes` = {self.max_bytes:,} bytes: raise that if you know the "
                "file."
            )


def _numbers(content: bytes, dtype: th.dtype) -> th.Tensor:
    """Numbers (n,) from their bytes."""
    if not content:
        return th.empty(0, dtype=dtype)
    if dtype == th.bool:  # torch would keep bytes other than 0 and 1 as they are
        return th.frombuffer(bytearray(content), dtype=th.uint8) != 0
    return th.frombuffer(bytearray(content), dtype=dtype)


def _described(description: bytes, storage: Callable[..., th.Tensor], take: Callable[[int], None]) -> Any:
    """What the pickle in a file of `torch.save` describes.

    Args:
        description: The pickle.
        storage: Gives the numbers of a tensor, (n,), from the pickle's reference to them.
        take: Is called with the size of each tensor, in bytes, before it takes memory.

    Raises:
        pickle.UnpicklingError: If the pickle holds more than tensors.
    """

    def tensor(
        values: th.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_others: Any
    ) -> th.Tensor:
        is_shape = len(size) == len(stride) <= MOST_AXES
        if not is_shape or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
            raise ValueError("a tensor has a shape that is none")
        take(math.prod(size) * values.element_size())
        return values.as_strided(size, stride, offset).clone(memory_format=th.contiguous_format)

    def parameter(data: th.Tensor, *_others: Any) -> th.Tensor:
        return data

    def dictionary() -> dict[str, Any]:
        return {}

    functions = {
        "collections OrderedDict": dictionary,
        "torch._utils _rebuild_tensor_v2": tensor,
        "torch._utils _rebuild_parameter": parameter,
    }
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        place = marks.pop()
        items = stack[place:]
        del stack[place:]
        return items

    def set_items(items: list[Any]) -> None:
        keys = items[::2]
        are_plain = all(type(key) is str or (type(key) is int and 0 <= key < MOST_STEPS) for key in keys)
        if type(stack[-1]) is not dict or not are_plain:
            raise pickle.UnpicklingError("it sets what is no entry of a dictionary")
        stack[-1].update(zip(keys, items[1::2], strict=True))

    def append(items: list[Any]) -> None:
        if type(stack[-1]) is not list:
            raise pickle.UnpicklingError("it appends to what is no list")
        stack[-1].extend(items)

    for step, (opcode, argument, _) in enumerate(pickletools.genops(description)):
        if step > MOST_STEPS:
            raise pickle.UnpicklingError(f"its description takes more than {MOST_STEPS:,} steps")
        match opcode.name:
            case "PROTO":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(CONSTANTS[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "GLOBAL" if argument in DTYPES:
                stack.append(DTYPES[argument])
            case "GLOBAL" if argument in functions:
                stack.append(functions[argument])
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "APPEND":
                append([stack.pop()])
            case "APPENDS":
                append(since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items([key, value])
            case "SETITEMS":
                set_items(since_mark())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                value = memo[argument]
                if isinstance(value, (tuple, list, dict)):  # repeated in each other, a few lines hold 2**n entries
                    raise pickle.UnpicklingError("it repeats a container")
                if isinstance(value, th.Tensor):
                    take(value.nbytes)
                stack.append(value)
            case "BINPERSID":
                stack.append(storage(*stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not callable(function):
                    raise pickle.UnpicklingError("it calls what is no function")
                stack.append(function(*arguments))
            case "BUILD":  # attributes of an OrderedDict, which no network of an agent needs
                stack.pop()
            case "STOP":
                return stack.pop()
            case name:
                raise pickle.UnpicklingError(f"it asks for {argument or name!r:.80}")
    raise EOFError("the description of the tensors has no end")
