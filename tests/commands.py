"""Commands of `experiments` as processes that import nothing twice: forks of one that has imported torch and Hydra.

A command spends most of a small run's CPU time on imports. :func:`run_command` starts this file as a program, once for
all commands of a process of tests; it imports what commands share and forks for each of them. A fork runs a module as
``python -m`` does, in a folder and an environment of its own, writes to files of its own, and ends as a process does.

What a fork cannot show, tests show with a process of their own: what a module imports, how long its start takes, and
that processes which are spawned find what they need.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["run_command"]

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
    request = {
        "module": f"experiments.{name}",
        "arguments": arguments,
        "cwd": str(cwd),
        "environment": {**os.environ, **(environment or {})},
        "imported": imported,
    }
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        socket.send_fds(_server(), [json.dumps(request).encode()], [out.fileno(), err.fileno()])
        status = _server().recv(_LONGEST)
        if not status:
            raise RuntimeError("The process that forks commands has died; what it said of it is above.")
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([name, *arguments], json.loads(status), out.read(), err.read())


@functools.cache
def _server() -> socket.socket:
    """Starts the process that forks; it ends with the connection to it, however the tests end."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        # In a session of its own: Ctrl-C ends the tests, and they the connection.
        process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[there.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here


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
        for number, file in zip((1, 2), files, strict=True):
            if not child:
                os.dup2(file, number)
            os.close(file)
        if not child:
            return request
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
    """Imports what commands share, and lets Hydra find its plug-ins and read a config."""
    for name in _SHARED:
        import_module(name)
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("train")


if __name__ == "__main__":
    _, *found = sys.path  # without this file's folder
    sys.path.insert(0, str(ROOT))
    _warm_up()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        os._exit(0)
    _become(asked, found)
