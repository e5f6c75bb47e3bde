"""An OpenAI-compatible server on the loopback interface that behaves, and misbehaves, as it is told."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jobrec_gym.simulators import redis_cache
from jobrec_gym.simulators.redis_cache import RedisAnswerCache
from jobrec_gym.simulators.sqlite_cache import AnswerCache
from jobrec_gym.simulators.stores import open_cache

Reply = dict[str, Any]


def says(
    content: str | None, finish: str = "stop", tokens: tuple[int, int] | None = (100, 10), **message: Any
) -> Reply:
    """A completion with some content; ``tokens`` None for a server that does not say what it took."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return {"status": 200, "choice": choice, "tokens": tokens}


def decides(word: str, reason: str = "fits") -> Reply:
    """A completion of mode decision."""
    return says(json.dumps({"reason": reason, "decision": word}))


def leans(yes: float) -> Reply:
    """A completion of mode probability, with the token probabilities of Yes and No."""
    reply = says(json.dumps({"apply": "Yes" if yes >= 0.5 else "No"}, separators=(",", ":")))
    words = [{"token": word, "logprob": math.log(p)} for word, p in (("Yes", 0.9 * yes), ("No", 0.9 * (1 - yes)))]
    tokens = ['{"', "apply", '":"', "Yes" if yes >= 0.5 else "No", '"}']
    reply["choice"]["logprobs"] = {
        "content": [
            {"token": token, "logprob": 0.0, "top_logprobs": words if token in ("Yes", "No") else []}
            for token in tokens
        ]
    }
    return reply


def fails(status: int, **headers: str) -> Reply:
    """An error of the server."""
    return {"status": status, "headers": headers}


def errs(status: int, message: str, code: str | None = None) -> Reply:
    """An error of the server in its own words, with a code."""
    return {"status": status, "error": {"message": message, "type": code, "code": code}}


def sends(body: Any) -> Reply:
    """A reply of any form."""
    return {"status": 200, "body": body}


def sends_bytes(data: bytes) -> Reply:
    """A reply that is these bytes, status line and headers among them; the connection is closed behind it."""
    return {"status": 200, "bytes": data}


def sleeps(seconds: float, then: Reply) -> Reply:
    """A reply that comes late."""
    return {**then, "sleep": seconds}


def waits(event: threading.Event, then: Reply) -> Reply:
    """A reply that comes when something has happened, or after an hour."""
    return {**then, "waits": event}


def trickles(seconds: float, then: Reply) -> Reply:
    """A reply whose first bytes are blanks, one every tenth of a second."""
    return {**then, "trickle": seconds}


def lapse_claims(where: str | Path) -> None:
    """Lets claims of dead processes lapse, as they do when the time of a call is over, but at once."""
    store = open_cache(where)
    if isinstance(store, AnswerCache):
        with store.transaction() as connection:
            connection.execute("UPDATE claims SET until = 0")
    elif isinstance(store, RedisAnswerCache):
        for claim in list(store._client.scan_iter(f"{redis_cache._CLAIMS}*")):
            store._client.delete(claim)
    store.close()


DROPS: Reply = {"status": 0}
"""The connection is closed without a reply."""


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class FakeLLM:
    """The server and what it was asked.

    Attributes:
        api_base: Its address.
        requests: Each request's body, in the order of arrival.
        most_at_once: The most requests that were open at a time.
    """

    def __init__(self, script: Callable[[dict[str, Any], int], Reply], port: int = 0):
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = self._open = 0
        self._lock = threading.Lock()
        self._script = script
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                fake._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.api_base = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def calls(self) -> int:
        """How many requests came."""
        return len(self.requests)

    def calls_once_there(self, wanted: int) -> int:
        """How many requests came, once there are as many as wanted: one that its client gave up may come late."""
        deadline = time.monotonic() + 3_600.0
        while self.calls < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.calls

    def asked(self) -> list[str]:
        """The user's message of each request."""
        return [request["messages"][1]["content"] for request in self.requests]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization") or handler.headers.get("api-key", ""))
            number = len(self.requests)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        try:
            reply = self._script(body, number)
            time.sleep(reply.get("sleep", 0.0))
            if "waits" in reply:
                reply["waits"].wait(3_600.0)
            self._send(handler, body, reply)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up
        finally:
            with self._lock:
                self._open -= 1

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, body: dict[str, Any], reply: Reply) -> None:
        if reply["status"] == 0:
            handler.close_connection = True
            handler.connection.close()
            return
        if "bytes" in reply:
            handler.wfile.write(reply["bytes"])
            handler.close_connection = True
            return
        answer: Any
        if "body" in reply:
            answer = reply["body"]
        elif "error" in reply:
            answer = {"error": reply["error"]}
        elif reply["status"] == 200:
            tokens_in, tokens_out = reply["tokens"] or (0, 0)
            usage = {
                "prompt_tokens": tokens_in,
                "completion_tokens": tokens_out,
                "total_tokens": tokens_in + tokens_out,
            }
            answer = {
                "id": "fake",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [reply["choice"]],
                "usage": usage if reply["tokens"] else None,
            }
        else:
            answer = {"error": {"message": f"fake {reply['status']}", "type": "fake", "code": reply["status"]}}
        data = json.dumps(answer).encode()
        handler.send_response(reply["status"])
        for name, value in {"Content-Type": "application/json", **reply.get("headers", {})}.items():
            handler.send_header(name.replace("_", "-"), value)
        blanks = int(10 * reply.get("trickle", 0.0))
        handler.send_header("Content-Length", str(len(data) + blanks))
        handler.end_headers()
        for _ in range(blanks):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
        handler.wfile.write(data)


@contextlib.contextmanager
def serving(script: Callable[[dict[str, Any], int], Reply] | Reply) -> Iterator[FakeLLM]:
    """A fake server while the block runs; a fixed reply or a function of the request and its number from 1."""
    fake = FakeLLM(script if callable(script) else lambda body, number: script)
    fake._thread.start()
    try:
        yield fake
    finally:
        fake._server.shutdown()
        fake._server.server_close()
