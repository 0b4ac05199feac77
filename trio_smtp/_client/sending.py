# All of a message on one connection: one transaction after the other, while recipients remain.
#
# Content is opened before MAIL, so that everything that can go wrong on our side, or that the server's offer forbids,
# goes wrong before MAIL. However a transaction ends, the connection afterwards is reusable or broken.
from __future__ import annotations

from .._protocol.errors import ConnectionLostError, Delivery, SMTPError, Stage
from .connection import ClientConnection
from .report import DeliveryReport
from .transfer import Transfer, tell_end


async def deliver(connection: ClientConnection, report: DeliveryReport, *, stop_at_limit: bool = False) -> None:
    """Send a message for all recipients who remain, in as many transactions as the server's limits ask for.

    Refusals are noted in the report, for its ``result()`` to tell.

    Args:
        connection: a reusable one.
        report: the message's.
        stop_at_limit: return when the connection is used up, even if recipients remain.

    Raises:
        ExtensionNotSupportedError, MessageTooLargeError, LocalProtocolError: nothing was sent.
        ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: ``delivery`` says what is known.
        OSError: of reading the content, or what an async iterable raised.
    """
    allowance = connection.allowance
    while report.remaining and not (stop_at_limit and allowance.is_used_up(report)):
        transfer = await next_transfer(connection, report)
        try:
            await transfer.run()
        except SMTPError as exc:
            if not transfer.is_decided_despite(exc):
                tell_end(connection, transfer.transaction, exc, report.origin)
                raise
        except BaseException as exc:
            tell_end(connection, transfer.transaction, exc, report.origin)
            raise
        finally:
            connection.check()
        if connection.witness is not None:
            tell_end(connection, transfer.transaction, None, report.origin)
        allowance.record(report, transfer.transaction)


async def next_transfer(connection: ClientConnection, report: DeliveryReport) -> Transfer:
    """The message's next transaction.

    Raises:
        ConnectionLostError: the server has gone, or said that it goes; or the connection is used up.
        RemoteProtocolError: it has spoken unasked.
        SMTPTimeoutError: it does not take what TLS has to say.
        ExtensionNotSupportedError: the list must be split, and the content cannot be produced twice.
    """
    try:
        if connection.is_broken:
            raise ConnectionLostError("the connection is closed", stage=Stage.MAIL, delivery=Delivery.NOT_SENT)
        await connection.look()
        return Transfer(connection, report, connection.allowance.next_batch(report))
    except SMTPError as exc:
        report.explain(exc)  # of a list that was split, some may have it
        raise
