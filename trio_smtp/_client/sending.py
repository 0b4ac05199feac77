# Messages over one connection: what MAIL must say, in how many writes all goes out, and what came of it.
#
# Theory of operation. Content is opened first, so that everything that can go wrong on our side, or is forbidden by
# what the server offers, goes wrong before MAIL. Then, by what the server understands, in round trips:
#
#     PIPELINING and CHUNKING, small, and the server has just answered:  MAIL RCPT… BDAT LAST text        1
#     PIPELINING:                                 MAIL RCPT… DATA, then the text                          2
#     PIPELINING and CHUNKING otherwise:          MAIL RCPT…, then BDAT … text                            2
#     neither:                                    each command by itself
#
# In the first form the end of the message leaves before anything is answered, so a connection that turns out to be
# dead would leave its fate unknown: after an idle spell MAIL goes first.
from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import aclosing, nullcontext, suppress
from typing import Any, Final

import trio

from .._protocol.addresses import wire_address
from .._protocol.client.commands import RSET, Command, Verb, bdat, data, end, mail, rcpt
from .._protocol.client.protocol import State
from .._protocol.client.transaction import Transaction
from .._protocol.dotstuff import DotEncoder, encode_message
from .._protocol.errors import (
    ConnectionLostError,
    Delivery,
    ExtensionNotSupportedError,
    RemoteProtocolError,
    SMTPError,
    Stage,
)
from .._protocol.extensions import Extensions
from .._protocol.newlines import NewlineEncoder, encode_newlines
from .._protocol.parameter_text import beyond_offer, format_params, required_extensions
from .._wire.waits import Interrupted
from .body import BLOCK, BodyWriter, too_large, write_text
from .connection import Connection
from .content import Source
from .grace import Grace
from .outgoing import Outgoing, Params, one_too_many

_READY: Final = State.READY
_DATA: Final = Verb.DATA
ONE_WRITE: Final = 1 << 15  # octets of text that are worth sending before anybody has agreed to take them
_SIZE: Final = re.compile(r"[0-9]{1,20}").fullmatch  # RFC 1870 §6
_GROUP: Final = 200  # commands in one write; their replies fit into the buffers, so that nobody waits for the other


async def deliver(connection: Connection, message: Outgoing, *, stop_at_limit: bool = False) -> None:
    """Send a message to everybody who remains, in as many transactions as the server's limits ask for.

    Refusals are noted in the message, for its ``result()`` to tell. However this ends, the connection afterwards is
    reusable or broken.

    Args:
        connection: a reusable one.
        message: what is still to be sent of it.
        stop_at_limit: return when the connection is used up, even if somebody remains.

    Raises:
        ExtensionNotSupportedError, MessageTooLargeError, LocalProtocolError: nothing was sent.
        ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: ``delivery`` says what is known.
        OSError: of reading the content, or what an async iterable raised.
    """
    while message.remaining and not (stop_at_limit and is_used_up(connection, message)):
        try:
            batch = await next_batch(connection, message)
        except SMTPError as exc:
            message.explain(exc)  # of a list that was split, some may have it
            raise
        message.transaction = transaction = Transaction(batch, lmtp=connection.lmtp)
        try:
            await _transact(connection, message, transaction)
        except SMTPError as exc:
            if exc is message.foreign:
                raise
            if transaction.reply is None:
                if exc.stage is None:
                    exc.stage = connection.stage
                message.explain(exc)
                raise
            # A reply that was read beats a connection loss noticed later.
        finally:
            connection.check()
        settle(connection, message, transaction)


def settle(connection: Connection, message: Outgoing, transaction: Transaction) -> None:
    """Note a transaction's fates; recipients who were too many for it remain, if the message can be sent again."""
    too_many = one_too_many(transaction) if transaction.refused and message.content.replayable else []
    crowd = message.crowd
    message.crowd = len(transaction.accepted) if too_many else None
    if any(transaction.refused[written].enhanced is not None for written in too_many):
        connection.most_recipients = message.crowd
    elif crowd is not None and transaction.accepted:
        connection.most_recipients = crowd  # 452 may be a full mailbox; it was not, since they are accepted now
    message.settle(transaction, too_many)


