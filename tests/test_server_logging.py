# What the trio_smtp logger gets: every command and reply at DEBUG, never a secret, never content; mistakes at ERROR.
from __future__ import annotations

import logging

import pytest
from core_session import Core
from support import DATA, MAIL, Recorder, session

import trio_smtp

PASSWORD = "hunter2"


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, "trio_smtp")
    return caplog


def trace(wire: bytes, **options: object) -> list[str]:
    core = Core(tls=True, **options)
    lines: list[str] = []
    core.protocol.transcribe(lambda direction, line: lines.append(f"{direction} {line.decode().rstrip()}"))
    core.say(b"EHLO x\r\n")
    del lines[:]
    core.say(wire)
    return lines


async def test_commands_and_replies_are_traced_with_their_session(log):
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA + "C: the content\nC: .\nS: 250…\nC: QUIT\nS: 221…")
    text = log.text
    for part in ("< EHLO client.test", "> 250-mx.test", "< MAIL FROM:<a@a.test>", "> 354 end", "< QUIT", "> 221 2.0.0"):
        assert part in text
    assert "the content" not in text
    for record in log.records:
        assert record.name == "trio_smtp"
        assert record.levelno == logging.DEBUG
        assert record.smtp_session == handler.sessions[0].id
        assert hasattr(record, "smtp_peer")


async def test_bodies_are_never_logged(log):
    async with session(max_message_size=30) as peer:
        await peer.speak(DATA + f"C: {PASSWORD}\nC: .\nS: 250…")
        await peer.speak(DATA + f"C: {PASSWORD * 9}\nC: .\nS: 552…")
        await peer.speak(MAIL)
        await peer.send(f"BDAT 7\r\n{PASSWORD}BDAT 7 LAST\r\n{PASSWORD}")
        await peer.speak("S: 250…\nS: 250…")
        await peer.send(f"BDAT 7\r\n{PASSWORD}")
        await peer.speak("S: 503…")
    assert PASSWORD not in log.text


async def test_nothing_is_formatted_without_debug(caplog):
    caplog.set_level(logging.INFO, "trio_smtp")
    async with session() as peer:
        await peer.ask("NOOP")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("wire", "traced"),
    [
        (b"AUTH PLAIN aHVudGVyMg==\r\n", "< AUTH PLAIN ***"),
        (b"auth plain aHVudGVyMg==\r\n", "< AUTH plain ***"),
        (b"AUTH PLAIN  aHVudGVyMg==  x\r\n", "< AUTH PLAIN ***"),
        (b"AUTH PLAIN\taHVudGVyMg==\r\n", "< AUTH PLAIN ***"),
        (b"AUTH\tPLAIN\taHVudGVyMg==\r\n", "< AUTH PLAIN ***"),
        (b"AUTH\taHVudGVyMg==\r\n", "< AUTH ***"),
        (b"AUTH aHVudGVyMg==\r\n", "< AUTH ***"),
        (b"AUTHPLAIN aHVudGVyMg==\r\n", "< AUTH ***"),
        (b" AUTH PLAIN aHVudGVyMg==\r\n", "< AUTH PLAIN ***"),
        (b"AUTH=PLAIN aHVudGVyMg==\r\n", "< AUTH ***"),
        (b"AUTH\r\n", "< AUTH ***"),
    ],
)
def test_auth_is_masked_however_it_is_written(wire: bytes, traced: str):
    lines = trace(wire)
    assert lines[0] == traced
    assert "aHVudGVyMg" not in "".join(lines)


@pytest.mark.parametrize(
    "start",
    [
        b"AUTH LOGIN !\r\n",  # 501
        b"AUTH NTLM\r\n",  # 504
        b"AUTH PLAIN\r\n*\r\n",  # cancelled
        b"AUTH\tLOGIN\r\n",  # 501
        b"AUTH PLAIN eA==\r\n",
        b"AUTH LOGIN\r\n\xff\r\n",
    ],
)
def test_what_follows_a_failed_exchange_may_be_a_password(start: bytes):
    lines = trace(start + b"aHVudGVyMg==\r\nhunter2\r\nhunter2 with words\r\nNOOP\r\n", soft_errors=None)
    text = "\n".join(lines)
    assert "aHVudGVyMg" not in text
    assert "hunter2" not in text
    assert "< ***" in lines
    assert lines[-2:] == ["< NOOP", "> 250 2.0.0 OK"]  # a command is one all the same


