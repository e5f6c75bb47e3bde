"""Measures how long an answer takes, and how much memory the server needs, with many visitors at once."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from experiments.runs.folders import RunError
from experiments.runs.numbers import is_number
from experiments.runs.tables import Table
from jobrec_gym import load_market
from jobrec_gym.simulators.base import DECISIONS

__all__ = ["measured", "port_of"]

_PAUSE = 2.0  # seconds from one answer of a visitor to the next
_WARM_UP = 2  # the first answers of each visitor do not count
_JOB = re.compile(r'name="job" value="([^"]+)"')
_LONGEST_START = 300.0
_MOST = 300


def measured(n_visitors: int, seconds: float) -> Table:
    """Starts a server of its own, and lets visitors answer, each every two seconds.

    An answer is timed from the click to the complete new page. That is two requests: one sends the answer, one loads
    the next page. The server's processor time is given too, because it does not depend on how busy the machine is.

    Args:
        n_visitors: How many visitors at once, 1 to 300.
        seconds: For how long they answer.

    Returns:
        A table with one row.

    Raises:
        RunError: If a number is out of range, the server does not start, or it refuses an answer.
    """
    is_count = isinstance(n_visitors, int) and not isinstance(n_visitors, bool) and 1 <= n_visitors <= _MOST
    if not is_count or not is_number(seconds) or seconds <= 0:
        got = f"{n_visitors!r:.80} and {seconds!r:.80}"
        raise RunError(f"`load` must be in [1, {_MOST}] and `seconds` above 0, a finite number, got {got}.")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["port=0", f"folder={folder}", "career.learn=false", f"most_visits={n_visitors + 8}"]
        command = [sys.executable, "-m", "experiments.app", *arguments]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            port = port_of(server)
            visitors = asyncio.run(_begun(port, n_visitors))
            before = _cpu_seconds(server.pid)
            times, n_answers = asyncio.run(_answering(port, visitors, seconds))
            spent = _cpu_seconds(server.pid) - before
            memory = _memory(server.pid)
        finally:
            server.terminate()
            server.wait(30)
    header = ["visitors", "answers", "median ms", "95 % ms", "most ms", "CPU ms an answer", "memory MB"]
    found = np.array(times) * 1_000
    cpu = "not known here" if np.isnan(spent) else f"{1_000 * spent / n_answers:.0f}"
    figures = (np.median(found), np.quantile(found, 0.95), found.max())
    return header, [[str(n_visitors), f"{len(found):,}", *(f"{one:.0f}" for one in figures), cpu, memory]]


async def _begun(port: int, n: int) -> list[str]:
    """The cookies of new visitors, held-out applicants of the default market."""
    market = load_market("default")
    people = np.random.default_rng(0).choice(market.applicants.rows("test"), n, replace=False)
    cookies = []
    for person in map(market.applicant, people.tolist()):  # one after the other: only answers are timed
        skills = [*person.hard_skills, *person.soft_skills]
        form = [("occupation", person.title), *(("skill", skill) for skill in skills), ("level", str(person.seniority))]
        head, _ = await _asked(port, "POST", "/start", urlencode(form))
        cookies.append(re.search(r"set-cookie: ([^;]+)", head)[1])  # type: ignore[index]
    return cookies


async def _answering(port: int, cookies: list[str], seconds: float) -> tuple[list[float], int]:
    """The times of answers in seconds, without the first ones of each visitor, and the number of all answers."""
    waits = np.random.default_rng(1).random(len(cookies)) * _PAUSE
    ends = time.monotonic() + seconds + _WARM_UP * _PAUSE
    found = await asyncio.gather(
        *(_one(port, cookie, wait, ends) for cookie, wait in zip(cookies, waits.tolist(), strict=True))
    )
    return [one for times in found for one in times[_WARM_UP:]], sum(map(len, found))


async def _one(port: int, cookie: str, wait: float, ends: float) -> list[float]:
    """Plays one visitor; returns how long each answer took, in seconds."""
    _, page = await _asked(port, "GET", "/", cookie=cookie)
    times: list[float] = []
    await asyncio.sleep(wait)
    while time.monotonic() < ends:
        began = time.monotonic()
        job = _JOB.search(page)
        if job is None:
            raise RunError("the page shows no job to a visitor.")
        decision = DECISIONS[(len(times) * 7 + int(wait * 1_000)) % len(DECISIONS)]
        await _asked(port, "POST", "/answer", urlencode({"job": job[1], "decision": decision}), cookie)
        _, page = await _asked(port, "GET", "/", cookie=cookie)
        times.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, _PAUSE - times[-1]))
    return times


async def _asked(port: int, method: str, address: str, body: str = "", cookie: str = "") -> tuple[str, str]:
    """Head and body of the server's response. The server writes the names of headers in lower case."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {address} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: close", f"Cookie: {cookie}"]
    lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}", "", body]
    writer.write("\r\n".join(lines).encode())
    head, _, page = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status = head.split(" ", 2)[1]
    if status not in ("200", "303"):
        raise RunError(f"the server answered {method} {address} with {status}: {page[:200]}")
    return head, page


def port_of(server: subprocess.Popen[str]) -> int:
    """The port that a server of this page prints when it has started.

    Raises:
        RunError: If the server ends, or takes too long, before it prints one.
    """
    assert server.stdout is not None
    said = []
    began = time.monotonic()
    for line in server.stdout:
        said.append(line)
        if found := re.match(r"the page +http://127\.0\.0\.1:(\d+)", line):  # an error may name another server's
            return int(found[1])
        if time.monotonic() - began > _LONGEST_START:
            break
    raise RunError(f"the server did not start: {''.join(said)[-500:]}")


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, in seconds; NaN if the system does not tell it."""
    status = Path(f"/proc/{pid}/stat")
    if not status.is_file():
        return float("nan")
    fields = status.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> str:
    """The peak resident memory of a process in MB, as a text, if the system tells it."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return "not known here"
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
    return "not known here" if found is None else f"{int(found[1]) / 1_000:,.0f}"
