# The client behind a proxy: the PROXY header is read from the bare stream, before the session begins.
#
# Exactly its octets are read, so that what follows (SMTP, or a TLS handshake, which trio.SSLStream must read by itself)
# is still in the stream. A version 2 header takes three reads; a version 1 line takes one for every two octets beyond
# the shortest line. The octets are in the kernel's buffer already.
from __future__ import annotations

import trio

from .._protocol.errors import ConnectionLostError, RemoteProtocolError
from .._protocol.proxy import ProxyHeader, ProxyReader


async def read_proxy_header(stream: trio.abc.ReceiveStream) -> ProxyHeader:
    """Read a PROXY header of either version; where there is none, the connection must be closed.

    Cancelling it leaves the stream in the middle of the header.

    Raises:
        RemoteProtocolError: it is no header, or not all of one.
        ConnectionLostError: not one octet came, as from a proxy that only looks whether the server is there.
    """
    reader = ProxyReader()
    header: ProxyHeader | None = None
    has_begun = False
    while header is None:
        try:
            data = await stream.receive_some(reader.wanted)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        if not data:
            ended = "the connection ended before its PROXY header"
            raise RemoteProtocolError(ended) if has_begun else ConnectionLostError(ended)
        has_begun = True
        header = reader.receive_data(data)
    return header
