# Replies in: read whole and octet by octet, and limits at n and n + 1.
from __future__ import annotations

import pytest

from trio_smtp import RemoteProtocolError, Reply
from trio_smtp._protocol.reply_reader import MAX_LINES, ReplyReader


def read(wire: bytes, size: int, **options: int) -> list[Reply]:
    reader = ReplyReader(**options)
    replies = []
    for at in range(0, len(wire), size):
        reader.receive_data(wire[at : at + size])
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    assert not reader.unread
    return replies


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"250 OK\r\n", [(250, None, ("OK",))]),
        (b"250\r\n", [(250, None, ("",))]),
        (b"250 \r\n", [(250, None, ("",))]),
        (b"250 2.1.0 OK\r\n", [(250, "2.1.0", ("OK",))]),
        (b"250 2.1.0\r\n", [(250, "2.1.0", ("",))]),
        (b"250 2.1.0.1 OK\r\n", [(250, None, ("2.1.0.1 OK",))]),
        (b"250 5.1.0 OK\r\n", [(250, None, ("5.1.0 OK",))]),
        (b"250 2.01.0 OK\r\n", [(250, None, ("2.01.0 OK",))]),
        (b"250-a\r\n250-\r\n250 b\r\n", [(250, None, ("a", "", "b"))]),
        (b"550-5.7.1 a\r\n550 5.7.1 b\r\n", [(550, "5.7.1", ("a", "b"))]),
        (b"550-5.7.1 a\r\n550 b\r\n", [(550, "5.7.1", ("a", "b"))]),
        (b"250 a\r\n550 b\r\n354\r\n", [(250, None, ("a",)), (550, None, ("b",)), (354, None, ("",))]),
        (b"250 bare\n250 lf\n", [(250, None, ("bare",)), (250, None, ("lf",))]),
        (b"299 odd\r\n", [(299, None, ("odd",))]),
        (b"250 \xff\xfc\r\n", [(250, None, ("\\xff\\xfc",))]),
        ("250 gr\u00fcn\r\n".encode(), [(250, None, ("gr\u00fcn",))]),
    ],
)
def test_replies_are_read(wire: bytes, expected: list[object], size: int):
    for _ in range(2):  # the second time, some come from the table of known ones
        assert [(reply.code, reply.enhanced, reply.lines) for reply in read(wire, size)] == expected


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n",
        b"25 x\r\n",
        b"2500 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"250_x\r\n",
        b"-250 x\r\n",
        b" 250\r\n",
        b"250-a\r\n251 b\r\n",
        b"250-a\r\nb\r\n",
        b"\xb2\xb5\xb0 x\r\n",
        b"\x00\x00\x00\n",
    ],
)
def test_what_is_no_reply(wire: bytes, size: int):
    with pytest.raises(RemoteProtocolError):
        read(wire, size)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_limit_of_one_reply(size: int):
    longest = b"250 " + b"x" * (100 - 5) + b"\n"
    assert len(longest) == 100
    assert len(read(longest * 3, size, max_size=100)) == 3
    with pytest.raises(RemoteProtocolError, match="more than 100 octets"):
        read(longest[:-1] + b"x\n", size, max_size=100)
    lines = b"250-x\r\n" * 13 + b"250 xxxx\n"
    assert len(lines) == 100
    assert len(read(lines, size, max_size=100)) == 1
    with pytest.raises(RemoteProtocolError, match="more than 100 octets"):
        read(b"250-x\r\n" * 13 + b"250 xxxxx\n", size, max_size=100)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("limit", [1, 20, MAX_LINES])
def test_the_lines_of_one_reply(limit: int, size: int):
    most = b"250-\n" * (limit - 1) + b"250 x\n"
    assert [len(reply.lines) for reply in read(most * 3, size, max_lines=limit)] == [limit] * 3
    with pytest.raises(RemoteProtocolError, match=f"more than {limit} lines"):
        read(b"250-\n" * limit + b"250 x\n", size, max_lines=limit)
    with pytest.raises(RemoteProtocolError, match=f"more than {limit} lines"):
        read(b"250-\n" * limit, size, max_lines=limit)  # before the last line has come


def test_lines_are_limited_without_being_asked():
    assert len(read(b"250-\n" * (MAX_LINES - 1) + b"250 x\n", 1000)) == 1
    with pytest.raises(RemoteProtocolError, match="lines"):
        read(b"250-\n" * MAX_LINES + b"250 x\n", 1000)


def test_a_line_without_end_is_given_up():
    reader = ReplyReader(max_size=1000)
    reader.receive_data(b"2" * 1000)
    with pytest.raises(RemoteProtocolError):
        reader.next_reply()


def test_half_a_reply_is_something():
    reader = ReplyReader()
    for wire in (b"250-a\r\n", b"25"):
        reader.receive_data(wire)
        assert reader.next_reply() is None
        assert reader.unread
    reader.receive_data(b"0 b\r\n")
    assert reader.next_reply() == Reply(250, "a\nb")
    assert not reader.unread


@pytest.mark.parametrize("text", ["OK", "a\nb", "", "2.0.0", "250 x", "x" * 2000])
@pytest.mark.parametrize("code", [250, 354, 421, 550])
def test_there_and_back(code: int, text: str):
    reply = Reply(code, text)
    [back] = read(reply.to_bytes(), 3)
    assert back.code == code
    assert "".join(back.lines) == "".join(reply.lines)


@pytest.mark.parametrize("size", [1, 1000])
def test_blank_lines_are_limited(size: int) -> None:
    def read(wire: bytes) -> list[int]:
        reader, codes = ReplyReader(), list[int]()
        for at in range(0, len(wire), size):
            reader.receive_data(wire[at : at + size])
            while (reply := reader.next_reply()) is not None:
                codes.append(reply.code)
        return codes

    assert read((b"\r\n" * 32 + b"250 ok\r\r\n") * 20) == [250] * 20
    with pytest.raises(RemoteProtocolError, match="not an SMTP reply"):
        read(b"\r\n" * 33 + b"250 ok\r\n")
