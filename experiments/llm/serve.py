"""``python -m experiments.llm.serve model=PATH.gguf``: serves a language model at an OpenAI-compatible address."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from experiments.runs.command import command
from jobrec_gym.extras import install_command

__all__ = ["ServerError", "serve"]

_STARTUP_SECONDS = 300.0


class ServerError(RuntimeError):
    """A server of a language model did not start."""


@contextlib.contextmanager
def serve(
    model: str | Path, *, port: int = 0, threads: int = 1, context: int = 4096, name: str | None = None
) -> Iterator[str]:
    """Serves a GGUF file on the loopback interface while the block runs.

    One request is answered at a time, so that an answer depends only on the request. With ``threads`` above 1 on a busy
    machine a decision can take ten times as long.

    Args:
        model: Path of the weights.
        port: Port to listen on; 0 takes a free one.
        threads: Threads that compute.
        context: Most tokens of a request and its answer together.
        name: Name of the model in requests; by default the file's name without its ending.

    Yields:
        The address for ``api_base``, e.g. ``http://127.0.0.1:8080/v1``, once the model answers there.

    Raises:
        ImportError: If the extra ``local-llm`` is not installed.
        FileNotFoundError: If there is no such file.
        ServerError: If the server cannot start, or is not ready within five minutes.
    """
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(f"`model` must be a GGUF file, and {str(path)!r} is not a file.")
    try:
        from xllamacpp import CommonParams, Server
    except ImportError as error:
        raise ImportError(f"serving a local model needs an extra: {install_command('local-llm')}") from error
    params = CommonParams()
    params.model.path = str(path)
    params.model_alias = {name or path.stem}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = context
    params.n_parallel = 1
    params.offline = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    try:
        server = Server(params)
    except RuntimeError as error:
        raise ServerError(f"the server of {path} cannot start: {error}") from error
    try:
        _wait_until_ready(server.listening_address)
        yield f"{server.listening_address}/v1"
    finally:
        del server


def _wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:  # not listening yet, or still loading the weights
            time.sleep(0.1)
    raise ServerError(f"the server at {address} was not ready in {_STARTUP_SECONDS:.0f} seconds.")


@command(config_path="../../conf", config_name="serve")
def main(cfg: DictConfig) -> None:
    """Serves until it is interrupted or terminated."""
    if cfg.model is None:
        raise SystemExit("error: say which weights: python -m experiments.llm.serve model=PATH.gguf")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with serve(cfg.model, port=cfg.port, threads=cfg.threads, context=cfg.context, name=cfg.name) as address:
        name = cfg.name or Path(cfg.model).stem
        print(f"serving {name} at {address} (stop with Ctrl-C)", flush=True)
        print(f"use it: LLMSimulator('openai/{name}', api_base='{address}', api_key='none')", flush=True)
        stopped.wait()


if __name__ == "__main__":
    main()