def test_where_auth_is_unknown_too():
    lines = trace(b"AUTH LOGIN\r\naHVudGVyMg==\r\naHVudGVyMg==\r\n", disabled_extensions=("AUTH",))
    assert lines == ["< AUTH LOGIN ***"] + ["> 500 5.5.1 command not recognized", "< ***"] * 2 + [
        "> 500 5.5.1 command not recognized"
    ]


def test_unknown_commands_without_auth_are_shown():
    assert trace(b"FOO bar\r\n")[0] == "< FOO bar"


def test_the_lines_of_an_exchange_and_its_challenges_are_masked():
    lines = trace(b"AUTH LOGIN\r\nbWU=\r\naHVudGVyMg==\r\nFOO\r\n")
    assert lines == [
        "< AUTH LOGIN ***",
        "> 334 ***",
        "< ***",
        "> 334 ***",
        "< ***",
        "> 235 2.7.0 authentication succeeded",
        "< FOO",  # who is authenticated does not send passwords any more
        "> 500 5.5.1 command not recognized",
    ]


async def test_what_a_client_sends_cannot_forge_lines(log):
    async with session() as peer:
        await peer.send(b"NOOP \x1b[31m\xff\x85\r\n")
        await peer.reply()
    for record in log.records:
        assert record.getMessage().isprintable() or record.getMessage().count("\n") == record.getMessage().count("250-")


async def test_a_hook_that_fails_is_logged_with_its_traceback_and_nothing_of_it_is_sent(caplog):
    handler = Recorder(on_mail=ValueError("a detail"))
    async with session(handler) as peer:
        assert await peer.ask("MAIL FROM:<>") == "451 4.3.0 local error in processing"
    [record] = caplog.records
    assert (record.name, record.levelname) == ("trio_smtp", "ERROR")
    assert "on_mail failed" in record.getMessage()
    assert record.exc_info[1].args == ("a detail",)
    assert record.smtp_session == handler.sessions[0].id


async def test_a_function_gets_the_transcript_without_any_log(caplog):
    caplog.set_level(logging.INFO, "trio_smtp")
    lines: list[tuple[str, str, str]] = []

    def note(seen: trio_smtp.Session, side: str, line: str) -> None:
        lines.append((seen.id, side, line))

    handler = Recorder(on_auth=True)
    async with session(handler, transcript=note, allow_insecure_auth=True) as peer:
        await peer.ask(f"AUTH PLAIN {PASSWORD}")
        await peer.speak(DATA + "C: the content\nC: .\nS: 250…")
    said = [f"{side}: {line}" for _, side, line in lines]
    assert said[0] == "S: 220 mx.test ESMTP trio_smtp"
    assert said[1] == "C: EHLO client.test"
    assert said[2] == "S: 250-mx.test"
    assert said[-5:] == [
        "C: RCPT TO:<b@b.test>",
        "S: 250 2.1.5 OK",
        "C: DATA",
        "S: 354 end data with <CR><LF>.<CR><LF>",
        "S: 250 2.0.0 OK: queued",
    ]
    assert {each for each, _, _ in lines} == {handler.sessions[0].id}
    assert PASSWORD not in str(said)
    assert "C: AUTH PLAIN ***" in said
    assert caplog.records == []


async def test_what_the_function_for_the_transcript_raises_is_logged_and_the_session_goes_on(caplog):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with session(transcript=fail) as peer:
        await peer.speak(DATA + "C: the content\nC: .\nS: 250…")
    assert caplog.text.count("the function for the transcript failed") == 1  # it may well fail for each line
