# What a path may name: a file that can be read again, or something that gives its octets once.
from __future__ import annotations

import email
import os
import threading
from email.header import Header
from email.message import EmailMessage, Message
from email.policy import SMTP, SMTPUTF8, Policy, compat32, default
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import trio_smtp
from trio_smtp import LocalProtocolError
from trio_smtp._client import content as content_module
from trio_smtp._client.content import SMALL_FILE, as_content
from trio_smtp._message.serializer import IN_THREAD, serialize
from trio_smtp.testing import open_sink


@pytest.mark.parametrize("size", [0, 10, 2 * SMALL_FILE])
async def test_what_a_pipe_held_is_all_there_and_can_be_sent_again(tmp_path: Path, size: int) -> None:
    octets = b"0123456789abcde\n" * (size // 16) + b"x" * (size % 16)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(octets,), daemon=True)
    writer.start()
    content = as_content(path)
    for _ in range(2):  # a second time for further recipients, or on another connection
        source = await content.open(eight_bit=True, utf8=False)
        assert source.whole == octets
    writer.join(10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "a\r\n\r\nbody"),
        ("Subject", "a\r\nX-Evil: 1"),
        ("Subject", "a\nX-Evil: 1"),
        ("Subject", "a\rb"),
        ("Subject", "a\0b"),
        ("X\r\nEvil", "1"),
        ("X\fEvil", "1"),
    ],
)
async def test_a_header_field_that_would_end_before_its_end_is_refused(name: str, value: str) -> None:
    message = Message()
    message[name] = value
    message.set_payload("hi")
    with pytest.raises(LocalProtocolError):
        await as_content(message).open(eight_bit=True, utf8=False)


