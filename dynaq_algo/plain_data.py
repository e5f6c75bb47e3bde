"""Values as JSON and back: numbers, arrays, spaces and the names of known classes. Reading executes nothing."""

from __future__ import annotations

import base64
import importlib
import math
import os
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from torch import nn, optim

__all__ = ["MAX_BYTES", "Checked", "NotPlain", "from_json", "to_json"]

MAX_BYTES = 1 << 31
"""How much memory, in bytes, a file may take by default."""

TYPE = ":type:"

# Classes that a file may name, beside those of torch.nn and torch.optim. No others are imported.
CLASSES = {
    "dynaq_algo.features": ("PairFeatures", "ConcatFeatures", "InteractionFeatures", "BlockwiseFeatures"),
    "dynaq_algo.policies": ("CandidatePolicy",),
}
# Classes whose objects are written as the name of the class and the attributes.
OBJECTS = {
    "dynaq_algo.forecasts": ("TransitionForecasts",),
    "dynaq_algo.planning": ("VisitedPairs", "CandidatePairs", "CrossedPairs"),
    "dynaq_algo.world_model": ("RewardForecasts",),
    "stable_baselines3.common.utils": ("ConstantSchedule", "FloatSchedule", "LinearSchedule"),
}
TORCH: dict[str, tuple[Any, type]] = {"torch.nn": (nn, nn.Module), "torch.optim": (optim, optim.Optimizer)}


@runtime_checkable
class Checked(Protocol):
    """A part of an agent that checks itself after it was read from a file."""

    def check(self) -> None:
        """Raise ValueError, TypeError or AttributeError if the attributes do not belong together."""


class NotPlain(ValueError):
    """A value cannot be written as JSON, or JSON that is read describes no value."""


def to_json(value: Any) -> Any:
    """A nested value as plain JSON. Tuples, deques, arrays and keys that are not texts keep their types.

    Args:
        value: Numbers, texts, paths, lists, dictionaries, arrays, Gymnasium's spaces, classes of torch.nn, torch.optim
            and this package, its planning sources, and SB3's schedules.

    Raises:
        NotPlain: If the value holds anything else, such as a function; the message says what.
    """
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return value
    if type(value) is list:
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray):
        return _array_to_json(value)
    if isinstance(value, np.generic):
        return {TYPE: "number", "value": _array_to_json(np.asarray(value))}
    if type(value) in (dict, OrderedDict):
        if all(isinstance(key, str) for key in value) and TYPE not in value:
            return {key: to_json(item) for key, item in value.items()}
        return {TYPE: "pairs", "items": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if type(value) is tuple:
        return {TYPE: "tuple", "items": [to_json(item) for item in value]}
    if type(value) is deque:
        return {TYPE: "deque", "items": [to_json(item) for item in value], "maxlen": value.maxlen}
    if isinstance(value, TrainFreq):
        return {TYPE: "train_freq", "frequency": value.frequency, "unit": value.unit.value}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type):
        return {TYPE: "class", "name": _name_of(value)}
    if isinstance(value, spaces.Space):
        return _space_to_json(value)
    kind = type(value)
    if kind.__name__ in OBJECTS.get(kind.__module__, ()):
        return {TYPE: "object", "name": f"{kind.__module__}:{kind.__name__}", "attributes": to_json(vars(value))}
    raise NotPlain(f"{_described(value)}, which can be written only as code")


def from_json(value: Any, max_bytes: int = MAX_BYTES) -> Any:
    """The value that :func:`to_json` wrote.

    Args:
        value: Parsed JSON.
        max_bytes: Largest size of all arrays together.

    Raises:
        NotPlain: If :func:`to_json` cannot have written it, or its arrays are larger than `max_bytes`.
    """
    try:
        return _Reader(max_bytes).read(value)
    except NotPlain:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, OverflowError, RecursionError) as error:
        raise NotPlain(f"no value can be read from it: {error!r:.200}") from error


