# Which hosts to connect to, in order of preference; those that failed lately come last for a while.
from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias, cast

import trio

from .._client.opening import check_host
from .._client.reaching import address_name

Host: TypeAlias = "str | tuple[str, int | None]"
"""A host's name or address, with or without a port."""
HostsLike: TypeAlias = "str | Sequence[Host] | Callable[[], Awaitable[str | Sequence[Host]]]"
"""One host, several in order of preference, or an async function that is asked for them."""
Route: TypeAlias = "tuple[str, int | None]"


class Hosts:
    """The servers of a pool.

    Args:
        hosts: a name, a sequence of names or ``(name, port)`` pairs, or an async callable that returns one of these
            and is called for each new connection.
        port: for names without a port of their own.
        rest: seconds for which a host that failed is tried last.

    Raises:
        TypeError, ValueError: it is none of these, or empty.
    """

    __slots__ = ("_ask", "_failed_until", "_port", "_rest", "_routes")

    def __init__(self, hosts: HostsLike, port: int | None, rest: float) -> None:
        self._port: int | None = port
        self._rest: float = rest
        self._failed_until: dict[Route, float] = {}
        self._ask: Callable[[], Awaitable[str | Sequence[Host]]] | None = None
        self._routes: list[Route] = []
        if callable(hosts):
            self._ask = hosts
        else:
            self._routes = self._checked(hosts)

    def __str__(self) -> str:
        return ", ".join(name for name, _ in self._routes) or "hosts to be asked for"

    async def routes(self) -> list[Route]:
        """Hosts and ports to try, one after the other."""
        if self._ask is not None:
            answer: object = self._ask()
            if not inspect.isawaitable(answer):
                raise TypeError(f"host, where it is a function, must be async: it returned {answer!r:.80}")
            self._routes = self._checked(await answer)
        now = trio.current_time()
        # Stable: within those that failed lately, and within the others, the order is that of preference.
        return sorted(self._routes, key=lambda route: self._failed_until.get(route, 0) > now)

    def failed(self, route: Route) -> None:
        """A host could not be reached: try it last for a while."""
        now = trio.current_time()
        self._failed_until = {key: until for key, until in self._failed_until.items() if until > now}
        self._failed_until[route] = now + self._rest

    def succeeded(self, route: Route) -> None:
        """A host was reached."""
        self._failed_until.pop(route, None)

    def _checked(self, hosts: str | Sequence[Host]) -> list[Route]:
        if isinstance(hosts, str):
            hosts = [hosts]
        elif isinstance(hosts, tuple) and len(hosts) == 2 and isinstance(hosts[1], int):
            hosts = [cast("tuple[str, int]", hosts)]
        elif not isinstance(hosts, Iterable) or isinstance(hosts, bytes):
            raise TypeError(f"host is a name, several, or an async callable that returns them, not {hosts!r:.80}")
        routes: list[Route] = []
        for host in hosts:
            pair = (host, self._port) if isinstance(host, str) else host
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
                raise TypeError(f"a host is a name, or a pair of name and port, not {host!r}")
            name, port = pair
            check_host(name)
            if port is not None and (isinstance(port, bool) or not isinstance(port, int)):
                raise TypeError(f"a port is a whole number, not {port!r}")
            if port is not None and not 0 < port < 65536:
                raise ValueError(f"a port is a number from 1 to 65535, not {port}")
            routes.append((name, port if port is not None else self._port))
        if not routes:
            raise ValueError("there is no host to connect to")
        return list(dict.fromkeys(routes))


def name_of(route: Route) -> str:
    """A host as logs and traces show it."""
    return address_name(*route)
