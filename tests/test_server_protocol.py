# The server's core: whole dialogues, in one piece and octet by octet, have the same answers and the same messages.
from __future__ import annotations

from typing import Any

import pytest
from core_session import ENVELOPE, Core, codes

from trio_smtp import Reply
from trio_smtp._protocol.server.events import Hello, Mail, Rcpt, Signal
from trio_smtp._protocol.server.reply_queue import MAX_REPLIES

HELLO = b"EHLO x\r\n"
# name: (what is said, the codes, the messages, options)
DIALOGUES: dict[str, tuple[Any, ...]] = {
    "one message": (HELLO + ENVELOPE + b"DATA\r\ntext\r\n.\r\nQUIT\r\n", "250 250 250 354 250 221", [b"text\r\n"], {}),
    "empty message": (HELLO + ENVELOPE + b"DATA\r\n.\r\nNOOP\r\n", "250 250 250 354 250 250", [b""], {}),
    "dots": (
        HELLO + ENVELOPE + b"DATA\r\n..\r\n...\r\n..x\r\nx.\r\n.\r\nNOOP\r\n",
        "250 250 250 354 250 250",
        [b".\r\n..\r\n.x\r\nx.\r\n"],
        {},
    ),
    "cr cr lf": (HELLO + ENVELOPE + b"DATA\r\nabc\r\r\ndef\r\n.\r\nNOOP\r\n", "250 250 250 354 550 250", [], {}),
    "normalized": (
        HELLO + ENVELOPE + b"DATA\r\na\nb\rc\r\n.\n.\r\n.\r\nNOOP\r\n",
        "250 250 250 354 250 250",
        None,
        {"bare_newlines": "normalize"},
    ),
    "two messages": (
        HELLO + (ENVELOPE + b"DATA\r\n1\r\n.\r\n") * 2,
        "250 250 250 354 250 250 250 354 250",
        [b"1\r\n"] * 2,
        {},
    ),
    "chunks": (
        HELLO + ENVELOPE + b"BDAT 3\r\na\r\nBDAT 0\r\nBDAT 4 LAST\r\n.\r\nbNOOP\r\n",
        "250 250 250 250 250 250 250",
        [b"a\r\n.\r\nb"],
        {},
    ),
    "dropped chunks": (HELLO + b"BDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\nabNOOP\r\n", "250 503 503 250", [], {}),
    "too large": (
        HELLO + ENVELOPE + b"DATA\r\n" + b"x" * 30 + b"\r\n.\r\nNOOP\r\n",
        "250 250 250 354 552 250",
        [],
        {"max_message_size": 20},
    ),
    "chunks too large": (
        HELLO + ENVELOPE + b"BDAT 15\r\n" + b"x" * 15 + b"BDAT 10 LAST\r\n" + b"x" * 10 + b"NOOP\r\n",
        "250 250 250 250 552 250",
        [],
        {"max_message_size": 20},
    ),
    "one chunk too large": (
        HELLO + ENVELOPE + b"BDAT 1\r\nxBDAT 21 LAST\r\n",
        "250 250 250 250 552",
        [],
        {"max_message_size": 20},
    ),
    "given up between chunks": (
        HELLO + ENVELOPE + b"BDAT 3\r\nabcRSET\r\nBDAT 3\r\nabcNOOP\r\n",
        "250 250 250 250 250 503 250",
        [],
        {},
    ),
    "auth": (
        HELLO + b"AUTH LOGIN\r\neA==\r\neA==\r\nMAIL FROM:<>\r\n",
        "250 334 334 235 250",
        [],
        {"tls": True, "auth": "required"},
    ),
    "auth given up": (
        HELLO + b"AUTH PLAIN\r\n*\r\nMAIL FROM:<>\r\n",
        "250 334 501 530",
        [],
        {"tls": True, "auth": "required"},
    ),
    "wrong order": (
        b"MAIL FROM:<>\r\nDATA\r\n" + HELLO + b"RCPT TO:<a@a.test>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRSET\r\n",
        "503 503 250 503 250 503 503 250",
        [],
        {},
    ),
    "junk": (b"\r\nFOO\r\nHELO\r\nHELO a b\r\nNOOP x\r\nHELP\r\nVRFY x\r\n", "500 500 501 501 250 214 252", [], {}),
    "too long": (HELLO + b"NOOP " + b"x" * 3000 + b"\r\nNOOP\r\n", "250 500 250", [], {}),
    "bare lf": (HELLO + b"NOOP\nNOOP\r\n", "250 500", [], {}),
    "control": (HELLO + b"NOOP \0\r\nNOOP\r\n", "250 501 250", [], {}),
    "web": (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", "554", [], {}),
    "utf8": (
        HELLO + "MAIL FROM:<\u00fc@a.test> SMTPUTF8\r\nRCPT TO:<\u00fc@b.test>\r\nDATA\r\n\u00fc\r\n.\r\n".encode(),
        "250 250 250 354 250",
        ["\u00fc\r\n".encode()],
        {},
    ),
    "binary": (
        HELLO + b"MAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@b.test>\r\nDATA\r\nBDAT 4 LAST\r\n\0\n\r\xff",
        "250 250 250 503 250",
        [b"\0\n\r\xff"],
        {},
    ),
    "lmtp": (
        b"LHLO x\r\n" + ENVELOPE + b"RCPT TO:<c@b.test>\r\nDATA\r\ntext\r\n.\r\nNOOP\r\n",
        "250 250 250 250 354 250 250 250",
        [b"text\r\n"],
        {"lmtp": True},
    ),
    "errors": (HELLO + b"FOO\r\n" * 5, "250 500 500 500 421", [], {"max_errors": 3}),
}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("name", DIALOGUES)
def test_however_it_is_cut_the_answers_are_the_same(name: str, size: int):
    wire, answers, messages, options = DIALOGUES[name]
    core = Core(**options)
    assert codes(core.say_split(wire, size)) == answers.split()
    if messages is None:
        whole = Core(**options)
        whole.say(wire)
        messages = whole.messages
        assert len(messages) == 1
    assert core.messages == messages


def core_at_mail() -> Core:
    core = Core()
    core.say(HELLO)
    core.protocol.receive_data(b"MAIL FROM:<a@a.test>\r\n")
    return core


def test_an_event_must_be_answered_once():
    protocol = core_at_mail().protocol
    assert isinstance(protocol.next_event(), Mail)
    with pytest.raises(RuntimeError, match="was not answered"):
        protocol.next_event()
    protocol.accept()
    with pytest.raises(RuntimeError, match="no command"):
        protocol.accept()
    with pytest.raises(RuntimeError, match="no command"):
        protocol.answer(Reply(250))
    assert protocol.next_event() is Signal.NEED_DATA


def test_a_refused_event_changes_nothing():
    protocol = core_at_mail().protocol
    protocol.next_event()
    protocol.answer(Reply(550, "no"))
    assert protocol.transactions.envelope is None
    assert protocol.transactions.count == 0
    assert protocol.data_to_send() == b"550 5.0.0 no\r\n"


def test_nothing_after_the_last_word():
    core = Core()
    core.say(HELLO)
    core.protocol.close(Reply(421, "enough"))
    core.protocol.close(Reply(421, "twice"))
    assert core.say(b"NOOP\r\n") == ["421 4.0.0 enough"]
    assert core.protocol.next_event() is Signal.CLOSE


def test_the_end_of_input():
    core = Core()
    core.protocol.receive_data(b"EHLO x\r\nNOO")
    core.protocol.receive_data(b"")
    assert isinstance(core.protocol.next_event(), Hello)
    core.protocol.accept()
    assert core.protocol.next_event() is Signal.FLUSH
    assert core.protocol.next_event() is Signal.EOF
    assert core.protocol.next_event() is Signal.EOF


# ---- replies gather, but not without bound


def answer_recipients(core: Core, reply: Reply) -> tuple[int, int]:
    """Pipeline recipients; how many replies, and how many octets of them, had gathered when they were to be sent."""
    core.say(HELLO + b"MAIL FROM:<a@a.test>\r\n")
    core.protocol.receive_data(b"RCPT TO:<b@b.test>\r\n" * 1000)
    gathered = 0
    while isinstance(core.protocol.next_event(), Rcpt):
        core.protocol.answer(reply)
        gathered += 1
    assert len(core.protocol.replies) == gathered
    return gathered, len(core.protocol.data_to_send())


def test_no_more_than_so_many_replies_gather():
    core = Core(max_errors=None)
    assert answer_recipients(core, Reply(450, "no"))[0] == MAX_REPLIES
    for n in range(1, MAX_REPLIES + 1):  # the count begins anew
        assert isinstance(core.protocol.next_event(), Rcpt), n
        core.protocol.answer(Reply(450, "no"))
    assert core.protocol.next_event() is Signal.FLUSH


@pytest.mark.parametrize("limit", [None, 4096])
@pytest.mark.parametrize(("less", "gathered"), [(0, 4), (1, 5)])
def test_no_more_than_so_many_octets_of_replies_gather(limit: int | None, less: int, gathered: int):
    octets = (65536 if limit is None else limit) // 4 - less
    line = len("450-4.0.0 \r\n")
    lines = ["x" * (256 - line)] * (octets // 256 - 1)
    reply = Reply(450, [*lines, "x" * (octets - 256 * len(lines) - line)])
    assert len(reply.to_bytes()) == octets
    core = Core(max_errors=None) if limit is None else Core(max_errors=None, max_reply_buffer=limit)
    assert answer_recipients(core, reply) == (gathered, gathered * octets)
    for _ in range(gathered):  # the count begins anew
        assert isinstance(core.protocol.next_event(), Rcpt)
        core.protocol.answer(reply)
    assert core.protocol.next_event() is Signal.FLUSH
    assert len(core.protocol.data_to_send()) == gathered * octets
