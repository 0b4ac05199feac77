# The public client: one connection, used by one task at a time.
#
# What each method does is elsewhere: opening.py, sending.py, push.py. Here it is guarded against a second task, and
# the arguments become a checked Message.
from __future__ import annotations

import email.message
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Final

import trio

from .._message.header_envelope import envelope_of
from .._protocol.client.commands import NOOP, RSET, Command, other
from .._protocol.errors import ConnectionLostError, Delivery, ExtensionNotSupportedError, LocalProtocolError, Stage
from .._protocol.extensions import Extensions
from .._protocol.proxy import ProxyHeader
from .._protocol.replies import Reply
from .._protocol.sasl import Auth
from .._public import NoPublicConstructor
from .._wire.entrance import entrance
from .._wire.tls import TLSInfo
from .config import ClientConfig
from .connection import ClientConnection
from .content import ContentLike
from .message import Message, Params
from .opening import Opening, TLSMode, open_connection
from .push import OutgoingMessage, push
from .reaching import Connect
from .report import DeliveryReport, SendResult
from .sending import deliver
from .signing import MessageSigner, Signing


@entrance("client")
async def open_client(
    host: str,
    port: int | None = None,
    *,
    tls: TLSMode = "auto",
    ssl_context: ssl.SSLContext | None = None,
    auth: Auth | tuple[str, str] | None = None,
    local_hostname: str | None = None,
    allow_insecure_auth: bool = False,
    lmtp: bool = False,
    proxy_header: ProxyHeader | None = None,
    config: ClientConfig | None = None,
    stream: trio.abc.Stream | None = None,
    sign: MessageSigner | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[Client]:
    """Connect to a server, say hello, start TLS and log in; say QUIT at the end of the block.

    Args:
        host: a name or an address; with TLS, the name that the certificate must have. Or ``unix:`` and the path of a
            socket, whose certificate must be for ``localhost``; there is no port then.
        port: 465 with ``tls="implicit"``, 24 with ``lmtp=True``, else 25, if not given. Submission is on 587 or 465.
        tls: ``"auto"``: from the start on port 465, elsewhere by STARTTLS if it is offered; certificates are verified
            and a failure is an error; where it is not offered mail goes in clear, credentials never.
            ``"implicit"``: from the start. ``"starttls"``: by STARTTLS or not at all. ``"opportunistic"``: by
            STARTTLS if that works, whatever the certificate, else in clear. ``"none"``: never.
        ssl_context: for the handshake; by default ``ssl.create_default_context()``.
        auth: ``(username, password)``, :class:`Password`, :class:`OAuth`, :class:`XOAuth` or :class:`External`.
        local_hostname: what to call ourselves; by default the host's full name, or else its address.
        allow_insecure_auth: send credentials in clear, or under TLS with a certificate that was not verified.
        lmtp: speak LMTP (RFC 2033): results are per recipient. Not on port 25.
        proxy_header: sent before anything else, to a server that trusts us to say who the client is (HAProxy's PROXY
            protocol, version 1 or 2).
        config: time limits and the like.
        stream: a connected stream to use instead of connecting; owned from now on. A ``trio.SSLStream`` counts as TLS,
            and as verified if its context verifies certificates and names.
        sign: signs every message when it is as the server gets it, such as a :class:`trio_smtp.dkim.Signer`. What is
            signed is held whole; a stream that is not replayable, and :meth:`Client.transaction`, are errors.
        connect: an async callable that takes `host` and the port and returns a connected ``trio.abc.Stream``, in place
            of ``trio.open_tcp_stream``, such as :func:`trio_smtp.socks.connect_through`. It has
            ``config.connect_timeout``. An OSError of it is a ConnectError.

    Raises:
        TypeError, ValueError: a wrong argument.
        LocalProtocolError: `local_hostname`, a user name, a password or a token cannot be sent.
        ConnectError: not reached, or not greeted with 220.
        TLSError: STARTTLS is refused or missing although it is required, or the handshake failed.
        AuthenticationError: the credentials were refused, or (UnsupportedAuthError) cannot be used.
        ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: on the way. ``stage`` says how far it got, and
            ``delivery`` is ``"not_sent"``.

    Cancellation closes the connection. In the block or at its end QUIT is still said, bounded by
    ``config.quit_timeout``, unless the connection is in the middle of something.
    """
    opening = Opening(
        tls=tls,
        ssl_context=ssl_context,
        auth=auth,
        local_hostname=local_hostname,
        allow_insecure_auth=allow_insecure_auth,
        lmtp=lmtp,
        proxy_header=proxy_header,
        connect=connect,
        config=ClientConfig() if config is None else config,
    )
    signing = None if sign is None else Signing(sign, opening.config)
    connection = await open_connection(opening, host, port, stream=stream)
    try:
        yield Client._create(connection, signing)
    finally:
        await connection.aclose()


class Client(metaclass=NoPublicConstructor):
    """A connection to a server, made by :func:`open_client`.

    One task at a time may use it, of the run of Trio in which it was opened; a second one gets
    ``trio.BusyResourceError``. After ``ConnectionLostError``, ``SMTPTimeoutError`` or ``RemoteProtocolError`` it is of
    no further use; after a refusal it is.
    """

    __slots__ = ("_connection", "_guard", "_signing")

    _connection: ClientConnection
    _guard: _Guard
    _signing: Signing | None

    @classmethod
    def _create(cls, connection: ClientConnection, signing: Signing | None = None) -> Client:
        self = cls.__new__(cls)
        self._connection = connection
        self._signing = signing
        self._guard = _Guard(connection)
        return self

    def __repr__(self) -> str:
        connection = self._connection
        protocol = "LMTP" if connection.lmtp else "SMTP"
        state = "closed" if connection.is_broken else connection.protocol.state.value
        over = connection.wire.tls.version if connection.wire.tls is not None else "no TLS"
        return f"<trio_smtp.Client {connection.name}: {protocol} over {over}, {state}>"

    @property
    def extensions(self) -> Extensions:
        """The extensions that the server offers, keyword to text, and ``.size``, ``.auth``, ``.limits``."""
        return self._connection.extensions

    @property
    def greeting(self) -> Reply:
        """The server's 220."""
        greeting = self._connection.greeting
        assert greeting is not None
        return greeting

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS says of the connection; ``None`` in clear."""
        return self._connection.wire.tls

    # -- messages

    async def send(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike,
        *,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
        before_end: Callable[[], Awaitable[object]] | None = None,
        transcript: Callable[[str], None] | None = None,
    ) -> SendResult:
        """Send one message.

        Args:
            sender: the reverse path; ``""`` for the null sender of bounces.
            recipients: addresses; the same one twice is sent once.
            content: bytes, a str (sent as UTF-8), an ``EmailMessage``, a path, or an async iterable of bytes, which is
                streamed and never held whole. Line ends become CR LF, and a missing last one is added.
            mail_params: further parameters of MAIL, keyword to value or ``None``. SIZE, BODY and SMTPUTF8 are
                found out; values of your own replace them. UTF-8 in the header needs SMTPUTF8: where the server does
                not offer it, an ``EmailMessage`` gets encoded words, and other content is an error, unless a BODY of
                your own says to send it all the same.
            rcpt_params: further parameters of RCPT by recipient.
            before_end: an async function without arguments, awaited right before the send that contains the end of the
                message: the final dot, the last chunk of BDAT, or, where the message leaves in one write, all of it.
                If it raises, nothing that ends the message is sent, and the error is raised as it is.
            transcript: called with each line of what is said about the message: ``"-- mail.example.com:25, TLSv1.3 …"``
                for the connection that it is sent on, ``"C: MAIL FROM:<me@example.com>"`` for each command when it is
                made for sending, ``"S: 250 2.1.0 OK"`` for each reply; not the text. It must be synchronous and quick.
                What it raises is logged, once, and goes no further.

        Returns:
            Which recipients were accepted and which were refused, if at least one was accepted.

        Raises:
            TypeError: `recipients` is a str, `content` cannot be sent, `before_end` is not async, or `transcript` no
                function.
            LocalProtocolError: an invalid address or parameter, no recipients, a NUL in the text, or, with ``sign``, a
                message that cannot be signed; nothing was sent, or a stream's text without its end.
            ExtensionNotSupportedError: the message needs what the server does not offer; nothing was sent.
            MessageTooLargeError: larger than the server's SIZE; nothing was sent, or a stream's text without its end.
            SenderRefusedError, RecipientsRefusedError, MessageRefusedError: refused for every recipient.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: ``delivery`` says whether the server may
                have the message. The first also where the connection is used up by the server's LIMITS (MAILMAX,
                RCPTDOMAINMAX, RFC 9422).
            OSError: the content file could not be read.
            Exception: what `before_end`, or an async iterable, raises.
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation before the end of the message: nothing is delivered, and the connection is closed. After it: waits
        for the reply for at most ``config.end_grace`` seconds and returns the result if it comes, else raises
        ``trio.Cancelled`` with the fate of the message unknown.
        """
        with self._guard:
            message = Message(
                sender, recipients, content, mail_params, rcpt_params, before_end, self._signing, transcript
            )
            report = DeliveryReport(message, attempts=1)
            await trio.lowlevel.checkpoint_if_cancelled()  # a socket takes a small message without any wait
            await deliver(self._connection, report)
            return report.result()

    async def send_message(
        self,
        message: email.message.Message[Any, Any],
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
        before_end: Callable[[], Awaitable[object]] | None = None,
        transcript: Callable[[str], None] | None = None,
    ) -> SendResult:
        """Send an ``EmailMessage`` to the recipients in its header: To, Cc and Bcc; what is sent has no Bcc.

        Args:
            message: written as docs/messages.md says: what was parsed as it came, what was composed so that it is read
                back with the same values; re-encoded where the server does not offer 8BITMIME or SMTPUTF8. It stays as
                it is.
            sender: instead of the header's Sender or From.
            recipients: instead of the header's.
            mail_params: as in :meth:`send`.
            rcpt_params: as in :meth:`send`.
            before_end: as in :meth:`send`.
            transcript: as in :meth:`send`.

        Returns, raises and cancellation: as :meth:`send`.
        """
        sender, recipients = message_envelope(message, sender, recipients)
        return await self.send(
            sender,
            recipients,
            message,
            mail_params=mail_params,
            rcpt_params=rcpt_params,
            before_end=before_end,
            transcript=transcript,
        )

    @asynccontextmanager
    async def transaction(
        self,
        sender: str,
        recipients: Iterable[str],
        *,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> AsyncIterator[OutgoingMessage]:
        """Send one message piece by piece: the envelope at the beginning of the block, the end at its end.

        Leaving the block by an exception never delivers a truncated message: the message is given up, with BDAT by
        RSET, with DATA by closing the connection.

        Arguments are those of :meth:`send`. The text is declared 8-bit where the server offers 8BITMIME; where it does
        not, the first 8-bit octet is an error.

        Raises: as :meth:`send`; on entering if no recipient is accepted, or with ``sign`` (LocalProtocolError: what is
            signed must be known before it is sent); on leaving if the message is refused.

        Cancellation in the block gives the message up and closes the connection; on leaving it, as for :meth:`send`.
        """
        with self._guard:
            if self._signing is not None:
                raise LocalProtocolError(
                    "a transaction cannot be signed: the signature stands above the text", delivery=Delivery.NOT_SENT
                )
            message = Message(sender, recipients, b"", mail_params, rcpt_params)
            async with push(self._connection, message) as outgoing:
                yield outgoing

    # -- other commands

    async def noop(self) -> Reply:
        """Say NOOP (RFC 5321 section 4.1.1.9); the reply, whatever it is.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is closed.
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation closes the connection.
        """
        with self._guard:
            return await self._ask(NOOP)

    async def reset(self) -> Reply:
        """Say RSET (RFC 5321 section 4.1.1.5); the reply, whatever it is. Never needed between messages.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is closed.
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation closes the connection.
        """
        with self._guard:
            return await self._ask(RSET)

    async def verify(self, address: str) -> Reply:
        """Ask the server by VRFY whether an address exists (RFC 5321 section 4.1.1.6).

        Most servers answer 252, which says nothing.

        Args:
            address: or a user's name.

        Raises:
            LocalProtocolError: the text cannot be sent.
            ExtensionNotSupportedError: it is not ASCII, and the server does not offer SMTPUTF8.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is closed.
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation closes the connection.
        """
        if not isinstance(address, str):
            raise TypeError(f"an address must be a str, not {type(address).__name__}")
        if not address.strip():
            raise LocalProtocolError("there is nothing to verify", delivery=Delivery.NOT_SENT)
        return await self._command(f"VRFY {address}", utf8=not address.isascii())

    async def command(self, line: str) -> Reply:
        """Send a line of your own, such as HELP, EXPN or an extension's command; the one reply to it.

        Args:
            line: without CRLF. Commands that change what this client must know (MAIL, RCPT, DATA, STARTTLS, XCLIENT…)
                are refused.

        Raises:
            LocalProtocolError: control characters in it, or a command that is refused.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is closed.
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation closes the connection.
        """
        return await self._command(line)

    async def _command(self, line: str, *, utf8: bool = False) -> Reply:
        with self._guard:
            if utf8:
                if "SMTPUTF8" not in self.extensions:
                    raise ExtensionNotSupportedError(
                        f"{line!r} is not ASCII: that needs SMTPUTF8, which the server does not offer",
                        delivery=Delivery.NOT_SENT,
                    )
                line += " SMTPUTF8"  # RFC 6531 §3.7.4.2
            return await self._ask(other(line, utf8=utf8))

    async def _ask(self, command: Command) -> Reply:
        connection = self._connection
        await connection.look()
        return await connection.exchange(command, connection.config.command_timeout)

    async def quit(self) -> None:
        """Say QUIT and close the connection, as leaving the block does; a closed one stays closed.

        Takes ``config.quit_timeout`` seconds at most. A server that does not answer is no error.

        Raises:
            trio.BusyResourceError: a transaction is open, or another task is using this client.

        Cancellation changes nothing: the wait is bounded and shielded, and the connection is closed in any case.
        """
        with self._guard.even_if_broken():
            await self._connection.aclose()


_IN_USE: Final = "the client is in use: a transaction is open, or another task uses it"


class _Guard:
    """Keeps a second task out, and a closed connection from being used: 0.3 µs where a lock takes 5."""

    __slots__ = ("_busy", "_connection")

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._busy = False

    def __enter__(self) -> None:
        if self._busy:
            raise trio.BusyResourceError(_IN_USE)
        if self._connection.is_broken:
            raise ConnectionLostError("the connection is closed", stage=Stage.MAIL, delivery=Delivery.NOT_SENT)
        self._busy = True

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._busy = False

    @contextmanager
    def even_if_broken(self) -> Iterator[None]:
        """For what may be done with a closed connection, too."""
        if self._busy:
            raise trio.BusyResourceError(_IN_USE)
        self._busy = True
        try:
            yield
        finally:
            self._busy = False


def message_envelope(
    message: email.message.Message[Any, Any], sender: str | None, recipients: Iterable[str] | None
) -> tuple[str, Iterable[str]]:
    """Sender and recipients: those given, and the header's for the rest."""
    if sender is None or recipients is None:
        own_sender, own_recipients = envelope_of(message, need_sender=sender is None)
        sender = own_sender if sender is None else sender
        recipients = own_recipients if recipients is None else recipients
    return sender, recipients
