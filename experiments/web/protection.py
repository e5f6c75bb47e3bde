"""Refuses requests from other sites' pages, and requests that are too large or take too long."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "MOST_BYTES", "MOST_SECONDS", "Protection"]

MOST_BYTES = 256 * 1024
"""Largest size of a request, in bytes. The form parser would write a larger résumé to the disk."""

MOST_SECONDS = 60.0
"""How long a request may take to arrive."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class _Refused(Exception):
    """The body of a request is refused, with the response in ``args``."""


class Protection:
    """Middleware that refuses large or slow requests and requests from other sites' pages, and adds security headers.

    A request whose sender goes away before it is complete has no effect, and nothing is logged of it.

    Args:
        app: The application that answers all other requests.
        hosts: Host names by which requests may address the server; ``None`` for any. The names matter because another
            site's page could reach a server on loopback by a host name that points there (DNS rebinding).
        most_seconds: How long the body of a request may take to arrive.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, most_seconds: float = MOST_SECONDS):
        self._app = app
        self._hosts = hosts
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        n_bytes, is_whole, has_begun = 0, False, False
        ends = asyncio.get_running_loop().time() + self._most_seconds

        async def limited() -> Message:
            nonlocal n_bytes, is_whole
            try:
                async with asyncio.timeout_at(None if is_whole else ends):
                    message = await receive()
            except TimeoutError:
                raise _Refused(_too_slow(self._most_seconds)) from None
            n_bytes += len(message.get("body", b""))
            if n_bytes > MOST_BYTES:
                raise _Refused(_too_large())
            is_whole = not message.get("more_body", False)
            return message

        async def with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                shown = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    shown[name] = value
                shown.setdefault("cache-control", "no-store")
            await send(message)

        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        try:
            await self._app(scope, limited, with_headers)
        except ClientDisconnect:
            return
        except _Refused as error:
            if has_begun:
                raise
            await error.args[0](scope, receive, with_headers)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            known = ", ".join(self._hosts)
            return PlainTextResponse(f"This server is called {known}, and not {host[:80]!r}.", 400)
        if method not in ("GET", "HEAD"):
            origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
            is_own = origin is None or origin.partition("://")[2] == host
            if not is_own or site not in ("same-origin", "none"):
                return PlainTextResponse("This request comes from a page of another site.", 403)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MOST_BYTES:
            return _too_large()
        return None


def _too_large() -> PlainTextResponse:
    return PlainTextResponse(f"A request may have {MOST_BYTES // 1024} kB at most.", 413, {"connection": "close"})


def _too_slow(seconds: float) -> PlainTextResponse:
    return PlainTextResponse(f"A request may take {seconds:g} seconds at most.", 408, {"connection": "close"})


def _name(host: str) -> str:
    """The host name in a header ``Host``, without the port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # "[" begins an address that does not end
        return ""
