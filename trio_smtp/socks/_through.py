# Connections through a SOCKS proxy, by python-socks.
#
# Guarantees: a URL is checked when it is given, and no error or repr shows its password. SOCKS only: a server for mail
# speaks first, and python-socks may read its greeting together with an HTTP proxy's answer.
from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

import trio
from python_socks import ProxyError, ProxyType
from python_socks.async_.trio import Proxy

from trio_smtp import Connect, ConnectError, Delivery, Stage

# What the scheme says: the protocol, and whether the proxy looks names up. In SOCKS 5 it always does here: a name that
# is looked up at home tells the home network about it.
_SCHEMES: Final = {
    "socks5": (ProxyType.SOCKS5, True),
    "socks5h": (ProxyType.SOCKS5, True),
    "socks4": (ProxyType.SOCKS4, False),
    "socks4a": (ProxyType.SOCKS4, True),
}
_PORT: Final = 1080
_FOREVER: Final = 1e9  # seconds; the limit is ClientConfig.connect_timeout


def connect_through(url: str) -> Connect:
    """Make a ``connect=`` for :func:`trio_smtp.open_client` and :func:`trio_smtp.open_pool`.

    Args:
        url: ``socks5://`` or ``socks4a://`` (the proxy looks names up), or ``socks4://`` (this machine does); user name
            and password, percent-encoded, for a SOCKS 5 proxy that wants them; the host, and the port, which is 1080 if
            not given. ``socks5h`` is ``socks5``.

    Returns:
        An async callable that takes a host and a port and returns a ``trio.SocketStream``, at whose other end is that
        host. It raises ConnectError, and is bounded by ``ClientConfig.connect_timeout``. Cancelled, it leaves nothing
        open.

    Raises:
        TypeError: `url` is not a str.
        ValueError: it is not the URL of a SOCKS proxy.
    """
    if not isinstance(url, str):
        raise TypeError(f"the proxy's URL must be a str, not {type(url).__name__}")
    return _Through(url)


class _Through:
    """Connects through one proxy."""

    __slots__ = ("_host", "_make", "_name", "_port", "_remote_lookup")

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        except ValueError:  # whose text may quote the password
            raise ValueError("the proxy's URL is not one") from None
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"a proxy's URL begins with {', '.join(_SCHEMES)}, not {parts.scheme!r}")
        if not host or parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
            raise ValueError("a proxy's URL has a host, maybe a port, and nothing behind it")
        kind, self._remote_lookup = _SCHEMES[parts.scheme]
        if (user is None) != (password is None) and kind is ProxyType.SOCKS5:
            raise ValueError("a proxy's URL has a user name and a password, or neither")
        if password and kind is not ProxyType.SOCKS5:
            raise ValueError("SOCKS 4 has no passwords")
        self._name = f"{parts.scheme}://{'[' + host + ']' if ':' in host else host}:{port or _PORT}"
        self._make = Proxy(
            kind,
            host,
            port or _PORT,
            unquote(user) if user is not None else None,
            unquote(password) if password is not None else None,
            self._remote_lookup,
        )

    def __repr__(self) -> str:
        return f"<trio_smtp.socks.connect_through {self._name}>"

    async def __call__(self, host: str, port: int) -> trio.SocketStream:
        try:
            socket = await self._make.connect(host, port, timeout=_FOREVER)
        except (ProxyError, OSError, UnicodeError, ValueError) as exc:
            raise ConnectError(
                f"cannot connect to {host}:{port} through {self._name}: {_reason(exc)}",
                stage=Stage.CONNECT,
                delivery=Delivery.NOT_SENT,
            ) from exc
        return trio.SocketStream(socket)


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__
