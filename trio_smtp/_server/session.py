# What hooks may know of a connection.
#
# The server changes it by the methods with an underscore, and nothing else writes its attributes.
from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import SimpleNamespace

from .._protocol.envelope import Envelope
from .._protocol.hosts import plain_host
from .._protocol.proxy import ProxyHeader
from .._protocol.server.protocol import ServerProtocol
from .._public import NoPublicConstructor
from .._wire.tls import TLSInfo


class Session(metaclass=NoPublicConstructor):
    """One client's connection, as hooks see it. It survives STARTTLS and RSET.

    Attributes:
        id: a short random word for logs.
        peer: the client's host and port, ``None`` where the stream has none. An IPv4 address is one, also where the
            socket or the proxy writes it as ``::ffff:192.0.2.1``. Behind a trusted proxy they are what its
            PROXY header says, behind a trusted relay what its XCLIENT says.
        local: the host and port it connected to; likewise.
        proxy: the :class:`ProxyHeader` with which the connection began, or ``None``.
        tls: ``None`` or a :class:`TLSInfo`.
        envelope: the transaction: ``None`` outside one, set once MAIL is accepted.
    """

    __slots__ = ("__weakref__", "_identity", "_protocol", "_state", "envelope", "id", "local", "peer", "proxy", "tls")

    _identity: object
    _protocol: ServerProtocol
    _state: SimpleNamespace | None
    envelope: Envelope | None
    id: str
    local: tuple[str, int] | None
    peer: tuple[str, int] | None
    proxy: ProxyHeader | None
    tls: TLSInfo | None

    @classmethod
    def _create(cls, protocol: ServerProtocol, peer: tuple[str, int] | None, local: tuple[str, int] | None) -> Session:
        self = cls.__new__(cls)
        self._protocol = protocol
        self._identity = None
        self._state = None
        self.id = secrets.token_hex(6)
        self.peer = _plain(peer)
        self.local = _plain(local)
        self.proxy = None
        self.tls = None
        self.envelope = None
        return self

    # ---- the server's

    def _apply_proxy(self, header: ProxyHeader) -> None:
        """Take who the client is from a trusted proxy, before any hook."""
        self.proxy = header
        if header.source is not None:
            self.peer = _plain(header.source)
            self.local = _plain(header.destination)

    def _apply_xclient(self, attributes: Mapping[str, str | None]) -> None:
        """Take who the client is from a trusted relay's XCLIENT, which the protocol has accepted."""
        self._identity = self.xclient.get("LOGIN")
        self.peer = _named(self.peer, attributes, "ADDR", "PORT")
        self.local = _named(self.local, attributes, "DESTADDR", "DESTPORT")

    def _apply_tls(self, tls: TLSInfo) -> None:
        self.tls = tls

    def _authenticate(self, identity: object) -> None:
        """Note who the client is, for the time for which the protocol says that it is authenticated."""
        self._identity = identity

    def _begin_transaction(self, envelope: Envelope) -> None:
        self.envelope = envelope

    def _end_transaction(self) -> None:
        self.envelope = None

    # ---- the application's

    @property
    def xclient(self) -> Mapping[str, str | None]:
        """What a trusted relay has said by XCLIENT, attribute in upper case to value; ``None`` if it does not know.

        ``ADDR``, ``PORT``, ``DESTADDR``, ``DESTPORT``, ``HELO``, ``PROTO`` and ``LOGIN`` are in :attr:`peer`,
        :attr:`local`, :attr:`hello`, :attr:`esmtp` and :attr:`identity` already; ``NAME`` is only here.
        """
        return self._protocol.relay.xclient

    @property
    def forwarded(self) -> Mapping[str, str | None]:
        """What a trusted relay has said by XFORWARD of the message to come.

        The attributes are ``NAME``, ``ADDR``, ``PORT``, ``PROTO``, ``HELO``, ``IDENT`` and ``SOURCE``; ``None`` stands
        for what it does not know. Forgotten with the transaction, and by RSET, EHLO, STARTTLS and XCLIENT.
        """
        return self._protocol.relay.forwarded

    @property
    def host(self) -> str | None:
        """The client's address alone."""
        return self.peer[0] if self.peer is not None else None

    @property
    def hello(self) -> str | None:
        """The name given with EHLO, HELO or LHLO; forgotten by STARTTLS. A trusted relay's XCLIENT goes before it."""
        return self.xclient.get("HELO") or self._protocol.hello

    @property
    def esmtp(self) -> bool:
        """Whether the client said EHLO (or LHLO)."""
        protocol = self.xclient.get("PROTO")
        return self._protocol.esmtp if protocol is None else protocol == "ESMTP"

    @property
    def identity(self) -> object:
        """What ``on_auth`` accepted the client as, ``None`` before; kept by RSET, forgotten by STARTTLS."""
        return self._identity if self._protocol.auth.authenticated else None

    @property
    def transaction_count(self) -> int:
        """Transactions begun so far, the current one included."""
        return self._protocol.transactions.count

    @property
    def state(self) -> SimpleNamespace:
        """A place for what the application keeps about this connection, as attributes of any name."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    def __repr__(self) -> str:
        peer = f"{self.peer[0]}:{self.peer[1]}" if self.peer else "no address"
        return f"<Session {self.id} from {peer}>"


def _plain(end: tuple[str, int] | None) -> tuple[str, int] | None:
    """An end of the connection with its host in one form."""
    return None if end is None else (plain_host(end[0]), end[1])


def _named(
    known: tuple[str, int] | None, attributes: Mapping[str, str | None], address: str, port: str
) -> tuple[str, int] | None:
    """An end of the connection, as far as XCLIENT names it; an unknown port is 0."""
    if address not in attributes:
        return known if known is None or port not in attributes else (known[0], int(attributes[port] or 0))
    host = attributes[address]
    return None if host is None else (plain_host(host), int(attributes.get(port) or 0))
