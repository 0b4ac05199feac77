# The message in progress and the octets of a refused chunk: who has them, and how many there were.
from __future__ import annotations

import pytest
from core_session import ENVELOPE, Core, codes

from trio_smtp import Reply, ServerConfig
from trio_smtp._protocol.server.events import BODY_END, NEED_DATA, Signal
from trio_smtp._protocol.server.input import LineReader
from trio_smtp._protocol.server.message import CHUNK_TAKEN, FINISHED
from trio_smtp._protocol.server.states import State
from trio_smtp._protocol.server.transfer import IncomingTransfer

CONFIG = ServerConfig(hostname="mx.test", max_message_size=10)
NO = Reply(503, "no")


@pytest.fixture
def source() -> LineReader:
    return LineReader(512, 512)


def test_octets_are_counted_when_a_message_is_over(source: LineReader):
    transfer = IncomingTransfer()
    assert transfer.take_octets() == 0
    for before in (0, 6):
        message = transfer.begin(source, CONFIG, binary=False, chunking=False)
        source.feed(b"text\r\n.\r\nNOOP\r\n")
        assert message.next() == b"text\r\n"
        assert message.next() is BODY_END
        assert transfer.take_octets() == before
        transfer.end()
        assert transfer.message is None
        assert source.next_line() == b"NOOP\r\n"
    assert transfer.take_octets() == 6
    assert transfer.take_octets() == 0


def test_refused_octets_are_dropped(source: LineReader):
    transfer = IncomingTransfer()
    transfer.refuse(5, NO, State.MAIL)
    assert transfer.drop(source) is None
    source.feed(b"abc")
    assert transfer.drop(source) is None
    source.feed(b"deNOOP\r\n")
    assert transfer.drop(source) is NO
    assert source.next_line() == b"NOOP\r\n"
    assert transfer.refused_chunks == 1
    assert transfer.state_before is State.MAIL


def test_an_empty_chunk_is_dropped_at_once(source: LineReader):
    transfer = IncomingTransfer()
    transfer.refuse(0, NO, State.MAIL)
    assert transfer.drop(source) is NO


def test_a_message_in_chunks(source: LineReader):
    message = IncomingTransfer().begin(source, CONFIG, binary=False, chunking=True)
    message.begin_chunk(4, False)
    assert message.next() is NEED_DATA
    source.feed(b"ab\r\n")
    assert message.next() == b"ab\r\n"
    assert message.next() is CHUNK_TAKEN
    message.begin_chunk(0, True)
    assert message.next() is BODY_END
    assert message.fault is None
    assert message.content.received == 4


def test_a_message_that_is_too_large_is_read_to_its_end(source: LineReader):
    message = IncomingTransfer().begin(source, CONFIG, binary=False, chunking=False)
    source.feed(b"0123456789\r\n")
    assert message.next() is Signal.BODY_TOO_LARGE
    source.feed(b"more\r\n.\r\n")
    assert message.next() is None
    assert message.next() is BODY_END
    assert message.fault is not None
    assert message.fault.code == 552


def test_a_concluded_message_is_dropped_to_its_end(source: LineReader):
    message = IncomingTransfer().begin(source, CONFIG, binary=False, chunking=False)
    message.conclude(Reply(250))
    source.feed(b"a\r\n")
    assert message.next() is None
    source.feed(b".\r\n")
    assert message.next() is FINISHED


def test_what_was_received_is_asked_for_through_the_session():
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\nhi\r\n.\r\n" + ENVELOPE + b"BDAT 3\r\nabcRSET\r\n")
    assert core.protocol.transfer.take_octets() == 7
    assert codes(core.say(b"NOOP\r\n")) == ["250"]
    assert core.protocol.transfer.take_octets() == 0
