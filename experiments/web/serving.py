"""Puts the page together from a config's entries, and serves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.runs.folders import RunError
from experiments.runs.tables import Table
from experiments.web.agents import StartingAgents, market_of
from experiments.web.careers import Careers
from experiments.web.somebody import honest_sessions
from experiments.web.visitors import VisitorFiles
from experiments.web.visits import Visits
from jobrec_gym import LabourMarket
from jobrec_gym.extras import install_command

__all__ = ["Pages", "pages_of", "serve", "session_table"]

Options = Mapping[str, Any]
Pages = tuple[Visits, Careers]

_ANSWERS = 10


def pages_of(options: Options) -> Pages:
    """What the page is made of; agents that are not there yet are made, which takes seconds.

    Args:
        options: The entries of ``conf/app.yaml``, in plain Python.

    Raises:
        RunError: For an entry out of range, a market that is not there, or agents of another market.
        EncoderError: If the encoder is not there.
    """
    market, agents = _started(options)
    folder = Path(options["folder"])
    # All that can be ticked is encoded now, once: no visitor waits for it, and whoever has no encoder is told so here.
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
    career = options["career"]
    careers = Careers(
        folder / "careers",
        options["source"],
        market,
        career["gammas"],
        career["interactions"],
        options["truth"],
        career["learn"],
    )
    return visits, careers


def serve(pages: Pages, host: str, port: int) -> None:
    """Serves until it is stopped. It says once where, and whether others can reach it.

    Raises:
        RunError: Without the libraries that serve.
        OSError: If the port is taken.
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
            f"warning: whoever reaches {host} can open this page. It has no accounts and no encryption: put a server "
            "that has both before it, or leave `host` as it is."
        )
    config = uvicorn.Config(
        application(*pages, hosts=LOOPBACK if is_own else None),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    socket = config.bind_socket()
    socket.listen()  # whoever comes at once waits, and is not refused
    shown = f"[{host}]" if ":" in host else host
    print(f"the page  http://{shown}:{socket.getsockname()[1]}\nCtrl-C stops it; answers are kept.", flush=True)
    try:
        uvicorn.Server(config).run(sockets=[socket])
    finally:
        socket.close()


def session_table(options: Options) -> tuple[Table, str]:
    """Sessions of simulated visitors, each by a truth of their own: their lists beside cosine's, and who is better.

    Args:
        options: The entries of ``conf/app.yaml``; ``sessions`` and ``seed`` say how many, and of which truths.
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
    return (header, rows), f"Better than cosine's list in {n_better} of {n} sessions, by the planted truth."


def _started(options: Options) -> tuple[LabourMarket, StartingAgents]:
    for name in ("n_nearest", "most_visits", "most_visitors"):
        if options[name] < 1:
            raise RunError(f"`{name}` must be at least 1, got {options[name]}.")
    market = market_of(options["source"])
    start = options["start"]
    return market, StartingAgents(Path(options["folder"]) / "start", market, start["interactions"], start["truth"])
