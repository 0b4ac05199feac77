# What is traced of a session has no secret in it.
from __future__ import annotations

import pytest

from trio_smtp import Reply
from trio_smtp._protocol.server.transcript import Transcript


@pytest.fixture
def noted() -> list[bytes]:
    return []


@pytest.fixture
def transcript(noted: list[bytes]) -> Transcript:
    return Transcript(lambda direction, line: noted.append(direction.encode() + line), {b"NOOP", b"AUTH"})


@pytest.mark.parametrize(
    ("line", "trace"),
    [
        (b"NOOP x", b"<NOOP x"),
        (b"FOO x", b"<FOO x"),
        (b"AUTH PLAIN AGEAYg==", b"<AUTH PLAIN ***"),
        (b"auth login", b"<AUTH login ***"),
        (b"AUTH secret", b"<AUTH ***"),
        (b"AUTH\tPLAIN secret", b"<AUTH PLAIN ***"),
        (b"AUTHPLAIN secret", b"<AUTH ***"),
        (b"AUTH", b"<AUTH ***"),
        (b"", b"<"),
    ],
)
def test_commands(transcript: Transcript, noted: list[bytes], line: bytes, trace: bytes):
    transcript.note_command(line, authenticated=False)
    assert noted == [trace]


def test_after_auth_only_commands_are_trusted(transcript: Transcript, noted: list[bytes]):
    transcript.note_command(b"secret", authenticated=False)
    transcript.note_command(b"AUTH PLAIN", authenticated=False)
    transcript.note_command(b"secret", authenticated=False)
    transcript.note_command(b"noop", authenticated=False)
    transcript.note_command(b"FOO", authenticated=True)
    assert noted == [b"<secret", b"<AUTH PLAIN ***", b"<***", b"<noop", b"<FOO"]


def test_exchanges(transcript: Transcript, noted: list[bytes]):
    transcript.note_response()
    reply = Reply(334, "c2VjcmV0")
    transcript.note_reply(reply, reply.to_bytes())
    transcript.note_reply(Reply(235, "yes"), b"235 2.0.0 yes\r\n")
    assert noted == [b"<***", b">334 ***", b">235 2.0.0 yes\r\n"]