def is_used_up(connection: Connection, message: Outgoing) -> bool:
    """Whether the server's LIMITS (RFC 9422) leave no room for this message, so that it needs another connection."""
    limits = connection.extensions.limits
    if limits.mailmax is not None and connection.transactions >= limits.mailmax:
        return True
    if limits.rcptdomainmax is None:
        return False
    admitted = _admitted(connection, message, limits.rcptdomainmax)
    if message.content.replayable or not connection.domains:
        return not admitted
    return len(admitted) < len(message.remaining)  # a new connection may have room for all


def _admitted(connection: Connection, message: Outgoing, most: int) -> list[str]:
    """Those who remain and whose domains do not bring the connection beyond so many."""
    domains = set(connection.domains)
    admitted: list[str] = []
    for written in message.remaining:
        domain = _domain(message.recipients[written])
        if domain in domains or len(domains) < most:
            domains.add(domain)
            admitted.append(written)
    return admitted


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()


async def next_batch(connection: Connection, message: Outgoing) -> list[str]:
    """The recipients of the next transaction (RFC 9422 section 4.2).

    Raises:
        ConnectionLostError: the server has gone, or said that it goes; or the connection is used up.
        RemoteProtocolError: it has spoken unasked.
        SMTPTimeoutError: it does not take what TLS has to say.
        ExtensionNotSupportedError: the list must be split, and the content cannot be produced twice.
    """
    if connection.is_broken:
        raise ConnectionLostError("the connection is closed", delivery=Delivery.NOT_SENT)
    try:
        await connection.look()
    except SMTPError as exc:
        exc.stage, exc.delivery = Stage.MAIL, Delivery.NOT_SENT
        raise
    if is_used_up(connection, message):
        limits = connection.extensions.limits
        what = f"{limits.mailmax} messages"
        if not connection.is_exhausted:
            what = f"recipients of {limits.rcptdomainmax} domains"
        raise ConnectionLostError(
            f"the connection is used up: the server takes {what} on one; open another",
            stage=Stage.MAIL,
            delivery=Delivery.NOT_SENT,
        )
    remaining = message.remaining
    limit, law = connection.most_recipients, connection.extensions.limits.rcptmax
    most_domains = connection.extensions.limits.rcptdomainmax
    if most_domains is not None:
        admitted = _admitted(connection, message, most_domains)
        if len(admitted) < len(remaining):
            message.remaining = remaining = [*admitted, *(written for written in remaining if written not in admitted)]
            limit = min(len(admitted), limit or len(admitted))
            law = min(len(admitted), law or len(admitted))
    if limit is None or len(remaining) <= limit:
        return remaining
    if message.content.replayable:
        return remaining[:limit]
    if law is None or len(remaining) <= law:
        return remaining  # what was learnt on the way is no law
    raise ExtensionNotSupportedError(
        f"the server takes {law} of the recipients at a time, and this content cannot be produced twice",
        stage=Stage.MAIL,
        delivery=Delivery.NOT_SENT,
    )


async def _transact(connection: Connection, message: Outgoing, transaction: Transaction) -> None:
    source = await message.content.open(
        eight_bit=connection.offers_8bit, utf8=message.needs_utf8 and connection.offers_utf8
    )
    if source.whole is not None:
        await _send_whole(connection, message, transaction, source)
    else:
        await _send_stream(connection, message, transaction, source)


async def _send_whole(connection: Connection, message: Outgoing, transaction: Transaction, source: Source) -> None:
    assert source.whole is not None
    chunked = connection.uses_chunking
    text, tail, size = encode_whole(connection, message, source.whole)
    commands = envelope(connection, message, transaction, source, size)
    if (
        chunked
        and size <= ONE_WRITE
        and connection.protocol.pipelining
        and len(commands) < _GROUP
        and connection.has_just_answered
    ):
        commands.append(bdat(transaction, size, last=True))
        await write_text(connection, transaction, connection.encode(commands) + text + tail)
    elif await say_envelope(connection, transaction, commands, chunked=chunked):
        if len(text) <= BLOCK:
            if not await connection.look(transaction):
                return
            last = bdat(transaction, size, last=True) if chunked else end(transaction, tail)
            wire = connection.encode((last,))
            await write_text(connection, transaction, b"".join((wire, text, tail) if chunked else (text, wire)))
        else:
            writer = BodyWriter(connection, transaction, None, chunked=chunked)
            if await writer.write_encoded(text):
                await writer.finish(tail)
    await await_end(connection, transaction)


