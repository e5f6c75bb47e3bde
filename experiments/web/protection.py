"""Refuses requests from other sites' pages, and requests that are too large."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "MOST_BYTES", "Protection"]

MOST_BYTES = 256 * 1024
"""Largest size of a request, in bytes. The form parser would write a larger résumé to the disk."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class _TooLarge(Exception):
    """The body of a request is larger than :data:`MOST_BYTES`."""


class Protection:
    """Middleware that refuses large requests and requests from other sites' pages, and adds security headers.

    Args:
        app: The application that answers all other requests.
        hosts: Host names by which requests may address the server; ``None`` for any. The names matter because another
            site's page could reach a server on loopback by a host name that points there (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None):
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        n_bytes, has_begun = 0, False

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > MOST_BYTES:
                raise _TooLarge
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
            await self._app(scope, counted, with_headers)
        except _TooLarge:
            if has_begun:
                raise
            await _too_large()(scope, receive, with_headers)

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


def _name(host: str) -> str:
    """The host name in a header ``Host``, without the port; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # "[" begins an address that does not end
        return ""