class _Reader:
    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.bytes_left = max_bytes

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.read(item) for item in value]
        if not isinstance(value, dict):
            return value
        if TYPE not in value:
            return {key: self.read(item) for key, item in value.items()}
        kind = value[TYPE]
        readers = {
            "array": self._array,
            "number": lambda value: self._array(value["value"])[()],
            "pairs": lambda value: {self.read(key): self.read(item) for key, item in value["items"]},
            "tuple": lambda value: tuple(self.read(item) for item in value["items"]),
            "deque": lambda value: deque((self.read(item) for item in value["items"]), maxlen=value["maxlen"]),
            "train_freq": self._train_freq,
            "class": lambda value: _class_of(value["name"]),
            "space": self._space,
            "object": self._object,
        }
        if not isinstance(kind, str) or kind not in readers:
            raise NotPlain(f"it holds a value of the kind {str(kind)[:80]!r}, which this version does not know")
        return readers[kind](value)

    def _train_freq(self, value: Mapping[str, Any]) -> TrainFreq:
        frequency = value["frequency"]
        if not isinstance(frequency, int) or frequency < 1:
            raise NotPlain(f"it trains every {str(frequency)[:80]} steps")
        return TrainFreq(frequency, TrainFrequencyUnit(value["unit"]))

    def _array(self, value: Mapping[str, Any]) -> np.ndarray:
        dtype, shape = np.dtype(str(value["dtype"])), tuple(int(size) for size in value["shape"])
        if dtype.kind not in "biufcUS" or any(size < 0 for size in shape):
            raise NotPlain(f"it holds an array of {str(value['dtype'])[:80]!r} {shape}")
        n_bytes = dtype.itemsize * math.prod(shape)
        self.bytes_left -= n_bytes
        if self.bytes_left < 0:
            raise NotPlain(
                f"its arrays take more than `max_bytes` = {self.max_bytes:,} bytes; raise that if you know the file"
            )
        if "fill" in value:
            return np.full(shape, value["fill"], dtype)
        content = base64.b64decode(value["content"], validate=True)
        if len(content) != n_bytes:
            raise NotPlain(f"it holds {len(content)} bytes of an array of {n_bytes}")
        return np.frombuffer(content, dtype).reshape(shape).copy()

    def _space(self, value: Mapping[str, Any]) -> spaces.Space:
        kind = value["space"]
        if kind == "Dict":
            return spaces.Dict(OrderedDict((str(key), self._space(item)) for key, item in value["entries"]))
        if kind == "Box":
            low, high = self._array(value["low"]), self._array(value["high"])
            return spaces.Box(low, high, low.shape, low.dtype.type)
        if kind == "Discrete":
            return spaces.Discrete(int(value["n"]), start=int(value["start"]))
        if kind == "MultiDiscrete":
            nvec = self._array(value["nvec"])
            return spaces.MultiDiscrete(nvec, nvec.dtype.type, start=self._array(value["start"]))
        if kind == "MultiBinary":
            shape = [int(size) for size in value["shape"]]
            return spaces.MultiBinary(shape if value["of_axes"] else shape[0])
        raise NotPlain(f"it holds a space of the kind {str(kind)[:80]!r}")

    def _object(self, value: Mapping[str, Any]) -> Any:
        kind = _look_up(value["name"], OBJECTS)
        attributes = self.read(value["attributes"])
        if not isinstance(attributes, dict) or any(hasattr(kind, str(name)) for name in attributes):
            raise NotPlain(f"it holds other attributes than those of a {kind.__name__}")
        made: Any = object.__new__(kind)
        vars(made).update(attributes)
        if isinstance(made, Checked):
            try:
                made.check()
            except (ValueError, TypeError, AttributeError) as error:
                raise NotPlain(f"it holds a {kind.__name__} that is not whole: {error!s:.200}") from error
        return made


def _array_to_json(value: np.ndarray) -> dict[str, Any]:
    if value.dtype.kind not in "biufcUS":
        raise NotPlain(f"an array of {value.dtype}")
    form: dict[str, Any] = {TYPE: "array", "dtype": value.dtype.str, "shape": list(value.shape)}
    content = np.ascontiguousarray(value).tobytes()
    # The bounds of a space are often one number, repeated a million times.
    if value.size > 1 and value.dtype.kind in "biuf" and content == content[: value.itemsize] * value.size:
        first = value.reshape(-1)[0].item()
        if first == first:  # NaN is written as bytes, because several bit patterns are NaN
            return {**form, "fill": first}
    return {**form, "content": base64.b64encode(content).decode()}


def _space_to_json(space: spaces.Space) -> dict[str, Any]:
    # Only the exact types are taken, because what a subclass adds would be lost.
    form: dict[str, Any] = {TYPE: "space", "space": type(space).__name__}
    if type(space) is spaces.Dict:
        return {**form, "entries": [[key, _space_to_json(entry)] for key, entry in space.spaces.items()]}
    if type(space) is spaces.Box:
        return {**form, "low": _array_to_json(space.low), "high": _array_to_json(space.high)}
    if type(space) is spaces.Discrete:
        return {**form, "n": int(space.n), "start": int(space.start)}
    if type(space) is spaces.MultiDiscrete:
        return {**form, "nvec": _array_to_json(space.nvec), "start": _array_to_json(space.start)}
    if type(space) is spaces.MultiBinary:
        return {**form, "shape": list(space.shape), "of_axes": not isinstance(space.n, int)}
    raise NotPlain(f"{_described(space)}, which can be written only as code")


def _name_of(kind: type) -> str:
    for module, names in CLASSES.items():
        if kind.__module__ == module and kind.__name__ in names:
            return f"{module}:{kind.__name__}"
    for module, (face, parent) in TORCH.items():
        if issubclass(kind, parent) and getattr(face, kind.__name__, None) is kind:
            return f"{module}:{kind.__name__}"
    raise NotPlain(f"the class {kind.__module__}.{kind.__qualname__}, which can be written only as code")


def _class_of(name: Any) -> type:
    module, _, attribute = str(name).partition(":")
    if module in TORCH:
        face, parent = TORCH[module]
        kind = getattr(face, attribute, None)
        if isinstance(kind, type) and issubclass(kind, parent):
            return kind
    return _look_up(name, CLASSES)


def _look_up(name: Any, known: Mapping[str, tuple[str, ...]]) -> type:
    """The class of this name, which is imported only if the name is known."""
    module, _, attribute = str(name).partition(":")
    if attribute not in known.get(module, ()):
        raise NotPlain(
            f"it names {str(name)[:80]!r}: only classes of torch.nn, torch.optim and dynaq_algo are made from a file"
        )
    kind: type = getattr(importlib.import_module(module), attribute)
    return kind


def _described(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"the function {name}" if callable(value) and name else f"an object of the class {kind}"
