# What hooks may know of a connection.
from __future__ import annotations

import secrets
from types import SimpleNamespace

from .._protocol.envelope import Envelope
from .._protocol.proxy import ProxyHeader
from .._protocol.server import ServerProtocol
from .._stream import TLSInfo


class Session:
    """One client's connection, as hooks see it. It survives STARTTLS and RSET.

    Attributes:
        id: a short random word for logs.
        peer: the client's host and port, ``None`` where the stream has none. Behind a trusted proxy they are what its
            PROXY header says.
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

    @property
    def host(self) -> str | None:
        """The client's address alone."""
        return self.peer[0] if self.peer is not None else None

    @property
    def hello(self) -> str | None:
        """The name given with EHLO, HELO or LHLO; forgotten by STARTTLS."""
        return self._protocol.hello

    @property
    def esmtp(self) -> bool:
        """Whether the client said EHLO (or LHLO)."""
        return self._protocol.esmtp

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
