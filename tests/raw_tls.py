# A TLS client that can do what Python's ssl has no names for: key updates (TLS 1.3) and renegotiation (TLS 1.2).
from __future__ import annotations

import ctypes
import ssl
import sys
from typing import Any

import pytest
import trio
from tls_support import NAME, client_context

_OPENSSL: Any
try:
    import _ssl

    _OPENSSL = ctypes.CDLL(_ssl.__file__)
    _OPENSSL.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    _OPENSSL.SSL_renegotiate.argtypes = [ctypes.c_void_p]
except (ImportError, OSError, AttributeError):
    _OPENSSL = None
# Where the pointer to OpenSSL's own object stands in CPython's: behind the head of every object and one more pointer.
_OFFSET = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)

needs_openssl = pytest.mark.skipif(
    _OPENSSL is None or sys.implementation.name != "cpython" or sys.version_info >= (3, 14),
    reason="OpenSSL's own functions are out of reach",
)


class RawTLS:
    """A client's end of a TLS connection over any stream."""

    def __init__(self, stream: trio.abc.Stream, version: ssl.TLSVersion) -> None:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        self.stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=NAME)

    @property
    def _openssl(self) -> int | None:
        inner: Any = self._object
        return ctypes.c_void_p.from_address(id(inner._sslobj) + _OFFSET).value

    async def shake_hands(self) -> None:
        while True:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                self._incoming.write(await self.stream.receive_some())
            else:
                await self.flush()
                return

    async def flush(self) -> None:
        await self.stream.send_all(self._outgoing.read())

    async def send(self, data: bytes) -> None:
        self._object.write(data)
        await self.flush()

    async def receive(self) -> bytes:
        """What comes next; ``b""`` at the end."""
        while True:
            try:
                return self._object.read()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self.flush()
                data = await self.stream.receive_some()
                if not data:
                    return b""
                self._incoming.write(data)

    def update_keys(self) -> None:
        """Want new keys from both sides."""
        assert _OPENSSL is not None
        assert _OPENSSL.SSL_key_update(self._openssl, 1) == 1
        self._object.do_handshake()

    def renegotiate(self) -> None:
        assert _OPENSSL is not None
        assert _OPENSSL.SSL_renegotiate(self._openssl) == 1
        with pytest.raises(ssl.SSLWantReadError):
            self._object.do_handshake()
