# What hooks may know of a connection.
from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import SimpleNamespace

from .._protocol.envelope import Envelope
from .._protocol.proxy import ProxyHeader
from .._protocol.server.protocol import ServerProtocol
from .._wire.tls import TLSInfo


class Session:
    """One client's connection, as hooks see it. It survives STARTTLS and RSET.

    Attributes:
        id: a short random word for logs.
        peer: the client's host and port, ``None`` where the stream has none. Behind a trusted proxy they are what its
            PROXY header says, behind a trusted relay what its XCLIENT says.
        local: the host and port it connected to; likewise.
        proxy: the :class:`ProxyHeader` with which the connection began, or ``None``.
        tls: ``None`` or a :class:`TLSInfo`.
        envelope: the transaction: ``None`` outside one, set once MAIL is accepted.
    """

    __slots__ = ("__weakref__", "_identity", "_protocol", "_state", "envelope", "id", "local", "peer", "proxy", "tls")

    def __init__(self, protocol: ServerProtocol, peer: tuple[str, int] | None, local: tuple[str, int] | None) -> None:
        self._protocol = protocol
        self._identity: object = None
        self._state: SimpleNamespace | None = None
        self.id = secrets.token_hex(6)
        self.peer = peer
        self.local = local
        self.proxy: ProxyHeader | None = None
        self.tls: TLSInfo | None = None
        self.envelope: Envelope | None = None

    def _introduce(self, header: ProxyHeader) -> None:
        """Take who the client is from a trusted proxy (the server does this, before any hook)."""
        self.proxy = header
        if header.source is not None:
            self.peer = header.source
            self.local = header.destination

    def _reintroduce(self, attributes: Mapping[str, str | None]) -> None:
        """Take who the client is from a trusted relay's XCLIENT (the server does this)."""
        self._identity = self._protocol.xclient.get("LOGIN")
        self.peer = _named(self.peer, attributes, "ADDR", "PORT")
        self.local = _named(self.local, attributes, "DESTADDR", "DESTPORT")

    @property
    def xclient(self) -> Mapping[str, str | None]:
        """What a trusted relay has said by XCLIENT: attribute in upper case to value, ``None`` if it does not know.

        ``ADDR``, ``PORT``, ``DESTADDR``, ``DESTPORT``, ``HELO``, ``PROTO`` and ``LOGIN`` are in :attr:`peer`,
        :attr:`local`, :attr:`hello`, :attr:`esmtp` and :attr:`identity` already; ``NAME`` is only here.
        """
        return self._protocol.xclient

    @property
    def forwarded(self) -> Mapping[str, str | None]:
        """What a trusted relay has said by XFORWARD of the message to come: ``NAME``, ``ADDR``, ``PORT``, ``PROTO``,
        ``HELO``, ``IDENT``, ``SOURCE``, ``None`` for what it does not know. Forgotten with the transaction, and by
        RSET, EHLO, STARTTLS and XCLIENT.
        """
        return self._protocol.forwarded

    @property
    def host(self) -> str | None:
        """The client's address alone."""
        return self.peer[0] if self.peer is not None else None

    @property
    def hello(self) -> str | None:
        """The name given with EHLO, HELO or LHLO; forgotten by STARTTLS. A trusted relay's XCLIENT goes before it."""
        return self._protocol.xclient.get("HELO") or self._protocol.hello

    @property
    def esmtp(self) -> bool:
        """Whether the client said EHLO (or LHLO)."""
        protocol = self._protocol.xclient.get("PROTO")
        return self._protocol.esmtp if protocol is None else protocol == "ESMTP"

    @property
    def identity(self) -> object:
        """What ``on_auth`` accepted the client as, ``None`` before; kept by RSET, forgotten by STARTTLS."""
        return self._identity if self._protocol.authenticated else None

    @property
    def transaction_count(self) -> int:
        """Transactions begun so far, the current one included."""
        return self._protocol.transaction_count

    @property
    def state(self) -> SimpleNamespace:
        """Yours: put on it what belongs to this connection."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    def __repr__(self) -> str:
        peer = f"{self.peer[0]}:{self.peer[1]}" if self.peer else "no address"
        return f"<Session {self.id} from {peer}>"


def _named(
    known: tuple[str, int] | None, attributes: Mapping[str, str | None], address: str, port: str
) -> tuple[str, int] | None:
    """An end of the connection, as far as XCLIENT names it; a port nobody knows is 0."""
    if address not in attributes:
        return known if known is None or port not in attributes else (known[0], int(attributes[port] or 0))
    host = attributes[address]
    return None if host is None else (host, int(attributes.get(port) or 0))