def encode_whole(connection: Connection, message: Outgoing, octets: bytes) -> tuple[bytes, bytes, int]:
    """The text of a message at hand, what comes after it, and its size in octets (RFC 1870)."""
    newlines = connection.config.newlines
    if message.is_binary:
        return octets, b"", len(octets)
    if connection.uses_chunking:
        text, tail = encode_newlines(octets, newlines)
        return text, tail, len(text) + len(tail)
    return encode_message(octets, newlines)


async def _send_stream(connection: Connection, message: Outgoing, transaction: Transaction, source: Source) -> None:
    assert source.chunks is not None
    chunked = connection.uses_chunking
    size = source.raw_size if message.is_binary else source.size
    commands = envelope(connection, message, transaction, source, size)
    if await say_envelope(connection, transaction, commands, chunked=chunked):
        writer = open_writer(connection, message, transaction, source, chunked=chunked)
        message.streamed = True
        chunks: Any = aiter(source.chunks)
        async with giving_up(connection), aclosing(chunks) if hasattr(chunks, "aclose") else nullcontext():
            while (piece := await _next_piece(chunks, message)) is not None:
                if not await writer.write(piece):
                    break
            else:
                await writer.finish()
    await await_end(connection, transaction)


async def _next_piece(chunks: Any, message: Outgoing) -> bytes | None:
    """The next piece of a stream, ``None`` after the last."""
    try:
        piece: bytes | None = await anext(chunks)
    except StopAsyncIteration:
        return None
    except SMTPError as exc:
        message.foreign = exc  # of a message that is being received, say: its facts are not this one's
        raise
    if piece is None:
        raise TypeError("message text comes as bytes, not NoneType")
    return piece


def open_writer(
    connection: Connection, message: Outgoing, transaction: Transaction, source: Source, *, chunked: bool
) -> BodyWriter:
    """A writer for text that comes in pieces."""
    encoder: NewlineEncoder | None = None
    if not message.is_binary:
        encoder = (NewlineEncoder if chunked else DotEncoder)(connection.config.newlines)
    given = message.mail_params
    eight_bit = str(given["BODY"]).upper() != "7BIT" if given and "BODY" in given else bool(source.eight_bit)
    return BodyWriter(
        connection, transaction, encoder, chunked=chunked, eight_bit=eight_bit, max_size=connection.extensions.size
    )


def envelope(
    connection: Connection, message: Outgoing, transaction: Transaction, source: Source, size: int | None
) -> list[Command]:
    """RSET if there is a transaction to be forgotten, MAIL, and RCPT for everybody in the transaction.

    Raises:
        ExtensionNotSupportedError, MessageTooLargeError: the server cannot take this message.
    """
    extensions = connection.extensions
    has_utf8 = connection.offers_utf8
    utf8 = message.needs_utf8 or (source.utf8 and has_utf8)
    given = message.mail_params
    params = ""
    if size is not None and connection.offers_size:
        if extensions.size is not None and size > extensions.size:
            raise too_large(size, extensions.size, Stage.MAIL)
        if given is None or "SIZE" not in given:
            params = f" SIZE={size}"
    if source.eight_bit and (given is None or "BODY" not in given):
        _require(extensions, {"8BITMIME"}, "the message has 8-bit octets")
        params += " BODY=8BITMIME"
        if source.utf8:
            _require(extensions, {"SMTPUTF8"}, "the header has UTF-8")
    if utf8:
        _require(extensions, {"SMTPUTF8"}, "an address has non-ASCII characters before the @")
        if given is None or "SMTPUTF8" not in given:
            params += " SMTPUTF8"
    if given is not None:
        _check_mail_params(connection, given)
        params += format_params(given, smtputf8=utf8)
    commands = [] if connection.protocol.state is _READY else [RSET]
    sender = message.sender if message.sender.isascii() else wire_address(message.sender, smtputf8=has_utf8)
    commands.append(mail(transaction, sender, params, utf8=utf8))
    recipients, rcpt_params = message.recipients, message.rcpt_params
    params = ""
    for written in transaction.recipients:
        address = recipients[written]
        if not address.isascii():
            address = wire_address(address, smtputf8=has_utf8)
        if rcpt_params is not None:
            own = rcpt_params.get(written, {})
            _require(extensions, required_extensions("RCPT", own), f"the parameters for {written}")
            params = format_params(own, smtputf8=utf8)
        commands.append(rcpt(transaction, written, address, params, utf8=utf8))
    connection.transactions += 1
    if extensions.limits.rcptdomainmax is not None:
        connection.domains.update(_domain(recipients[written]) for written in transaction.recipients)
    return commands


