"""Commands of `experiments` as processes that import nothing twice: forks of one that has imported torch and Hydra.

A command spends most of a small run's CPU time on imports. :func:`run_command` starts this file as a program, once for
all tests; it imports what commands share and forks for each of them. A fork runs a module as ``python -m`` does, in a
folder and an environment of its own, writes to files of its own, and ends as a process does. :func:`begin_command`
does not wait for the end, for tests that stop it; :func:`run_shell` makes forks of the commands in some lines of a
shell.

What a fork cannot show, tests show with a process of their own: what a module imports, how long its start takes, and
that processes which are spawned find what they need.
"""

from __future__ import annotations

import atexit
import errno
import functools
import gc
import json
import multiprocessing
import os
import runpy
import select
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

__all__ = ["Begun", "begin_command", "run_command", "run_shell"]

ROOT = Path(__file__).parents[1]
_SHARED = (
    "experiments.pages.page",
    "experiments.runs.build",
    "experiments.runs.command",
    "experiments.runs.training",
    "experiments.studies.study",
)
_LONGEST = 1 << 17
"""Bytes of a request, most of them the environment."""
_PYTHON = """#!/bin/sh
case "$1 $2" in
"-m experiments."*) exec {python} {here} {connection} "$@" ;;
*) exec {python} "$@" ;;
esac
"""
"""The script that takes the place of ``python`` in the lines of :func:`run_shell`."""


