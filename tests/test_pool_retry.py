"""Which errors are worth another try, how many, and after which delays."""

from __future__ import annotations

import socket
import ssl

import pytest

from trio_smtp import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Delivery,
    LocalProtocolError,
    PoolConfig,
    RemoteProtocolError,
    Reply,
    SMTPError,
    SMTPTimeoutError,
    TLSError,
    UnsupportedAuthError,
)
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.retry import Retry, is_of_the_wire, is_passing

NOT_SENT = Delivery.NOT_SENT
LATER, NEVER = Reply(450, "later"), Reply(550, "never")


def caused(error: SMTPError, cause: Exception) -> SMTPError:
    error.__cause__ = cause
    return error


def report() -> DeliveryReport:
    return DeliveryReport(Message("a@a.test", ["b@b.test"], b"x\r\n", None, None))


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("refused", delivery=NOT_SENT),
        ConnectError("busy", reply=Reply(421, "busy"), delivery=NOT_SENT),
        ConnectionLostError("lost", delivery=NOT_SENT),
        SMTPTimeoutError("late", delivery=NOT_SENT),
        AuthenticationError("busy", reply=Reply(454, "busy"), delivery=NOT_SENT),
        TLSError("not now", reply=Reply(454, "not now"), delivery=NOT_SENT),
        caused(TLSError("cut off", delivery=NOT_SENT), ssl.SSLEOFError()),
        caused(ConnectError("no answer", delivery=NOT_SENT), socket.gaierror(socket.EAI_AGAIN, "")),
    ],
    ids=str,
)
def test_what_may_be_gone_the_next_time(error: SMTPError) -> None:
    assert is_passing(error)
    assert Retry(PoolConfig()).after_error(error, report()) is not None


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("go away", reply=Reply(554, "go away"), delivery=NOT_SENT),
        ConnectionLostError("after the end", delivery=Delivery.UNKNOWN),
        RemoteProtocolError("garbage", delivery=NOT_SENT),
        LocalProtocolError("wrong", delivery=NOT_SENT),
        AuthenticationError("wrong", reply=Reply(535, "wrong"), delivery=NOT_SENT),
        UnsupportedAuthError("no mechanism", delivery=NOT_SENT),
        TLSError("not offered", delivery=NOT_SENT),
        caused(TLSError("bad certificate", delivery=NOT_SENT), ssl.SSLCertVerificationError()),
        caused(ConnectError("no such host", delivery=NOT_SENT), socket.gaierror(socket.EAI_NONAME, "")),
    ],
    ids=str,
)
def test_what_would_be_the_same_the_next_time(error: SMTPError) -> None:
    assert not is_passing(error)
    assert Retry(PoolConfig()).after_error(error, report()) is None


def test_an_error_that_is_not_ours_is_not_tried_again() -> None:
    assert Retry(PoolConfig()).after_error(OSError("no such file"), report()) is None


def test_a_login_says_nothing_about_reaching_the_server() -> None:
    assert not is_of_the_wire(AuthenticationError("busy", reply=Reply(454, "busy")))
    assert is_of_the_wire(ConnectError("refused"))


def test_an_unknown_fate_is_tried_again_only_where_that_is_asked_for() -> None:
    error = ConnectionLostError("lost", delivery=Delivery.UNKNOWN)
    assert Retry(PoolConfig(on_unknown="raise")).after_error(error, report()) is None
    assert Retry(PoolConfig(on_unknown="retry")).after_error(error, report()) is not None


def test_delays_double_with_jitter_and_the_tries_are_counted() -> None:
    retry, error = Retry(PoolConfig(connect_retries=3, retry_delay=8)), ConnectError("refused", delivery=NOT_SENT)
    delays = [retry.after_error(error, report()) for _ in range(4)]
    assert delays.pop() is None
    for delay, most in zip(delays, (8, 16, 32), strict=True):
        assert delay is not None
        assert most / 2 <= delay <= most


def test_refusals_have_a_number_of_their_own() -> None:
    message = report()
    retry = Retry(PoolConfig(connect_retries=0, retry_temporary=1))
    assert retry.after_refusal(message) is None  # nothing was refused
