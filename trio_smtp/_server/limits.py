# Limits for connections and failed logins, in all and for each host. Counts alone: it knows no connection and no clock.
from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from .._protocol.hosts import ip_address, plain_host
from .._protocol.replies import Reply
from .._protocol.server.config import Network

MAX_HOSTS: Final = 10_000  # whose failures are remembered; the one that failed longest ago is forgotten first
FULL: Final = Reply(421, "too many connections, try again later", "4.3.2", close=True)
FULL_FOR_HOST: Final = Reply(421, "too many connections from your host", "4.7.0", close=True)


def network_of(host: str) -> str:
    """What counts as one host: an IPv4 address, or an IPv6 /64, which is what one customer gets."""
    address = ip_address(plain_host(host))
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host if address is None else str(address)


def is_within(host: str | None, networks: Iterable[Network]) -> bool:
    """Whether a host's address is in one of these networks."""
    address = ip_address(plain_host(host)) if host is not None else None
    if address is None:
        return False
    return any(address in network for network in networks)


class ConnectionLimits:
    """Slots for connections, in all and for each host.

    Args:
        total: connections at one time, or ``None``.
        per_host: the same for one host, or ``None``.

    Attributes:
        in_use: slots that are taken.
    """

    def __init__(self, total: int | None, per_host: int | None) -> None:
        self._total: int | None = total
        self._per_host: int | None = per_host
        self._hosts: Counter[str] = Counter()
        self.in_use: int = 0

    def __repr__(self) -> str:
        return f"<ConnectionLimits: {self.in_use} in use, of {len(self._hosts)} hosts>"

    def take_slot(self, host: str | None) -> Reply | None:
        """Take a slot, to be given back by :meth:`release`; or return the reply for one connection too many.

        Where no slot is left at all, a host that has all of its own is told of that limit.
        """
        if self._total is not None and self.in_use >= self._total:
            return FULL_FOR_HOST if self._host_is_full(host) else FULL
        refusal = self.take_host_slot(host)
        if refusal is None:
            self.in_use += 1
        return refusal

    def _host_is_full(self, host: str | None) -> bool:
        return host is not None and self._per_host is not None and self._hosts[network_of(host)] >= self._per_host

    def take_host_slot(self, host: str | None) -> Reply | None:
        """The same for the host alone: its connection has a slot already, but its host was not known."""
        if host is not None and self._per_host is not None:
            network = network_of(host)
            if self._hosts[network] >= self._per_host:
                return FULL_FOR_HOST
            self._hosts[network] += 1
        return None

    def release(self, host: str | None) -> None:
        """Give a slot back, and the host's unless it is ``None``."""
        self.in_use -= 1
        if host is not None and self._per_host is not None:
            network = network_of(host)
            self._hosts[network] -= 1
            if not self._hosts[network]:
                del self._hosts[network]


class FailureLimit:
    """Failed authentications of each host, over all its connections and within a time.

    Args:
        limit: how many, in how many seconds; ``None`` counts none.
    """

    def __init__(self, limit: tuple[int, float] | None) -> None:
        self._count: int
        self._seconds: float
        self._count, self._seconds = limit or (0, 0.0)
        self._hosts: OrderedDict[str, deque[float]] = OrderedDict()  # when they failed, the latest host last

    def failures(self, host: str | None, now: float) -> int:
        """How many of the host's failures still count."""
        if host is None or (times := self._hosts.get(network := network_of(host))) is None:
            return 0
        while times and times[0] <= now - self._seconds:
            times.popleft()
        if not times:
            del self._hosts[network]
        return len(times)

    def is_reached(self, host: str | None, now: float) -> bool:
        """Whether the host has to wait before it tries again."""
        return bool(self._count) and self.failures(host, now) >= self._count

    def add(self, host: str | None, now: float) -> int:
        """Note a failure; returns how many there are."""
        if host is None or not self._count:
            return 0
        network = network_of(host)
        times = self._hosts.setdefault(network, deque(maxlen=self._count))
        times.append(now)
        self._hosts.move_to_end(network)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return self.failures(host, now)

    def forget(self, host: str | None) -> None:
        """Note a success."""
        if host is not None:
            self._hosts.pop(network_of(host), None)
