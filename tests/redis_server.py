"""Debian's Redis server on a free loopback port, as its own process, started, killed and started again."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

REASON = "needs a Redis server (apt-get install redis-server) and the extra 'redis'"


def is_there() -> bool:
    """Whether server and client are installed."""
    try:
        import redis  # noqa: F401
    except ImportError:
        return False
    return shutil.which("redis-server") is not None


class RedisServer:
    """A server with its files in a folder.

    Attributes:
        address: As ``cache`` takes it.
    """

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            ["redis-server", *place, *durable, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"redis-server ended with {self.process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as there:
                there.sendall(b"PING\r\n")
                said = there.recv(64)
                if said.startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.05)

    def kill(self) -> None:
        """Kills it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None


@contextlib.contextmanager
def serving_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server while the block runs."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            server.kill()