def run_command(
    name: str,
    *arguments: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    imported: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Returns what ``python -m experiments.NAME ARGUMENTS`` says and ends with.

    Pools of processes that the command makes are forked, too: with ``n_jobs=1`` alone is that sure not to hang.

    Args:
        name: Of the command, as ``python -m experiments`` lists it.
        arguments: As they are typed.
        cwd: The folder it is started in.
        environment: Beside that of the tests; ``PYTHONPATH`` may lead to modules of the test's own.
        imported: What else is imported before the fork, and is there for later commands: litellm takes seconds.

    Raises:
        RuntimeError: If the process that forks has died.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        told = {**os.environ, **(environment or {})}
        _send(_server(), f"experiments.{name}", arguments, cwd, told, [out.fileno(), err.fileno()], imported)
        status = _received(_server())
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([name, *arguments], status, out.read(), err.read())


class Begun:
    """A command that runs, with what a ``subprocess.Popen`` of it would say.

    Attributes:
        pid: Of the process, which leads a session and a group of its own.
        returncode: None while it runs.
    """

    def __init__(self, connection: socket.socket, pid: int, files: tuple[IO[str], IO[str]]):
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection
        self._files = files
        self._told: list[str] = []

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Waits for the end; returns the exit status."""
        if self.returncode is None:
            self.returncode = _received(self._connection)
            self._connection.close()
            for file in self._files:
                with file:
                    file.seek(0)
                    self._told.append(file.read())
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Waits for the end; returns what it wrote to stdout and stderr."""
        self.wait()
        out, err = self._told
        return out, err


def begin_command(name: str, *arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Begun:
    """Starts ``python -m experiments.NAME ARGUMENTS`` in a session of its own, as :func:`run_command` does.

    Raises:
        RuntimeError: If the process that forks has died.
    """
    # A connection of its own: the others answer meanwhile.
    connection = _connect()
    files = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 - open until the command ends
    told = {**os.environ, **(environment or {})}
    numbers = [file.fileno() for file in files]
    _send(connection, f"experiments.{name}", arguments, cwd, told, numbers, own_session=True)
    return Begun(connection, _received(connection), files)


def run_shell(lines: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Returns what lines of a shell say and end with; what they start comes one after the other.

    Args:
        lines: For bash; the first that fails ends them.
        cwd: The folder they are in.
    """
    with tempfile.TemporaryDirectory() as folder:
        python, connection = Path(folder, "python"), _server().fileno()
        words = {"python": shlex.quote(sys.executable), "here": shlex.quote(__file__), "connection": connection}
        python.write_text(_PYTHON.format(**words))
        python.chmod(0o755)
        path = os.pathsep.join([folder, str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            cwd=cwd,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            pass_fds=[connection],
            capture_output=True,
            text=True,
        )


def _send(
    server: socket.socket,
    module: str,
    arguments: Sequence[str],
    cwd: Path,
    environment: Mapping[str, str],
    files: Sequence[int],
    imported: Sequence[str] = (),
    own_session: bool = False,
) -> None:
    """Asks for a fork that runs a module; in a session of its own, its process id comes before its exit status."""
    request = {
        "module": module,
        "arguments": arguments,
        "cwd": str(cwd),
        "environment": dict(environment),
        "imported": imported,
        "own_session": own_session,
    }
    with suppress(ConnectionError):  # that it has died is said where its answer is awaited
        socket.send_fds(server, [json.dumps(request).encode()], files)


def _received(server: socket.socket) -> int:
    """The next number that the process which forks has to say."""
    number = b""
    with suppress(ConnectionError):
        number = server.recv(_LONGEST)
    if not number:
        raise RuntimeError("The process that forks commands has died; what it said of it is above.")
    return int(json.loads(number))


@functools.cache
def _server() -> socket.socket:
    """The connection for commands that are waited for."""
    return _connect()


def _connect() -> socket.socket:
    """A connection to a process that forks. That process ends when the connection does, however the tests end.

    The workers of pytest-xdist share what is imported: the first of them starts a process that forks once for each.
    """
    # In Linux's abstract namespace: of one owner at a time, and gone with it.
    name = f"\0jobrec-forks-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    atexit.register(here.close)
    while True:
        with suppress(ConnectionRefusedError):
            here.connect(name)
            return here
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            try:
                listener.bind(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue  # another worker is about to listen
            listener.listen()
            # In a session of its own: Ctrl-C ends the tests, and they its input.
            process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno())],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
            atexit.register(process.communicate)


def _connection(listener: socket.socket) -> socket.socket | None:
    """Forks for each connection, and returns it in the fork. Returns None when the starter of this process ends."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        gc.freeze()
        if not os.fork():
            listener.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
            return connection
        connection.close()


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """Answers requests with the exit status of a fork; returns the request in a fork, and None at the end."""
    while True:
        content, files, *_ = socket.recv_fds(requests, _LONGEST, 2)
        if not content:
            return None
        request: dict[str, Any] = json.loads(content)
        for name in request["imported"]:
            import_module(name)
        gc.freeze()  # a collection in a fork would write to, and thereby copy, all that there is
        child = os.fork()
        if not child:
            requests.close()
            if request["own_session"]:
                os.setsid()
        for number, file in zip((1, 2), files, strict=True):
            if not child:
                os.dup2(file, number)
            os.close(file)
        if not child:
            return request
        if request["own_session"]:
            requests.send(json.dumps(child).encode())
        requests.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _become(request: dict[str, Any], paths: Sequence[str]) -> NoReturn:
    """Makes a module the program of this process, and ends as it does."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    of_environment = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [request["cwd"], *filter(None, of_environment), *paths]
    sys.argv[1:] = request["arguments"]
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forking
    status: Any = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    # As multiprocessing ends its forks: to free all that there is takes a second of CPU time.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _warm_up() -> None:
    """Imports what commands share, lets Hydra find its plug-ins and read a config, and torch import its compiler."""
    # As the simulator has it, before litellm is imported: otherwise that asks the network for a list of prices.
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    for name in _SHARED:
        import_module(name)
    import torch
    from hydra import compose, initialize_config_dir

    # The first optimiser of a process takes a second: torch imports its compiler, and with it SymPy.
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("train")


if __name__ == "__main__":
    if sys.argv[2:]:  # a shell's `python -m MODULE ARGUMENTS`
        _, fd, _, name, *words = sys.argv
        server = socket.socket(fileno=int(fd))
        _send(server, name, words, Path.cwd(), os.environ, [1, 2])
        sys.exit(_received(server))
    _, *found = sys.path  # without this file's folder
    sys.path.insert(0, str(ROOT))
    _warm_up()
    connected = _connection(socket.socket(fileno=int(sys.argv[1])))
    asked = None if connected is None else _serve(connected)
    if asked is None:
        os._exit(0)
    _become(asked, found)
