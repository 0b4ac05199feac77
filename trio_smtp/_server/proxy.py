# The client behind a proxy: the PROXY header is read from the bare stream, before the session begins.
#
# Exactly its octets are read, so that what follows (SMTP, or a TLS handshake, which trio.SSLStream must read by itself)
# is still in the stream. A version 2 header takes three reads; a version 1 line takes one for every two octets beyond
# the shortest line. The octets are in the kernel's buffer already.
from __future__ import annotations

import trio

from .._protocol.errors import RemoteProtocolError
from .._protocol.proxy import ProxyHeader, ProxyReader


async def read_proxy_header(stream: trio.abc.ReceiveStream) -> ProxyHeader | None:
    """Read a PROXY header of either version; ``None`` if there is none: the connection must be closed then.

    Cancelling it leaves the stream in the middle of the header.
    """
    reader = ProxyReader()
    header: ProxyHeader | None = None
    try:
        while header is None:
            data = await stream.receive_some(reader.wanted)
            if not data:
                return None
            header = reader.receive_data(data)
    except (RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
        return None
    return header
