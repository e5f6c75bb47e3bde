"""One input tried: what came of it, and the smallest one of which the same comes.

An input is read rightly, refused by an error of the project's own, or a failure: a foreign error, a hang, or something
wrong that was read as if it were right. The rule of what is an error of the project's own is :func:`is_own`.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
import traceback
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from robustness.edits import LINK, Edit, Files, applied

GOOD = ("read", "own")
BAD = ("foreign", "hang", "wrong")
PACKAGES = ("jobrec_gym", "dynaq_algo", "experiments")
SECONDS = 20.0
"""So long may one input compute, whatever else the machine does."""
WAITING = 6
"""So many times as long may it take by the clock."""

_SHRINKING = 60.0  # seconds at most
_OF_ARGUMENTS = (ValueError, TypeError, LookupError, RuntimeError, OSError)
_LONGEST = 2_000


class Wrong(Exception):
    """What was read, or what it does, is not right."""


class Hang(BaseException):
    """It takes too long. No ``Exception``, so that nobody takes it for one of a library's."""


@dataclass(frozen=True)
class Result:
    """What came of an input.

    Attributes:
        verdict: ``read``, ``own``, ``foreign``, ``hang`` or ``wrong``.
        said: The error's words; empty where it was read.
        where: The error's class, and the innermost line of the project that it went through.
    """

    verdict: str
    said: str = ""
    where: str = ""

    @property
    def kind(self) -> tuple[str, str]:
        """By what failures are told apart."""
        return self.verdict, self.where


class Kind(ABC):
    """One kind of inputs.

    Attributes:
        name: How it is called.
        names_file: Whether an own error has to name the file: ``"always"``, ``"or argument"`` where an argument, in
            backticks, will do, or ``"no"``.

    Args:
        folder: Empty, to work in.
    """

    name: ClassVar[str]
    names_file: ClassVar[str] = "no"

    def __init__(self, folder: Path):
        self.folder = folder

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> list[Edit]:
        """An input, as a list of plain JSON."""

    @abstractmethod
    def try_(self, edits: Sequence[Edit]) -> None:
        """Reads and uses an input.

        Raises:
            Wrong: If what was read is not right.
        """

    def input_of(self, seed: int, number: int) -> list[Edit]:
        """The input of a number, whatever others there are."""
        return self.draw(np.random.default_rng([seed, zlib.crc32(self.name.encode()), number]))

    def explained(self, error: BaseException) -> bool:
        """Whether an error that is not own by :func:`is_own` is one all the same."""
        return False

    def close(self) -> None:
        """Ends what it started."""
        return


class FilesKind(Kind):
    """Files with changes: what is written is kept in memory, and every input written anew.

    Attributes:
        files: What is changed, by path in the folder.
        place: Where it is written.
    """

    names_file = "always"
    files: Files

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.place = folder / "tried"

    def written(self, edits: Sequence[Edit]) -> Files:
        """The files with the changes, as they now lie in :attr:`place`."""
        files = applied(self.files, edits)
        shutil.rmtree(self.place, ignore_errors=True)
        write_files(self.place, files)
        return files


def read_files(folder: Path) -> Files:
    """All files of a folder by their path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def write_files(folder: Path, files: Files) -> None:
    """What :func:`read_files` read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content == LINK:
            path.symlink_to(path.name)
        else:
            path.write_bytes(content)


