"""Builds the page from the entries of a config, and serves it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runs.folders import RunError, lock_served
from experiments.runs.numbers import MOST, require_switch, require_whole
from experiments.runs.tables import Table
from experiments.web.agents import StartingAgents, market_of
from experiments.web.careers import Careers
from experiments.web.somebody import honest_sessions
from experiments.web.visitors import VisitorFiles
from experiments.web.visits import Visits
from jobrec_gym import LabourMarket
from jobrec_gym.extras import install_command

__all__ = ["Pages", "bound", "locked", "pages_of", "serve", "session_table"]

Options = Mapping[str, Any]
Pages = tuple[Visits, Careers | None]

_ANSWERS = 10


def pages_of(options: Options) -> Pages:
    """The visits and careers of the page. Missing starting agents are trained, which takes seconds.

    Args:
        options: The entries of ``conf/app.yaml``, in plain Python.

    Returns:
        Visits and careers; no careers for a market that does not know the level of any job.

    Raises:
        RunError: If an entry is out of range, there is no such market, or the agents belong to another market.
        EncoderError: If the encoder is not installed.
    """
    market, agents = _started(options)
    folder = Path(options["folder"])
    # All skills of the market are encoded now, so that no visitor waits, and a missing encoder is reported here.
    words = market.vocabulary
    row = {"key": "all", "hard": list(words.hard_skills), "soft": list(words.soft_skills)}
    market.with_applicants([row], encoder=options["encoder"])
    visits = Visits(
        VisitorFiles(Path(options["visitors"]), options["most_visitors"]),
        agents,
        market,
        options["truth"],
        options["encoder"],
        options["n_nearest"],
        options["most_visits"],
    )
    if not market.jobs.seniority.any():
        return visits, None
    career = options["career"]
    careers = Careers(
        folder / "careers",
        options["source"],
        market,
        career["gammas"],
        int(career["interactions"]),  # it may be written 1e3
        options["truth"],
        career["learn"],
    )
    return visits, careers


def bound(host: str, port: int) -> socket.socket:
    """A socket with the address of the page. It is made before anything is trained.

    The socket listens from now on, so that no other process can take the port. Requests wait until the page is served.

    Args:
        host: A name or an address of this machine.
        port: 0 for a free one.

    Raises:
        RunError: If the machine has no such address, or the port is taken.
    """
    wrong = "`host` must be a name or an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all addresses, got "
    if not isinstance(host, str) or not host:
        raise RunError(f"{wrong}{host!r:.80}.")
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen()
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise RunError(f"`port` {port} is taken: choose another one, or port=0 for a free one.") from error
        if error.errno == errno.EACCES:
            raise RunError(f"`port` {port} needs more rights: choose one of 1024 or more, or port=0.") from error
        raise RunError(f"{wrong}{host!r:.80} ({error.strerror}).") from error
    return made


@contextmanager
def locked(options: Options, listener: socket.socket) -> Iterator[None]:
    """Locks the server's folders against other servers until the block ends, or this process is killed.

    A server reads a visitor's log once, so it would not see the answers that another server adds to it.

    Args:
        options: The entries of ``conf/app.yaml``, in plain Python.
        listener: The socket of this server, from :func:`bound`.

    Raises:
        RunError: If another server uses one of the folders. The error names that server.
    """
    server = f"the server at {_address(options['host'], listener)} (process {os.getpid()})"
    folders = {Path(options[name]).resolve(): name for name in ("folder", "visitors")}
    with ExitStack() as locks:
        for folder, name in folders.items():
            locks.enter_context(lock_served(folder, server, name))
        yield


def serve(pages: Pages, host: str, listener: socket.socket) -> None:
    """Serves the page until it is stopped. Prints its address once, and a warning if other machines can open it.

    Args:
        pages: What is served.
        host: The same host as for :func:`bound`.
        listener: The socket of this host, from :func:`bound`. It is closed at the end.

    Raises:
        RunError: If the libraries for serving are not installed.
    """
    try:
        import uvicorn

        from experiments.web.application import application
        from experiments.web.protection import LOOPBACK
    except ModuleNotFoundError as error:
        raise RunError(f"the page needs {error.name}: {install_command('app')}") from error
    is_own = host in LOOPBACK
    if not is_own:
        print(
            f"warning: whoever reaches {host} can open this page. It has no accounts and no encryption: put a reverse "
            "proxy that has both in front of it, or leave out `host`, so that only this machine can open the page."
        )
    config = uvicorn.Config(
        application(*pages, hosts=LOOPBACK if is_own else None),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    print(f"the page  {_address(host, listener)}\nCtrl-C stops it; answers are kept.", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _address(host: str, listener: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def session_table(options: Options) -> tuple[Table, str]:
    """A table of simulated sessions that compares the agent's lists with cosine's, and the result in a sentence.

    Each visitor answers by a planted truth of their own.

    Args:
        options: The entries of ``conf/app.yaml``. ``sessions`` is the number of sessions, ``seed`` the first seed.

    Raises:
        RunError: If ``sessions`` is not between 1 and the number of held-out applicants.
    """
    market, agents = _started(options)
    held_out = market.applicants.rows("test")
    n = options["sessions"]
    if not 1 <= n <= len(held_out):
        raise RunError(f"`sessions` must be in [1, {len(held_out)}], one for each held-out applicant, got {n}.")
    people = np.random.default_rng(options["seed"]).choice(held_out, n, replace=False)
    found = honest_sessions(agents, market, people.tolist(), options["seed"], options["truth"]["noise"], _ANSWERS)
    header = ["visitor", f"list after {_ANSWERS} answers", "cosine's list", "the ten best"]
    rows = [[one.applicant, f"{one.agent:.3f}", f"{one.cosine:.3f}", f"{one.best:.3f}"] for one in found]
    n_better = sum(one.agent > one.cosine for one in found)
    return (header, rows), f"By the planted truth the agent's list beats cosine's in {n_better} of {n} sessions."


def _started(options: Options) -> tuple[LabourMarket, StartingAgents]:
    for name in ("n_nearest", "most_visits", "most_visitors"):
        require_whole(name, options[name], 1, MOST)
    start = options["start"]
    require_whole("start.interactions", start["interactions"], 0, MOST)
    require_whole("career.interactions", options["career"]["interactions"], 1, MOST)
    require_switch("career.learn", options["career"]["learn"])
    market = market_of(options["source"])
    return market, StartingAgents(Path(options["folder"]) / "start", market, int(start["interactions"]), start["truth"])
