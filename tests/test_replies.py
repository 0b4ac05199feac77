# Replies as values and as bytes, and limits at n and n + 1. test_reply_reader.py reads them.
from __future__ import annotations

import copy
import pickle

import pytest

from trio_smtp import Reject, Reply
from trio_smtp._protocol.replies import KEPT, KEPT_LINES, MAX_LINE


@pytest.mark.parametrize("code", [199, 600, 0, -250, 260, 299, 561, 1000])
def test_codes_that_are_none(code: int):
    with pytest.raises(ValueError, match="not an SMTP reply code"):
        Reply(code)


@pytest.mark.parametrize("code", [200, 211, 250, 259, 354, 421, 450, 554, 559])
def test_codes_that_are(code: int):
    assert Reply(code).code == code


@pytest.mark.parametrize(
    "enhanced", ["", "5", "5.7", "5.7.1.1", "5.07.1", "5.7.1000", "3.0.0", "5.7.x", "5.7.1 ", "٥.7.1"]
)
def test_enhanced_codes_that_are_none(enhanced: str):
    with pytest.raises(ValueError, match="enhanced"):
        Reply(550, "", enhanced)


@pytest.mark.parametrize(("code", "enhanced"), [(250, "5.0.0"), (450, "5.0.0"), (550, "2.0.0"), (354, "2.0.0")])
def test_an_enhanced_code_of_another_class(code: int, enhanced: str):
    with pytest.raises(ValueError, match="does not agree"):
        Reply(code, "", enhanced)


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250), b"250 2.0.0 \r\n"),
        (Reply(250, "OK"), b"250 2.0.0 OK\r\n"),
        (Reply(450, "later"), b"450 4.0.0 later\r\n"),
        (Reply(550, "no", "5.7.1"), b"550 5.7.1 no\r\n"),
        (Reply(354, "go on"), b"354 go on\r\n"),
        (Reply(250, "a\nb\r\nc"), b"250-2.0.0 a\r\n250-2.0.0 b\r\n250 2.0.0 c\r\n"),
        (Reply(250, ["a", "b"]), b"250-2.0.0 a\r\n250 2.0.0 b\r\n"),
        (Reply(250, []), b"250 2.0.0 \r\n"),
        (Reply(250, "a\n"), b"250 2.0.0 a\r\n"),
        (Reply(250, "a\rb\0c\x7f\x1b"), b"250-2.0.0 a\r\n250 2.0.0 b?c??\r\n"),
        (Reply(250, "a\tb"), b"250 2.0.0 a\tb\r\n"),
        (Reply(250, "gr\u00fcn"), b"250 2.0.0 gr\\xfcn\r\n"),
        (Reply(250, ["x\r\n550 y"]), b"250-2.0.0 x\r\n250 2.0.0 550 y\r\n"),
    ],
)
def test_as_bytes(reply: Reply, wire: bytes):
    assert reply.to_bytes() == wire
    assert reply.to_bytes() is reply.to_bytes()


def test_without_enhanced_code_and_in_utf8():
    assert Reply(250, "OK", "2.1.0").to_bytes(enhanced=False) == b"250 OK\r\n"
    assert Reply(250, "gr\u00fcn").to_bytes(utf8=True) == "250 2.0.0 gr\u00fcn\r\n".encode()
    assert Reply(250, "\ud800").to_bytes(utf8=True) == b"250 2.0.0 ?\r\n"


@pytest.mark.parametrize("length", [501, 502, 503, 1004, 1005, 5000])
@pytest.mark.parametrize("letter", ["x", "\u00fc", "\U0001f4ee"])
def test_no_line_is_longer_than_512_octets(length: int, letter: str):
    for utf8 in (False, True):
        wire = Reply(550, letter * length, "5.7.1").to_bytes(utf8=utf8)
        lines = wire.splitlines(keepends=True)
        assert max(map(len, lines)) <= MAX_LINE
        assert all(line.endswith(b"\r\n") for line in lines)
        wire.decode()  # no character is cut
        text = b"".join(line[10:-2] for line in lines).decode()
        assert text == (
            letter * length if utf8 or letter == "x" else (letter * length).encode("ascii", "backslashreplace").decode()
        )
    assert len(Reply(550, "x" * 500, "5.7.1").to_bytes().splitlines()) == 1
    assert len(Reply(550, "x" * 501, "5.7.1").to_bytes().splitlines()) == 2


def test_value():
    reply = Reply(450, "a\nb", "4.2.0")
    assert (reply.code, reply.text, reply.lines, reply.enhanced, reply.close) == (
        450,
        "a\nb",
        ("a", "b"),
        "4.2.0",
        False,
    )
    assert (reply.is_success, reply.is_temporary, reply.is_permanent) == (False, True, False)
    assert reply == Reply(450, ["a", "b"], "4.2.0")
    assert hash(reply) == hash(Reply(450, ["a", "b"], "4.2.0"))
    assert reply not in (Reply(450, "a\nb"), Reply(451, "a\nb", "4.2.0"), Reply(450, "a\nb", "4.2.0", close=True), 450)
    assert str(reply) == "450 4.2.0 a / b"
    assert eval(repr(reply), {"Reply": Reply}) == reply
    with pytest.raises(AttributeError, match="immutable"):
        reply.code = 250


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (("ok",), "250 ok"),
        (("ok ",), "250 ok"),
        ((" ok\t",), "250  ok"),
        (("j\u00f6rg",), "250 j\u00f6rg"),
        (("\u00fc",), "250 \u00fc"),
        (("ok\u00a0\u3000",), "250 ok"),
        (("",), "250"),
        ((), "250"),
        (("a", "b "), "250 a / b"),
        (("a", ""), "250 a /"),
    ],
)
def test_a_reply_is_shown_in_one_line_without_space_behind_it(lines: tuple[str, ...], shown: str):
    assert str(Reply.received(250, lines, None)) == shown
    assert str(Reply.received(250, lines, "2.0.0")) == shown.replace("250", "250 2.0.0", 1)


@pytest.mark.parametrize("code", [250, 354, 399, 600])
def test_a_reject_is_a_refusal(code: int):
    with pytest.raises(ValueError, match="4xx or 5xx"):
        Reject(code)
    assert Reject(550, "no", "5.7.1", close=True).reply == Reply(550, "no", "5.7.1", close=True)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (("x",), ("x",)),
        (("x" * KEPT,), ("x" * KEPT,)),
        (("x" * (KEPT + 1),), ("x" * KEPT,)),
        (("a" * (KEPT - 1), "b"), ("a" * (KEPT - 1), "b")),
        (("a" * (KEPT - 1), "bc", "d"), ("a" * (KEPT - 1), "b")),
        (("a" * KEPT, "bc"), ("a" * KEPT,)),
        (("",) * KEPT_LINES, ("",) * KEPT_LINES),
        (("",) * (KEPT_LINES + 1), ("",) * KEPT_LINES),
    ],
)
def test_what_is_kept_of_one_of_many_replies(lines: tuple[str, ...], kept: tuple[str, ...]):
    reply = Reply.received(550, lines, "5.1.1")
    short = reply.abridged()
    assert (short.code, short.enhanced, short.lines) == (550, "5.1.1", kept)
    assert (short is reply) is (lines == kept)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_replies_and_rejections_can_be_copied_and_sent_to_other_processes(again):
    reply = Reply(550, ("no", "way"), "5.7.1", close=True)
    assert again(reply) == reply
    assert again(reply).to_bytes() == reply.to_bytes()
    assert again(Reject(451, "later", "4.3.0", close=True)).reply == Reply(451, "later", "4.3.0", close=True)
