# A host's address in the one form in which hooks, limits and lists of networks see it.
from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def plain_host(host: str) -> str:
    """An IPv4 address that is written as an IPv6 one (``::ffff:192.0.2.1``) as what it is; all else as it is.

    A socket that listens on both families shows IPv4 clients so, and so do proxies that use one.
    """
    if ":" not in host:
        return host
    address = ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return host


def ip_address(host: str) -> IPAddress | None:
    """The address of a host, its scope left out; ``None`` if it is a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