def is_own(error: BaseException, names_file: str = "no", place: str = "") -> bool:
    """Whether an error is one that the project means to raise.

    It is one line. Where it is about a file it is also a short one, because the user did not type what the file holds.
    It is of a class of the project; or a ``ValueError``, ``TypeError``, ``LookupError``, ``RuntimeError`` or
    ``OSError`` that a line of the project raises, and names the argument in backticks, or the file; or it is the
    system's word on a file by its name (``FileNotFoundError``), or Python's on the arguments of a call. Where a file is
    read it names the file, as far as ``names_file`` says.

    Args:
        error: What was raised.
        names_file: As in :class:`Kind`.
        place: The folder of the file that is read.
    """
    said = str(error)
    if not said.strip() or "\n" in said or (names_file != "no" and len(said) > _LONGEST):
        return False
    has_file, has_argument = bool(place) and place in said, "`" in said
    if not has_file and (names_file == "always" or (names_file == "or argument" and not has_argument)):
        return False
    if type(error).__module__.partition(".")[0] in PACKAGES:
        return True
    if isinstance(error, OSError) and error.filename is not None:
        return has_file or names_file == "no"
    if isinstance(error, TypeError) and "argument" in said and "()" in said:
        return True
    return isinstance(error, _OF_ARGUMENTS) and (has_argument or has_file) and _raised_here(error)


def _raised_here(error: BaseException) -> bool:
    """Whether a line of the project raised it: a library's words may have backticks, too."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(f"{os.sep}{name}{os.sep}" in frames[-1].filename for name in PACKAGES)


def where(error: BaseException) -> str:
    """An error's class and the innermost line of the project that it went through."""
    lines = [
        f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"{os.sep}{name}{os.sep}" in frame.filename for name in PACKAGES)
    ]
    return f"{type(error).__name__} in {lines[-1] if lines else 'the test'}"


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises :class:`Hang` in a block that computes for so long, or waits for much longer. In the main thread only."""

    def ring(*_: Any) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, seconds), signal.SIGALRM: (signal.ITIMER_REAL, WAITING * seconds)}
    before = {number: signal.signal(number, ring) for number in timers}
    for timer, most in timers.values():
        signal.setitimer(timer, most)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def tried(kind: Kind, edits: Sequence[Edit], seconds: float = SECONDS) -> Result:
    """What comes of an input."""
    try:
        with alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.try_(edits)
    except Hang as error:
        return Result("hang", f"no end in {seconds:g} seconds of computing", where(error))
    except Wrong as error:
        return Result("wrong", str(error), str(error).partition(":")[0])
    except (Exception, SystemExit) as error:
        if is_own(error, kind.names_file, str(kind.folder)) or kind.explained(error):
            return Result("own", str(error), where(error))
        return Result("foreign", f"{type(error).__name__}: {str(error)[:400]}", where(error))
    return Result("read")


def shrunk(kind: Kind, edits: Sequence[Edit], result: Result, seconds: float = SECONDS) -> tuple[list[Edit], Result]:
    """The smallest input found of which the same comes: fewer changes, shorter texts, smaller numbers."""
    smallest, deadline = list(edits), time.monotonic() + _SHRINKING
    seen = {repr(smallest)}
    found = True
    while found:
        found = False
        for candidate in _smaller(smallest):
            if time.monotonic() > deadline:
                return smallest, result
            if repr(candidate) in seen:
                continue
            seen.add(repr(candidate))
            other = tried(kind, candidate, seconds)
            if other.kind == result.kind:
                smallest, result, found = candidate, other, True
                break
    return smallest, result


def _smaller(edits: list[Edit]) -> Iterator[list[Edit]]:
    for number in range(len(edits)):
        yield edits[:number] + edits[number + 1 :]
    for number, edit in enumerate(edits):
        for place, value in enumerate(edit):
            if place == 0:  # what is done
                continue
            for other in _simpler(value):
                yield [*edits[:number], [*edit[:place], other, *edit[place + 1 :]], *edits[number + 1 :]]


def _simpler(value: Any) -> Iterator[Any]:
    if isinstance(value, str) and len(value) > 4:
        yield from (value[: len(value) // 2], value[len(value) // 2 :])
    elif isinstance(value, list):
        for number in range(len(value)):
            yield value[:number] + value[number + 1 :]
        for number, item in enumerate(value):
            for other in _simpler(item):
                yield [*value[:number], other, *value[number + 1 :]]
    elif isinstance(value, dict):
        for name in value:
            yield {key: item for key, item in value.items() if key != name}
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        yield from (0, value // 2)