async def test_a_folded_header_field_is_none_of_those() -> None:
    message = email.message_from_bytes(b"Subject: one\r\n two\r\nTo: a@x.test\n\n\nhi\r\n")
    source = await as_content(message).open(eight_bit=True, utf8=False)
    assert source.whole is not None
    assert b"Subject: one\r\n two\r\n" in source.whole


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("Subject: grüße\r\n\r\nhi\r\n", True),
        ("Subject: a\r\nX: grüße", True),
        ("Subject : grüße\n\nhi\n", True),
        ("Subject: a\r\n\r\ngrüße\r\n", False),
        ("Subject: a\n\ngrüße\n", False),
        ("\r\ngrüße: a\r\n", False),
        ("grüße\r\n", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("size", [0, SMALL_FILE + 100])
async def test_utf8_in_a_header_is_found_in_files_of_any_size(
    tmp_path: Path, octets: str, expected: bool, size: int
) -> None:
    path = tmp_path / "message"
    more = b"x" * (max(0, size - len(octets)) if "\n" in octets else 0)
    path.write_bytes(octets.encode() + more)
    source = await as_content(path).open(eight_bit=True, utf8=False)
    assert source.utf8 is expected
    assert (source.whole is None) is (len(more) > SMALL_FILE)
    latin = path.with_suffix(".latin")
    latin.write_bytes(octets.encode("latin-1") + more)
    assert not (await as_content(latin).open(eight_bit=True, utf8=False)).utf8


@pytest.mark.parametrize("cut", [0, 1])
async def test_a_character_may_be_cut_at_the_end_of_the_first_block(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"Subject:" + b" " * ((SMALL_FILE + 1) % 2 + cut) + "ü".encode() * (SMALL_FILE + 1))
    assert (await as_content(path).open(eight_bit=True, utf8=False)).utf8


@pytest.mark.parametrize("policy", [compat32, default, SMTP, SMTPUTF8], ids=["compat32", "default", "smtp", "smtputf8"])
async def test_a_parsed_header_becomes_encoded_words_where_utf8_cannot_be_sent(policy: Policy) -> None:
    raw = (
        "From: Jürgen Müller <j@x.test>\r\nSubject: viele liebe\r\n Grüße an alle\r\nX-Plain: ascii\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nbödy\r\n"
    ).encode()
    message = email.message_from_bytes(raw, policy=policy)
    before = list(message.raw_items())
    source = await as_content(message).open(eight_bit=True, utf8=False)
    assert source.whole is not None
    assert not source.utf8
    header, body = source.whole.split(b"\r\n\r\n", 1)
    assert header.isascii()
    assert body == "bödy\r\n".encode()
    again = email.message_from_bytes(source.whole, policy=default)
    assert again["Subject"] == "viele liebe Grüße an alle"
    assert [(a.display_name, a.addr_spec) for a in again["From"].addresses] == [("Jürgen Müller", "j@x.test")]
    assert again["X-Plain"] == "ascii"
    assert list(message.raw_items()) == before  # left as it was
    latin = email.message_from_bytes(b"Subject: gr\xfc\xdfe\r\n\r\nhi\r\n", policy=policy)
    assert serialize(latin, eight_bit=True, utf8=False) == b"Subject: gr\xfc\xdfe\r\n\r\nhi\r\n"


SPLITTERS = "\v\f\x1c\x1d\x1e"  # str.splitlines() ends a line at these, and so does the email package
WIDE_SPLITTERS = "\x85\u2028\u2029"
TEXTS = st.text(st.sampled_from("a ü\tB:\x1b\x1f" + SPLITTERS + WIDE_SPLITTERS), max_size=100)


def with_header(kind: str, text: str) -> Message:
    """A message with this text in two fields of its header, made in one of the ways there are."""
    message: Message
    if kind in POLICIES:
        raw = f"From: a@x.test\r\nSubject: x{text}x\r\nX-Other: y{text}y\r\n\r\nhi\r\n".encode()
        return email.message_from_bytes(raw, policy=POLICIES[kind])
    message = EmailMessage() if kind == "EmailMessage" else Message()
    message["From"] = "a@x.test"
    message["Subject"] = Header(f"x{text}x") if kind == "Header" else f"x{text}x"  # type: ignore[assignment]
    message["X-Other"] = Header(f"y{text}y", "utf-8") if kind == "Header" else f"y{text}y"  # type: ignore[assignment]
    message.set_payload("hi\n")
    return message


POLICIES: dict[str, Policy] = {"compat32": compat32, "default": default, "SMTP": SMTP, "SMTPUTF8": SMTPUTF8}
KINDS = ["EmailMessage", "Message", "Header", *POLICIES]


@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
def test_no_character_of_a_header_field_begins_another(kind: str, utf8: bool, text: str) -> None:
    try:
        message = with_header(kind, text)
    except ValueError:  # an EmailMessage refuses most of them itself
        return
    if set(text) & set(SPLITTERS):
        with pytest.raises(LocalProtocolError):
            serialize(message, eight_bit=True, utf8=utf8)
        return
    header, body = serialize(message, eight_bit=True, utf8=utf8).split(b"\r\n\r\n", 1)
    assert body == b"hi\r\n"
    lines = header.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    names = [line.split(b":")[0] for line in lines if line[:1] not in (b" ", b"\t")]
    assert names == [b"From", b"Subject", b"X-Other"]


@pytest.mark.parametrize("character", SPLITTERS)
@pytest.mark.parametrize("kind", KINDS)
def test_characters_that_the_email_package_breaks_lines_at_are_refused(kind: str, character: str) -> None:
    for text in (character, character * 2 + "Bcc: evil@z.test", f"ü{character}Bcc: evil@z.test"):
        with pytest.raises(ValueError if kind == "EmailMessage" else LocalProtocolError):
            serialize(with_header(kind, text), eight_bit=True, utf8=False)


# -- message objects


def large_message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "a@x.test", "b@y.test"
    message.add_attachment(b"x" * IN_THREAD, maintype="application", subtype="octet-stream")
    return message


async def test_a_large_message_object_is_written_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def write(*args: Any, **kwargs: Any) -> bytes:
        threads.append(threading.get_ident())
        return serialize(*args, **kwargs)

    monkeypatch.setattr(content_module, "serialize", write)
    small = EmailMessage()
    small.set_content("hi\n")
    for message in (small, large_message()):
        content = as_content(message)
        assert content.at_hand is (message is small)
        for _ in range(2):  # it is written once
            source = await content.open(eight_bit=True, utf8=False)
        assert source.whole == serialize(message, eight_bit=True, utf8=False) or message is not small
    assert len(threads) == 2
    assert threads[0] == threading.get_ident() != threads[1]


async def test_a_cancellation_does_not_wait_for_a_message_object_to_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def write(*args: Any, **kwargs: Any) -> bytes:
        begun.set()
        assert go_on.wait(10)
        ended.set()
        return serialize(*args, **kwargs)

    monkeypatch.setattr(content_module, "serialize", write)
    content = as_content(large_message())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(content.open, eight_bit=True, utf8=False))
        assert await trio.to_thread.run_sync(begun.wait, 10)
        nursery.cancel_scope.cancel()
    assert not ended.is_set()
    go_on.set()
    assert await trio.to_thread.run_sync(ended.wait, 10)
    source = await content.open(eight_bit=True, utf8=False)  # it is of further use
    assert source.whole is not None


