# The server's lines: whole ones, in any pieces, of bounded length.
from __future__ import annotations

import pytest

from trio_smtp._protocol.server.input import MAX_SKIPPED, LineReader, LineTooLong


def read_all(reader: LineReader) -> list[bytes]:
    lines = []
    while (line := reader.next_line()) is not None:
        lines.append(line)
    return lines


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_lines_in_any_pieces(size: int):
    wire, lines = b"one\r\ntwo\nthree\r\n\r\nfou", []
    reader = LineReader(20, 30)
    for at in range(0, len(wire), size):
        reader.feed(wire[at : at + size])
        lines += read_all(reader)
    assert lines == [b"one\r\n", b"two\n", b"three\r\n", b"\r\n"]
    assert reader.take_all() == b"fou"
    assert not reader


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_that_is_too_long_is_dropped_whole(size: int):
    wire = b"NOOP " + b"x" * 30 + b"\r\nNOOP\r\n"
    reader, errors, lines = LineReader(20, 20), [], []
    for at in range(0, len(wire), size):
        reader.feed(wire[at : at + size])
        try:
            lines += read_all(reader)
        except LineTooLong as exc:
            errors.append((exc.auth, exc.endless))
            lines += read_all(reader)
    assert errors == [(False, False)]
    assert lines == [b"NOOP\r\n"]


def test_auth_has_more_room():
    reader = LineReader(20, 40)
    reader.feed(b"AUTH " + b"x" * 30 + b"\r\n")
    assert reader.next_line() is not None
    reader.feed(b"x" * 30 + b"\r\n")
    assert reader.next_line(True) is not None
    reader.feed(b"AUTH " + b"x" * 40 + b"\r\n")
    with pytest.raises(LineTooLong) as caught:
        reader.next_line()
    assert caught.value.auth
    assert not caught.value.endless


def test_a_line_without_an_end_is_given_up():
    reader = LineReader(20, 20)
    reader.feed(b"x" * 20)
    assert reader.next_line() is None
    assert reader.is_skipping
    assert not reader
    reader.feed(b"x" * MAX_SKIPPED)
    with pytest.raises(LineTooLong, match="without an end") as caught:
        reader.next_line()
    assert caught.value.endless
