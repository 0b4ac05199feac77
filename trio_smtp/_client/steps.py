# A message in steps: MAIL, each RCPT with its own answer, and then the text, as it comes.
#
# It is for a relay, whose client decides what comes next and wants to hear each answer. Nothing is sent ahead: every
# step waits for its reply. Between two steps the connection is silent, in the middle of a transaction. A caller that
# stops there leaves it as it is, and the next message on it begins with RSET.
# Not known here: whose connection it is (the pool's), and what the answers mean to the client (the relay's).
from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Any, Final

import trio

from .._protocol.addresses import check_address, wire_address
from .._protocol.client.commands import RSET, data, mail, rcpt
from .._protocol.client.protocol import State
from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, Delivery, SMTPError
from .._protocol.parameter_text import format_params, required_extensions
from .._protocol.replies import Reply
from .connection import ClientConnection
from .content import Source
from .mail_parameters import mail_params, require
from .message import Message, Params
from .report import DeliveryReport, SendResult
from .transfer import Transfer, tell_end

_STAND_IN: Final = "postmaster"  # where a recipient is wanted, and none is known yet
_OF_DSN: Final = dict.fromkeys(("RET", "ENVID", "NOTIFY", "ORCPT"), "DSN")  # RFC 3461 §4


class Steps:
    """One message on one connection.

    Args:
        connection: reusable, and used by nothing else until the end.
        sender: the reverse path.
        params: of MAIL. SIZE and SMTPUTF8 are taken from there; BODY is found out, if it is not given.
        origin: the pool and the number of its message, for what looks.

    Attributes:
        transaction: its facts.

    Raises:
        LocalProtocolError: the sender or a parameter cannot be sent.
    """

    __slots__ = (
        "_answers",
        "_connection",
        "_origin",
        "_params",
        "_rcpt_params",
        "_sender",
        "_source",
        "_utf8",
        "transaction",
    )

    def __init__(
        self, connection: ClientConnection, sender: str, params: Params, *, origin: tuple[object, int] | None = None
    ) -> None:
        self._connection: Final = connection
        self._origin: Final = origin
        self._sender: Final = sender
        self._params: Final = params
        self._source: Final = Source(None, eight_bit=None)
        self._utf8 = False
        self._answers: dict[str, Reply] = {}
        self._rcpt_params: dict[str, Params] = {}
        self.transaction: Final = Transaction([], lmtp=connection.lmtp)

    def __repr__(self) -> str:
        return f"<Steps from {self._sender!r} on {self._connection!r}: {len(self._answers)} recipients asked for>"

    @property
    def accepted(self) -> list[str]:
        """Recipients that the server has accepted."""
        return self.transaction.accepted

    async def mail(self) -> Reply:
        """Say MAIL; the answer, whatever it is.

        Raises:
            ExtensionNotSupportedError, MessageTooLargeError, LocalProtocolError: nothing was sent.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
        """
        connection = self._connection
        message = Message(self._sender, [_STAND_IN], b"", self._params)
        params, self._utf8 = mail_params(connection, message, self._source, None)
        sender = wire_address(message.sender, smtputf8=connection.offers_utf8)
        command = mail(self.transaction, sender, params, utf8=self._utf8)
        await self._look()
        timeout = connection.config.command_timeout
        if connection.protocol.state is not State.READY:
            await connection.exchange(RSET, timeout)
        connection.allowance.count(message, ())
        return await connection.exchange(command, timeout)

    async def rcpt(self, recipient: str, params: Params) -> Reply:
        """Say RCPT; the answer, whatever it is. A recipient that was asked for is not asked for again.

        Raises:
            ExtensionNotSupportedError, LocalProtocolError: nothing was sent.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
        """
        if recipient in self._answers:
            return self._answers[recipient]
        connection, transaction = self._connection, self.transaction
        checked = check_address(recipient, postmaster=True)
        require(connection.extensions, required_extensions("RCPT", params), f"the parameters for {recipient}")
        text = format_params(params, smtputf8=self._utf8)
        address = wire_address(checked, smtputf8=connection.offers_utf8)
        command = rcpt(transaction, recipient, address, text, utf8=self._utf8)
        await self._look()
        assert isinstance(transaction.recipients, list)
        transaction.recipients.append(recipient)
        self._rcpt_params[recipient] = params
        reply = await connection.exchange(command, connection.config.command_timeout)
        self._answers[recipient] = reply
        return reply

    async def send(self, chunks: AsyncIterable[bytes]) -> SendResult:
        """Send the text, for the recipients accepted so far, and wait for the reply to it.

        Raises:
            MessageRefusedError: refused, at DATA, in the middle or at the end; of LMTP, for each recipient.
            ExtensionNotSupportedError, MessageTooLargeError: the text goes beyond what was announced, or is taken.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: ``delivery`` says what is known.
            Exception: what reading the text raised; it is given up then.

        Cancellation before the end of the text gives the message up. After it: waits for the reply, shielded, for at
        most ``end_grace`` seconds.
        """
        connection, transaction = self._connection, self.transaction
        message = Message(self._sender, transaction.recipients, b"", self._params, self._rcpt_params)
        report = DeliveryReport(message, attempts=1, origin=self._origin)
        transfer = Transfer(connection, report, transaction.recipients, transaction)
        with transfer.concluding():
            await self._look()
            if not connection.uses_chunking:
                await connection.exchange(data(transaction), connection.config.command_timeout)
                if not transaction.go_ahead:
                    raise transfer.refusal_error()
            await self._send_text(transfer, report, chunks)
            await transfer.await_end()
        return report.result()

    def end(self) -> None:
        """The message is over, whatever became of it: tell the witness, if :meth:`send` has not.

        Then its text never came, so that it was no try of a pool's message, and it is told of without its origin.
        """
        tell_end(self._connection, self.transaction, None)

    async def _look(self) -> None:
        """Hear what the server has said unasked; raises if the connection is over."""
        connection = self._connection
        if connection.is_broken:
            raise ConnectionLostError("the connection is closed", delivery=Delivery.NOT_SENT)
        await connection.look()

    async def _send_text(self, transfer: Transfer, report: DeliveryReport, chunks: Any) -> None:
        writer = transfer.open_writer(self._source)
        reading = aiter(chunks)
        async with transfer.giving_up():
            while True:
                try:
                    chunk = await anext(reading)
                except StopAsyncIteration:
                    break
                except SMTPError as exc:
                    report.blame_caller(exc)
                    raise
                if not await writer.write(chunk):
                    raise transfer.refusal_error()
            await trio.lowlevel.checkpoint_if_cancelled()
            await writer.finish()


def given_params(params: Mapping[str, str | None], connection: ClientConnection) -> dict[str, str | None]:
    """Of the parameters that a client has given to MAIL or RCPT, those that go along to this server.

    Those of DSN are left out where the server does not know them: that loses reports, and no mail. BODY=8BITMIME is
    left out where 8-bit text cannot be sent: most text that is announced so has none. All else is kept, so that it is
    an error where the server does not offer it.
    """
    offered = connection.extensions.keys()
    kept = {keyword: value for keyword, value in params.items() if _OF_DSN.get(keyword) in (None, *offered)}
    if str(kept.get("BODY")).upper() == "8BITMIME" and not connection.offers_8bit:
        del kept["BODY"]
    if not connection.offers_size:
        kept.pop("SIZE", None)
    kept.pop("AUTH", None)  # RFC 4954 §5: only to a server that trusts us
    return kept
