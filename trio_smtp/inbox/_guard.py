# The fence around the HTTP side: who may ask, and what a browser may do with an answer.
#
# The inbox has no login, so the browser of its own user is the danger: any page that it shows can send requests to
# loopback addresses. So a request must name a host that is ours (a name that another site has bound to 127.0.0.1 is
# none), and one that comes from another site's page is refused. The answers say that nothing in them may run or be
# fetched, unless they say otherwise themselves.
from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_log: Final = logging.getLogger("trio_smtp.inbox")
_READING: Final = frozenset({"GET", "HEAD"})
_ELSEWHERE: Final = frozenset({"cross-site", "same-site"})  # same-site: another port of this host

NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
MAIL: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)
_HEADERS: Final = {
    b"content-security-policy": NOTHING.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"x-dns-prefetch-control": b"off",
    b"cache-control": b"no-store",
}


class Guard:
    """An ASGI application around another one.

    Args:
        app: what is behind the fence.
        allow_hosts: names for the ``Host`` field beside those of the loopback interface, without ports.
    """

    def __init__(self, app: App, *, allow_hosts: Iterable[str]) -> None:
        self._app = app
        self._allowed = frozenset(host.lower().rstrip(".") for host in allow_hosts)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        elif refusal is not None:
            await _answer(send, 403, refusal)
        else:
            scope["path"] = "/" + scope["path"].lstrip("/")
            await self._serve(scope, receive, send)

    async def _serve(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _complete(message.get("headers", ()))}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # A bug of ours. It ends this request only.
            _log.exception("%s %s failed", scope.get("method", scope["type"]), scope["path"])
            if scope["type"] == "http" and not started:
                await _answer(send, 500, "an error in the inbox itself; its log has the traceback")

    def _refusal(self, scope: MutableMapping[str, Any]) -> str | None:
        """Why a request is not served."""
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "the Host field names no loopback address; --allow-host allows further names"
        is_write = scope["type"] == "websocket" or scope["method"] not in _READING
        for origin in headers.get(b"origin", []):
            if is_write and authority_of(origin) != hosts[0].lower():
                return "a page of another origin may not change anything here"
        site = "".join(headers.get(b"sec-fetch-site", []))
        is_navigation = headers.get(b"sec-fetch-mode") == ["navigate"] and not scope["path"].lstrip("/").startswith(
            "api/"
        )
        if site in _ELSEWHERE and (is_write or not is_navigation):
            return "a page of another site may not ask for anything here"
        return None

    def _is_ours(self, host: str) -> bool:
        name = host_name_of(host)
        if name is None:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def authority_of(origin: str) -> str | None:
    """Host and port of an origin."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def host_name_of(host: str) -> str | None:
    """The name or address of a ``Host`` field, without a port."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for one that is no number
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or parts.hostname is None:
        return None
    return parts.hostname.rstrip(".")


def _complete(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = list(headers)
    named = {name.lower() for name, _ in own}
    return own + [(name, value) for name, value in _HEADERS.items() if name not in named]


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": _complete(headers)})
    await send({"type": "http.response.body", "body": body})