async def test_a_large_message_arrives_and_cancelling_it_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool,
    ):
        await pool.send_message(large_message())
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.send_message(large_message())
        assert scope.cancelled_caught
        await pool.send_message(large_message())
    assert [len(message.recipients) for message in sink.messages] == [1, 1]


@pytest.mark.parametrize("policy", [compat32, default], ids=["compat32", "default"])
@pytest.mark.parametrize("offers", [True, False])
async def test_a_parsed_header_in_utf8_goes_out_as_it_came_where_the_server_takes_it(
    policy: Policy, offers: bool
) -> None:
    raw = "From: Jürgen <j@x.test>\r\nTo: b@y.test\r\nSubject: Grüße\r\n\r\nhi\r\n".encode()
    config = trio_smtp.ServerConfig(disabled_extensions=() if offers else ("SMTPUTF8",))
    async with (
        open_sink(config=config) as sink,
        trio_smtp.open_client("localhost", stream=sink.connect(), **sink.client_options) as client,
    ):
        await client.send_message(email.message_from_bytes(raw, policy=policy))
    [message] = sink.messages
    assert message.envelope.sender.smtputf8 is offers
    assert (message.content == raw) is offers
    assert message.content.isascii() is not offers
    assert message.message["Subject"] == "Grüße" or offers


async def test_a_composed_header_needs_no_smtputf8() -> None:
    message = EmailMessage(policy=SMTPUTF8)
    message["From"], message["To"], message["Subject"] = "Jürgen <j@münchen.de>", "b@y.test", "Grüße"
    message.set_content("hi\n")
    async with (
        open_sink() as sink,
        trio_smtp.open_client("localhost", stream=sink.connect(), **sink.client_options) as client,
    ):
        await client.send_message(message)
    [received] = sink.messages
    assert not received.envelope.sender.smtputf8
    assert received.content.isascii()
    assert received.message["From"] == "Jürgen <j@xn--mnchen-3ya.de>"


async def test_a_message_that_cannot_be_written_harms_no_other() -> None:
    signed = email.message_from_bytes(
        b"From: a@x.test\nTo: b@y.test\nContent-Type: multipart/signed; boundary=s\n\n--s\n\n\xff\n--s--\n"
    )
    broken = EmailMessage()
    broken["From"], broken["To"] = "a@x.test", "b@y.test"
    broken.set_payload(["\ud800"])
    fine = EmailMessage()
    fine["From"], fine["To"] = "a@x.test", "b@y.test"
    config = trio_smtp.ServerConfig(disabled_extensions=("8BITMIME", "SMTPUTF8"))
    async with (
        open_sink(config=config) as sink,
        trio_smtp.open_client("localhost", stream=sink.connect(), **sink.client_options) as client,
    ):
        for message in (signed, broken):
            with pytest.raises(LocalProtocolError) as caught:
                await client.send_message(message)
            assert caught.value.delivery is trio_smtp.Delivery.NOT_SENT
        await client.send_message(fine)
    assert len(sink.messages) == 1
