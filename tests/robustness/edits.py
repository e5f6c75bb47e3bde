"""Changes of files, drawn from a generator and written as JSON, so that a failure can be told, made smaller and kept.

An edit is a list, ``[what, file, ...]``. ``file`` is a path in the folder, or ``archive!entry`` for an entry of a zip,
which is packed again around it, so that its checksum is right.
"""

from __future__ import annotations

import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Edit = list[Any]
Files = dict[str, bytes]

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 7, 10**6, 2**31, 2**63, -(2**63), 10**30, 1e308),
    *(float("nan"), float("inf"), "", " ", "x", "1", "nan", "None", "apply", "../x", "a\nb", "\x00", "é" * 40),
    *("x" * 3_000, [], {}, [1], [[]], [None], {"a": 1}, [0] * 1_000, {"type": "os:system"}, ["x", 1]),
)
"""What may stand in a JSON document instead of what should."""

_NUMBERS = (0, 1, -1, 2, 3, 127, 10**6, 2**40, float("nan"), float("inf"), -0.5, 1e30)
_DTYPES = ("float64", "float32", "float16", "int8", "int64", "uint64", "bool", "U3", "S2", "complex64", "M8[s]")
_SNIPPETS = (
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b'"',
    b"{",
    b"]",
    b",",
    b"PK\x03\x04",
    b"\x93NUMPY",
    b"NaN",
    b"\xef\xbb\xbf",
    b"-",
)


def read(files: Files, file: str) -> bytes:
    """A file's content, or that of an entry of an archive."""
    archive, _, entry = file.partition("!")
    if not entry:
        return files[archive]
    return read_entries(files[archive])[entry]


def write(files: Files, file: str, content: bytes) -> None:
    """Puts a content in the place of another."""
    archive, _, entry = file.partition("!")
    files[archive] = with_entry(files[archive], entry, content) if entry else content


