# A server's TLS on a plain socket: OpenSSL's memory buffers above a wire, instead of trio.SSLStream above a stream.
#
# Ciphertext comes and goes by the wire below, which has the deadlines and is broken or not. TLS adds two cases: what
# came is not a whole record yet, or a record was sent in part. What is encrypted cannot be taken back, since records
# are numbered: so the rest of it must be sent next. tls.py says what this wire saves.
from __future__ import annotations

import contextlib
import math
import ssl
from typing import ClassVar

from .._protocol.errors import ConnectionLostError
from .tls import ServerName, TLSEngine, TLSInfo, handshake_error
from .waits import Waits
from .wire import Octets, Wire


class TLSSocketWire(Wire):
    """TLS by a :class:`.tls.TLSEngine` over an immediate wire; made by :func:`serve_tls`.

    Args:
        below: carries the ciphertext; must not be used any more.
        waits: the connection's.
        engine: has completed its handshake.
        tls: what the handshake has told.
    """

    __slots__ = ("_below", "_engine", "_unsent")

    is_immediate: ClassVar[bool] = True

    def __init__(self, below: Wire, waits: Waits, engine: TLSEngine, tls: TLSInfo) -> None:
        super().__init__(waits, tls)
        self._below = below
        self._engine = engine
        self._unsent = b""  # the rest of the records of data that send_nowait() did not take

    @property
    def broken(self) -> bool:
        """Nothing more can be sent."""
        return self._below.broken

    def abort(self) -> None:
        """Mark the connection broken."""
        self._below.abort()

    def _lost(self) -> ConnectionLostError:
        self._below.abort()
        return ConnectionLostError("the connection was lost")

    # -- octets

    async def receive(self, deadline: float = math.inf) -> bytes:
        """Wait for the text of a record, or of several that are there together."""
        waits, engine, below = self._waits, self._engine, self._below
        if waits.reason is not None:
            waits.heed_reason()
        data: bytes | bytearray = b""
        while not engine.peer_has_closed:
            if not engine.has_input:
                data = await below.receive(deadline)
                if not data:  # AWS SES and others close TLS without close_notify
                    break
            try:
                text = engine.decrypt(data)
            except ssl.SSLError as exc:
                raise self._refused() from exc
            if text:
                return text
            if waits.reason is not None:  # woken together with the socket, by less than a record
                raise waits.take_reason() or self._lost()
        return b""

    def receive_nowait(self) -> bytes | None:
        """The text that is there already; ``None`` also where less than a record is."""
        engine = self._engine
        data: bytes | bytearray | None = b""
        while not engine.peer_has_closed:
            if not engine.has_input:
                data = self._below.receive_nowait()
                if not data:
                    return None if data is None else b""
            try:
                text = engine.decrypt(data or b"")
            except ssl.SSLError as exc:
                raise self._refused() from exc
            if text:
                return text
        return b""

    def _refused(self) -> ConnectionLostError:
        """OpenSSL does not take what was read: tell the peer, in an alert."""
        with contextlib.suppress(ConnectionLostError):
            self._below.send_nowait(self._engine.data_to_send())
        return self._lost()

    def send_nowait(self, data: Octets) -> int:
        """Encrypt, and give the socket the records: all octets of `data`, or none. Then :meth:`send` must follow."""
        below = self._below
        if self._unsent or below.broken:
            return 0
        try:
            records = self._engine.encrypt(data)
        except ssl.SSLError as exc:
            raise self._lost() from exc
        sent = below.send_nowait(records)
        if sent == len(records):
            return len(data)
        self._unsent = records[sent:]
        return 0

    async def send(self, data: Octets, deadline: float = math.inf) -> None:
        """Send everything, or what :meth:`send_nowait` has encrypted of the same `data` and could not send."""
        if not self._unsent:
            self.send_nowait(data)
        rest, self._unsent = self._unsent, b""
        if rest:
            await self._below.send(rest, deadline)
        elif self.broken:
            raise self._lost()

    # -- TLS

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        deadline: float = math.inf,
    ) -> Wire:
        """Not possible: there is TLS already."""
        raise TypeError(f"{self!r} is under TLS already")

    # -- the end

    async def aclose(self, within: float = 2.0) -> None:
        """Say close_notify, if the socket takes it, and close the socket."""
        self._send_close_notify()
        await self._below.aclose(within)

    async def aclose_lingering(self, within: float = 2.0, drop: int = 1 << 20) -> None:
        """Say close_notify, if the socket takes it, and close as the wire below does."""
        self._send_close_notify()
        await self._below.aclose_lingering(within, drop)

    def _send_close_notify(self) -> None:
        if not (self.broken or self._unsent):  # within a record nothing else can be said
            with contextlib.suppress(ConnectionLostError):
                self._below.send_nowait(self._engine.close_notify())


async def serve_tls(below: Wire, waits: Waits, context: ssl.SSLContext, deadline: float) -> TLSSocketWire:
    """Do a server's handshake over `below`; errors as :meth:`.wire.Wire.start_tls`."""
    engine = TLSEngine(context)
    try:
        with ServerName() as asked:
            data: bytes | bytearray = b""
            while not engine.do_handshake(data):
                await below.send(engine.data_to_send(), deadline)
                data = await below.receive(deadline)
                if not data:
                    raise handshake_error(None)
        if not engine.last_flight_can_wait:
            await below.send(engine.data_to_send(), deadline)
    except ssl.SSLError as exc:
        with contextlib.suppress(ConnectionLostError):
            below.send_nowait(engine.data_to_send())  # the alert
        raise handshake_error(exc) from exc
    return TLSSocketWire(below, waits, engine, engine.describe(context, asked.name))
