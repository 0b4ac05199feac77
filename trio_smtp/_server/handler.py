# What an application brings: a handler with some of these hooks. That it has them, and no others, is checked in
# handler_check.py.
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .._protocol.replies import Reply

if TYPE_CHECKING:
    from .._protocol.envelope import Envelope, Recipient, Sender
    from .._protocol.sasl import Credentials
    from .body import Body
    from .session import Session


class Handler:
    """Base class for what an application does with a session; subclassing it is optional.

    ``on_data`` must be there, so that no server accepts mail that nothing keeps; to throw mail away is
    :class:`Discard`. Every other hook has a default. Every hook is async and takes the session first.

    Some hooks decide, others are notifications. A hook that decides may ``raise Reject(...)`` or return a
    :class:`Reply`. Any other exception answers ``451 4.3.0`` and is logged; so does a hook that takes longer than
    ``ServerConfig.handler_timeout``, which is cancelled. If ``on_connect`` fails so, the client gets ``421 4.3.0`` and
    the connection ends. ``on_tls``, ``on_reset`` and ``on_close`` are notifications: what they raise is logged,
    ``Reject`` too, and the session goes on.

    The hooks of one session never run concurrently, those of different sessions do. A hook that is cancelled from
    outside (the server's scope) sees ``trio.Cancelled``.
    """

    def __repr__(self) -> str:
        hooks = [name for name in vars(Handler) if name.startswith("on_")]
        own = [name for name in hooks if getattr(type(self), name) is not getattr(Handler, name)]
        return f"<{type(self).__module__}.{type(self).__qualname__}: {', '.join(own) or 'no hook'}>"

    async def on_connect(self, session: Session) -> Reply | None:
        """A client has connected; nothing was said yet, and ``session.tls`` is ``None``.

        A 2xx reply's text becomes the greeting's, after which ``close=True`` closes the connection; a 4xx or 5xx one
        refuses it. It is called again after XCLIENT, about the client that a trusted relay has named
        (``session.xclient`` is not empty then).
        """
        return None

    async def on_hello(self, session: Session, name: str) -> Reply | None:
        """EHLO, HELO or LHLO; a 4xx or 5xx reply refuses, and nothing has changed then.

        It is not called between the chunks of a message that ``on_data`` is reading: there the command gets 503.
        """
        return None

    async def on_tls(self, session: Session) -> None:
        """A TLS handshake is done, by STARTTLS or an implicit one; see ``session.tls``."""

    async def on_auth(self, session: Session, credentials: Credentials) -> object:
        """AUTH; offered only by a handler that defines this hook.

        A truthy result accepts and is kept as ``session.identity`` (``True`` or a 2xx reply keeps the user name); a
        falsy one refuses with 535; a 4xx or 5xx reply refuses. What is true for Python only because it is an object is
        a programming error (451, logged): something to await, a function or class, an exception, a tuple that begins
        with a bool, and what has a ``success`` of its own, as aiosmtpd's ``AuthResult``.
        """
        return False

    async def on_mail(self, session: Session, sender: Sender) -> Reply | None:
        """MAIL; ``None`` accepts."""
        return None

    async def on_rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        """RCPT; ``None`` accepts."""
        return None

    async def on_data(
        self, session: Session, envelope: Envelope, body: Body
    ) -> Reply | str | Mapping[str, Reply | str | None] | None:
        """DATA or BDAT: take the message from `body`, keep it, and then return. It has no default.

        ``None`` and a queue id (str) accept. A str that looks like a reply (three digits, then a space, a hyphen or
        the end) is a programming error: 451, and logged. Return a :class:`Reply` or raise :class:`Reject` instead.
        With LMTP, a mapping from address to one of these, or to a reply, is the outcome for each recipient. A refusal
        before `body` was read refuses the DATA command itself.
        """
        raise NotImplementedError("a handler needs an on_data of its own; Discard() throws messages away")

    async def on_reset(self, session: Session) -> None:
        """A transaction has ended without its message being accepted; ``session.envelope`` is still there.

        It is called once for each, whatever the reason, and has 10 seconds, also while the session is cancelled.
        """

    async def on_vrfy(self, session: Session, argument: str) -> Reply | None:
        """VRFY; ``None`` answers 252. The reply is UTF-8 where the client has said SMTPUTF8."""
        return None

    async def on_expn(self, session: Session, argument: str) -> Reply | None:
        """EXPN; not implemented (502) unless a handler defines this hook. ``None`` answers 252."""
        return None

    async def on_command(self, session: Session, verb: str, argument: str) -> Reply | None:
        """A command of one of ``ServerConfig.extensions``, its verb in upper case; ``None`` answers ``250 OK``.

        It may come at any time but between the chunks of a message, also before EHLO: look at ``session``.
        """
        return None

    async def on_close(self, session: Session) -> None:
        """The connection has ended, for whatever reason. Called once if ``on_connect`` was; it has 10 seconds."""


class Discard(Handler):
    """A handler that accepts every message and throws it away. To lose mail is a decision: this class says it.

    ``serve(Discard(), 2525)`` is a sink. A subclass may define any other hook. Its hooks wait for nothing, and can be
    cancelled as those of :class:`Handler`.
    """

    async def on_data(self, session: Session, envelope: Envelope, body: Body) -> Reply | str | None:
        """Accept the message. It is read to its end all the same, within the server's limits."""
        return None
