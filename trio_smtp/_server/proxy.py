# The client behind a proxy: the PROXY header is read from the bare stream, before there is a connection to speak of.
#
# Exactly its octets are read, never one more, so that whatever follows (SMTP, or a TLS handshake, which trio.SSLStream
# insists on reading by itself) is still in the stream and needs no handing over. A version 2 header takes three reads,
# a line one for two octets beyond the shortest; they are in the kernel's buffer already.
from __future__ import annotations

import trio

from .._protocol.errors import RemoteProtocolError
from .._protocol.proxy import ProxyHeader, ProxyReader


async def read_proxy_header(stream: trio.abc.ReceiveStream) -> ProxyHeader | None:
    """Read a PROXY header of either version; ``None`` where there is none, and the connection is to be closed.

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
