# Replies that wait to be sent: how many gather, how they are written, what is noted of them.
from __future__ import annotations

from trio_smtp import Reply
from trio_smtp._protocol.server.reply_queue import MAX_REPLIES, ReplyQueue
from trio_smtp._protocol.server.transcript import Transcript

OK = Reply(250, "OK")


def make_queue(*, enhanced: bool = True, max_octets: int = 65536) -> ReplyQueue:
    return ReplyQueue(enhanced=enhanced, max_octets=max_octets)


def test_replies_leave_in_one_piece():
    queue = make_queue()
    assert queue.take() == b""
    queue.put(OK)
    assert queue.take() == b"250 2.0.0 OK\r\n"
    queue.put(OK)
    queue.put(Reply(550, "no"))
    assert queue.take() == b"250 2.0.0 OK\r\n550 5.0.0 no\r\n"
    assert queue.take() == b""


def test_the_list_to_look_at_stays_the_same():
    queue = make_queue()
    waiting = queue.waiting
    queue.put(OK)
    assert waiting == [b"250 2.0.0 OK\r\n"]
    queue.take()
    assert not waiting
    queue.put(OK)
    assert len(waiting) == 1
    queue.drop()
    assert not waiting
    assert queue.waiting is waiting


def test_enhanced_codes_are_written_where_they_are_offered_and_wanted():
    queue = make_queue()
    queue.put(OK, enhanced=False)
    assert queue.take() == b"250 OK\r\n"
    queue = make_queue(enhanced=False)
    queue.put(OK)
    assert queue.take() == b"250 OK\r\n"


def test_utf8_is_written_where_it_may_be():
    queue = make_queue(enhanced=False)
    queue.put(Reply(250, "jä"))
    queue.put(Reply(250, "jä"), utf8=True)
    assert queue.take() == b"250 j\\xe4\r\n" + "250 jä\r\n".encode()


def test_a_flush_is_due_when_many_have_gathered():
    queue = make_queue()
    for _ in range(MAX_REPLIES - 1):
        queue.put(OK)
    assert not queue.flush_due
    queue.put(OK)
    assert queue.flush_due
    queue.note_flush()
    queue.take()
    queue.put(OK)
    assert not queue.flush_due


def test_a_flush_is_due_when_many_octets_have_gathered():
    queue = make_queue(max_octets=2 * len(b"250 2.0.0 OK\r\n"))
    queue.put(OK)
    assert not queue.flush_due
    queue.put(OK)
    assert queue.flush_due
    assert repr(queue) == "<ReplyQueue: 2 replies, 28 octets, flush due>"


def test_a_flush_can_be_demanded():
    queue = make_queue()
    queue.demand_flush()
    assert queue.flush_due
    queue.note_flush()
    assert not queue.flush_due


def test_each_reply_is_noted():
    noted: list[tuple[str, bytes]] = []
    queue = make_queue()
    queue.put(OK)
    queue.record(Transcript(lambda direction, line: noted.append((direction, line)), ()))
    queue.put(OK)
    queue.put(Reply(334, "c2VjcmV0"))
    assert noted == [(">", b"250 2.0.0 OK\r\n"), (">", b"334 ***")]