def _check_mail_params(connection: Connection, given: Params) -> None:
    _require(connection.extensions, required_extensions("MAIL", given), "the parameters for MAIL")
    limit, declared = connection.extensions.size, str(given.get("SIZE"))
    if limit is not None and _SIZE(declared) and int(declared) > limit:
        raise too_large(int(declared), limit, Stage.MAIL)
    if beyond := beyond_offer(given, connection.extensions):
        raise _unsupported(f"the parameters for MAIL: {beyond}")
    if str(given.get("BODY")).upper() == "BINARYMIME" and not connection.config.chunking:
        raise _unsupported("BODY=BINARYMIME needs BDAT, and chunking=False forbids it")
    if "REQUIRETLS" in given:
        tls = connection.transport.tls
        if tls is None or not tls.verified:  # RFC 8689 §4.2.1
            raise _unsupported("REQUIRETLS needs a connection under TLS with a verified certificate")


def _require(extensions: Extensions, wanted: Iterable[str], why: str) -> None:
    missing = [keyword for keyword in wanted if keyword not in extensions]
    if missing:
        raise _unsupported(f"{why}: that needs {', '.join(sorted(missing))}, which the server does not offer")


def _unsupported(text: str) -> ExtensionNotSupportedError:
    return ExtensionNotSupportedError(text, stage=Stage.MAIL, delivery=Delivery.NOT_SENT)


async def say_envelope(
    connection: Connection, transaction: Transaction, commands: list[Command], *, chunked: bool
) -> bool:
    """Say MAIL and RCPT, and DATA unless `chunked`; whether the text is to follow.

    Where nobody was accepted, the transaction's facts say so afterwards, and nothing is owed to the server.
    """
    if not chunked:
        commands.append(data(transaction))
    timeout = connection.config.command_timeout
    step = _GROUP if connection.protocol.pipelining else 1
    for at in range(0, len(commands), step):
        group = commands[at : at + step]
        if at and (transaction.reply is not None or (group[0].verb is _DATA and transaction.nobody_left)):
            return False
        await connection.write(connection.encode(group), timeout)
        await connection.drain(timeout)
        protocol = connection.protocol
        if not protocol.outstanding and not protocol.is_clean:  # a 421 on their heels?
            protocol.next_event()
    if transaction.reply is not None or connection.is_broken:
        return False
    if not transaction.nobody_left:
        return True
    if transaction.go_ahead:  # RFC 2920 §3.1: 354 for nobody; say that there is no text, and expect a refusal
        await connection.exchange(end(transaction, b".\r\n"), connection.config.end_timeout)
    return False


async def await_end(connection: Connection, transaction: Transaction) -> None:
    """Wait for all replies of a transaction. A caller cancelled here still gets a reply that comes soon.

    Cancellation after the end of the message has left: waits on, shielded, for at most ``end_grace``. If the reply
    comes, this returns normally; the cancellation is then met at the caller's next checkpoint.
    """
    config = connection.config

    async def hear_it_all_the_same() -> bool:
        if transaction.ended and not connection.is_broken:
            with suppress(SMTPError, Interrupted):
                await connection.drain(config.end_grace)
        return transaction.ended and transaction.reply is not None

    async with Grace(config.end_grace, hear_it_all_the_same, trio.Cancelled, Interrupted):
        await connection.drain(config.end_timeout if transaction.ended else config.command_timeout)
    protocol = connection.protocol
    if protocol.outstanding and transaction.reply is None:
        raise connection.farewell_error()
    if not protocol.is_clean and protocol.farewell is None:  # there is a reply too many, and this connection is over
        try:
            protocol.next_event()
        except RemoteProtocolError:
            if transaction.reply is None:
                raise


def giving_up(connection: Connection) -> Grace:
    """Around the writing of a message's text: an exception in it gives the message up, and goes on.

    With BDAT the message can be forgotten; with DATA there is no way, and the connection ends. So it does after a
    cancellation, which has no time for more.
    """

    async def forget() -> bool:
        if connection.protocol.state is State.BODY or connection.is_broken:
            connection.transport.abort()
            return False
        timeout = connection.config.command_timeout
        try:
            await connection.drain(timeout)
            await connection.exchange(RSET, timeout)
        except SMTPError:  # there is a better one to be raised
            connection.transport.abort()
        return False

    return Grace(connection.config.quit_timeout, forget, Exception)
