"""Whether a message is tried again."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from trio_smtp import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Delivery,
    LocalProtocolError,
    MessageRefusedError,
    PoolConfig,
    Reply,
    SMTPError,
    SMTPTimeoutError,
    TLSError,
    UnsupportedAuthError,
)
from trio_smtp._client.content import ContentLike
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.retry import Retry, is_of_the_wire, is_passing


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


def report_of(content: ContentLike = b"x\r\n") -> DeliveryReport:
    return DeliveryReport(Message("a@x.test", ["b@y.test"], content))


def lost(delivery: Delivery = Delivery.NOT_SENT) -> ConnectionLostError:
    return ConnectionLostError("lost", delivery=delivery)


def caused(error: SMTPError, cause: BaseException) -> SMTPError:
    error.__cause__ = cause
    return error


def test_delays_double_up_to_the_number_of_tries() -> None:
    retry = Retry(PoolConfig(connect_retries=3, retry_delay=2))
    assert [retry.after_error(lost(), report_of()) for _ in range(4)] == [2, 4, 8, None]
    assert repr(retry) == "<Retry: 3 after errors, 0 after refusals>"


def test_an_unknown_fate_is_tried_again_only_if_asked_for() -> None:
    error = lost(Delivery.UNKNOWN)
    assert Retry(PoolConfig()).after_error(error, report_of()) is None
    assert Retry(PoolConfig(on_unknown="retry")).after_error(error, report_of()) == 1


def test_a_stream_that_was_begun_is_not_tried_again() -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"x"

    report = report_of(stream())
    assert Retry(PoolConfig()).after_error(lost(), report) == 1
    report.stream()
    assert Retry(PoolConfig()).after_error(lost(), report) is None


def test_errors_of_others_are_not_tried_again() -> None:
    assert Retry(PoolConfig()).after_error(OSError("disk"), report_of()) is None


def test_an_error_of_the_callers_own_is_not_tried_again() -> None:
    report, error = report_of(), ConnectionLostError("the store is gone", delivery=Delivery.NOT_SENT)
    assert Retry(PoolConfig()).after_error(error, report) is not None
    report.blame_caller(error)
    assert Retry(PoolConfig()).after_error(error, report) is None


def test_refusals_with_4xx_so_many_times() -> None:
    retry = Retry(PoolConfig(retry_temporary=2, retry_delay=1))
    report = report_of()
    assert retry.after_refusal(report) is None
    report.refused["b@y.test"] = Reply(550, "no")
    assert retry.after_refusal(report) is None
    report.refused["b@y.test"] = Reply(451, "later")
    assert [retry.after_refusal(report) for _ in range(3)] == [1, 2, None]


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (ConnectError("refused", delivery=Delivery.NOT_SENT), True),
        (ConnectError("greeted with 421", reply=Reply(421, "x"), delivery=Delivery.NOT_SENT), True),
        (ConnectError("greeted with 554", reply=Reply(554, "x"), delivery=Delivery.NOT_SENT), False),
        (
            caused(
                ConnectError("no such host", delivery=Delivery.NOT_SENT), socket.gaierror(socket.EAI_NONAME, "no name")
            ),
            False,
        ),
        (
            caused(ConnectError("no answer", delivery=Delivery.NOT_SENT), socket.gaierror(socket.EAI_AGAIN, "later")),
            True,
        ),
        (lost(), True),
        (lost(Delivery.UNKNOWN), False),
        (SMTPTimeoutError("late", delivery=Delivery.NOT_SENT), True),
        (AuthenticationError("no", reply=Reply(535, "x"), delivery=Delivery.NOT_SENT), False),
        (AuthenticationError("later", reply=Reply(454, "x"), delivery=Delivery.NOT_SENT), True),
        (UnsupportedAuthError("none", delivery=Delivery.NOT_SENT), False),
        (LocalProtocolError("mine", delivery=Delivery.NOT_SENT), False),
        (MessageRefusedError("no", reply=Reply(451, "x"), delivery=Delivery.REFUSED), False),
    ],
)
def test_is_passing(error: SMTPError, passing: bool) -> None:
    assert is_passing(error) is passing


@pytest.mark.parametrize(
    ("error", "of_the_wire"),
    [
        (ConnectError("x"), True),
        (LocalProtocolError("x"), False),
        (TLSError("STARTTLS was refused", reply=Reply(454, "x")), True),
        (TLSError("STARTTLS was refused", reply=Reply(554, "x")), False),
        (TLSError("STARTTLS is not offered"), False),
        (caused(TLSError("cut short"), ssl.SSLEOFError()), True),
        (caused(TLSError("cut short"), ConnectionResetError()), True),
        (caused(TLSError("a bad certificate"), ssl.SSLCertVerificationError()), False),
    ],
)
def test_is_of_the_wire(error: SMTPError, of_the_wire: bool) -> None:
    assert is_of_the_wire(error) is of_the_wire