def read_entries(archive: bytes) -> Files:
    """What is in a zip."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def with_entry(archive: bytes, entry: str, content: bytes | None) -> bytes:
    """A zip with an entry replaced, or, for ``None``, left out."""
    entries: dict[str, bytes | None] = {**read_entries(archive), entry: content}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as opened:
        for name, data in entries.items():
            if data is not None:
                opened.writestr(name, data)
    return made.getvalue()


# ------------------------------------------------------------------------------------------------------------- drawing


def draw_bytes(rng: np.random.Generator, file: str, content: bytes) -> Edit:
    """A change that knows nothing of the format."""
    size, place = len(content), int(rng.integers(max(1, len(content))))
    what = int(rng.integers(7))
    if what <= 1:
        return ["flip", file, place, int(rng.integers(8))]
    if what == 2:
        return ["cut", file, int(rng.integers(size + 1))]
    if what == 3:
        return ["insert", file, place, _SNIPPETS[int(rng.integers(len(_SNIPPETS)))].hex()]
    if what == 4:
        return ["zero", file, place, int(rng.integers(1, 64))]
    if what == 5:
        return ["copy", file, place, int(rng.integers(max(1, size))), int(rng.integers(1, 200))]
    return ["drop", file, place, int(rng.integers(1, 40))]


def draw_json(rng: np.random.Generator, file: str, content: bytes, values: Sequence[Any] = ODD_VALUES) -> Edit:
    """Another value at a place of a JSON document, or none."""
    path = _a_path(rng, json.loads(content))
    if path and rng.random() < 0.2:
        return ["without", file, path]
    return ["set", file, path, values[int(rng.integers(len(values)))]]


def draw_array(rng: np.random.Generator, file: str, content: bytes) -> Edit:
    """Another number, type or shape of an .npy file."""
    what = rng.random()
    if what < 0.6:
        return ["number", file, int(rng.integers(10**6)), _NUMBERS[int(rng.integers(len(_NUMBERS)))]]
    if what < 0.75:
        return ["type", file, _DTYPES[int(rng.integers(len(_DTYPES)))]]
    return ["shape", file, ["flat", "more", "fewer", "twice", "reversed", "empty"][int(rng.integers(6))]]


def draw_files(rng: np.random.Generator, names: Sequence[str]) -> Edit:
    """A file that is gone, empty, a folder, or another one."""
    name, other = (names[int(rng.integers(len(names)))] for _ in range(2))
    return [
        *(["gone", name], ["cut", name, 0], ["folder", name], ["swap", name, other], ["link", name]),
    ][int(rng.integers(5))]


def _a_path(rng: np.random.Generator, document: Any) -> list[Any]:
    path: list[Any] = []
    while isinstance(document, dict | list) and document and (not path or rng.random() < 0.75):
        keys: list[Any] = list(document) if isinstance(document, dict) else list(range(len(document)))
        path.append(keys[int(rng.integers(len(keys)))])
        document = document[path[-1]]
    return path


# ------------------------------------------------------------------------------------------------------------ applying


def applied(files: Files, edits: Sequence[Edit]) -> Files:
    """The files with some changes; one that has no place any more, since another came before it, changes nothing."""
    changed = dict(files)
    for edit in edits:
        try:
            _apply(changed, edit)
        except (LookupError, TypeError, ValueError, ArithmeticError, EOFError, SyntaxError, *_OF_BROKEN):
            continue
    return changed


def _apply(files: Files, edit: Edit) -> None:
    what, file, *rest = edit
    if what in _OF_FILES:
        _OF_FILES[what](files, file, *rest)
        return
    content = read(files, file)
    if what in ("set", "without"):
        document = json.loads(content)
        write(files, file, json.dumps(_with_value(document, what, *rest)).encode())
    elif what in ("number", "type", "shape"):
        array = np.load(io.BytesIO(content))
        made = io.BytesIO()
        with np.errstate(all="ignore"):
            np.save(made, _changed_array(array, what, *rest))
        write(files, file, made.getvalue())
    else:
        write(files, file, _changed_bytes(content, what, *rest))


def _gone(files: Files, file: str) -> None:
    archive, _, entry = file.partition("!")
    if entry:
        files[archive] = with_entry(files[archive], entry, None)
    else:
        del files[archive]


def _swap(files: Files, file: str, other: str) -> None:
    first, second = read(files, file), read(files, other)
    write(files, file, second)
    write(files, other, first)


def _folder(files: Files, file: str) -> None:
    del files[file]
    files[f"{file}/inside"] = b"x"


def _link(files: Files, file: str) -> None:
    """Marked by its content; :func:`robustness.trying.write_files` makes a link to itself of it."""
    files[file] = LINK


LINK = b"a link to itself"
_OF_BROKEN = (zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError, OSError)
"""What the libraries raise that read a file again which an edit before has broken."""
_OF_FILES = {"gone": _gone, "swap": _swap, "folder": _folder, "link": _link}


def _with_value(document: Any, what: str, path: list[Any], value: Any = None) -> Any:
    if not path:
        return value
    place = document
    for key in path[:-1]:
        place = place[key]
    if what == "without":
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def _changed_array(array: np.ndarray, what: str, first: Any, value: Any = None) -> np.ndarray:
    if what == "number":
        array = array.copy()
        if array.size:
            array.reshape(-1)[first % array.size] = value
        return array
    if what == "type":
        return array.astype(first)
    changes = {
        "flat": lambda: array.reshape(-1),
        "more": lambda: array[None],
        "fewer": lambda: array[:-1],
        "twice": lambda: np.concatenate([array, array]),
        "reversed": lambda: array[::-1],
        "empty": lambda: array[:0],
    }
    return changes[first]()


def _changed_bytes(content: bytes, what: str, *numbers: Any) -> bytes:
    data = bytearray(content)
    if what == "cut":
        return bytes(data[: numbers[0]])
    if what == "text":  # at a place between letters
        letters = content.decode(errors="surrogateescape")
        place = numbers[0] % (len(letters) + 1)
        return (letters[:place] + numbers[1] + letters[place:]).encode(errors="surrogateescape")
    place = numbers[0] % (len(data) + 1)
    if what == "flip":
        data[place % len(data)] ^= 1 << numbers[1]
    elif what == "insert":
        data[place:place] = bytes.fromhex(numbers[1])
    elif what == "zero":
        data[place : place + numbers[1]] = bytes(len(data[place : place + numbers[1]]))
    elif what == "copy":
        data[place:place] = data[numbers[1] : numbers[1] + numbers[2]]
    elif what == "drop":
        del data[place : place + numbers[1]]
    else:
        raise KeyError(what)
    return bytes(data)
