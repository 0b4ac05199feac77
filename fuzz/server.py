"""The server core with any input.

Invariant: for any bytes, in pieces of any size, and any answers of the application, the server core yields events and
the right number of well-formed replies, within its limits, or closes. It raises no exception. The sizes of the pieces
make no difference, and an accepted message has no NUL and no bare CR or LF unless it is BINARYMIME.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from trio_smtp._protocol.replies import Reply
from trio_smtp._protocol.reply_reader import ReplyReader
from trio_smtp._protocol.sasl import UnverifiedError
from trio_smtp._protocol.server.config import ServerConfig
from trio_smtp._protocol.server.events import Authenticate, Data, Signal, StartTLS, XClient
from trio_smtp._protocol.server.extension import ServerExtension
from trio_smtp._protocol.server.fixed_replies import AUTH_REFUSED
from trio_smtp._protocol.server.message import IncomingMessage, Verdict
from trio_smtp._protocol.server.profile import ServerProfile
from trio_smtp._protocol.server.protocol import ServerProtocol
from trio_smtp._protocol.server.reply_queue import MAX_REPLIES
from trio_smtp._protocol.server.transfer import IncomingTransfer

HEADER = 4  # octets of an input before the wire: configuration (two), the application's answers, size of the pieces
MAX_LINE, MAX_AUTH_LINE = 512, 700
YES = Reply(250, "OK")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)").search
_ENHANCED = re.compile(rb"^[245][0-9]{2}[ -][245]\.[0-9]+\.[0-9]+ ", re.MULTILINE).search


@cache
def profile(switches: int, more: int) -> ServerProfile:
    """The configuration for the bits of two octets."""
    config = ServerConfig(
        hostname="mx.test",
        lmtp=bool(switches & 1),
        bare_newlines="normalize" if switches & 2 else "reject",
        allow_insecure_auth=True,
        auth="required" if switches & 4 else "optional",
        auth_mechanisms=("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"),
        lenient_addresses=bool(switches & 8),
        reject_early_talkers=bool(more & 128),
        enabled_extensions=("DSN", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY"),
        disabled_extensions=[
            *(("CHUNKING", "SMTPUTF8") if switches & 16 else ()),
            *(("ENHANCEDSTATUSCODES",) if switches & 64 else ()),
        ],
        require_tls=bool(switches & 32),
        enable_ehlo=bool(switches & 1) or not switches & 128,
        extensions=(ServerExtension("XFOO", mail_parameters=["XTAG"], commands=["XDO"]),),
        max_message_size=300,
        max_recipients=4,
        max_messages=8,
        max_errors=None if more & 1 else 12,
        max_auth_failures=None if more & 1 else 3,
        max_junk_commands=20,
        max_command_line=MAX_LINE,
        max_auth_line=MAX_AUTH_LINE,
        xclient_from=("::/0",),
        scram_secret=bytes(32),
    )
    answers = bool(more & 4)
    return ServerProfile(
        config, starttls=bool(more & 2), auth=True, verify=answers, expand=answers, hello=bool(more & 64)
    )


class CountingTransfer(IncomingTransfer):
    """Checks the number of replies to each message: one, or with LMTP one for each recipient; a 421 is one for all."""

    __slots__ = ()

    def finish(self, protocol: ServerProtocol, message: IncomingMessage, verdict: Verdict) -> None:
        due = len(protocol.transactions.addressees) if protocol.profile.config.lmtp and message.is_over else 1
        before = len(protocol.replies)
        super().finish(protocol, message, verdict)
        # If the session ends with this message, there is one more reply (the client has sent more commands), or one
        # instead of all (too many errors).
        assert len(protocol.replies) - before in ((1, due + 1) if protocol.is_closed else (due,))


class Talk:
    """One session: bytes in; replies, accepted messages and its end out.

    The application decides about a message when it starts: to answer at once, with the first octets, or at the end.
    """

    def __init__(self, switches: int, more: int, mood: int) -> None:
        identity = "me" if more & 32 else None
        self.protocol = ServerProtocol(profile(switches, more), tls=bool(more & 8), external_identity=identity)
        self.protocol.transfer = CountingTransfer()
        self.protocol.trust(bool(more & 16))
        self.mood = mood
        self.asked = 0  # events that the application has answered
        self.out = b""
        self.text: bytes | None = None  # of the message in transit
        self.verdict: Verdict = YES  # of the message in transit
        self.waits = True  # with the verdict until the end of the message
        # Octets in one segment with a command are out of turn, later ones are not; and see begin_message().
        self.depends_on_pieces = bool(more & 128)
        self.messages: list[tuple[bytes, bool]] = []  # accepted; whether it is BINARYMIME
        self.over = False
        self.tls_wanted = False
        self.protocol.greet()

    def feed(self, data: bytes) -> None:
        """Take a piece of the input, and handle all its events."""
        if self.over:
            return
        self.protocol.receive_data(data)
        while not self.over:
            event = self.protocol.next_event()
            if event is Signal.NEED_DATA:
                break
            if event is Signal.EOF or event is Signal.CLOSE:
                self.over = True
            elif event is Signal.PAUSE:
                assert self.protocol.take_penalty() > 0
            elif self.text is not None and (event is not Signal.FLUSH):
                self.read(self.text, event)
            elif event is not Signal.FLUSH:
                self.judge(event)
            assert len(self.protocol.replies) < MAX_REPLIES + 4  # and max_recipients
            self.out += self.protocol.data_to_send()
        self.out += self.protocol.data_to_send()

    def answer(self) -> Reply | None:
        """The application's answer this time: mostly yes."""
        self.asked += 1
        if not (self.mood >> (self.asked % 8)) & 1:
            return None
        return (Reply(550, "no\r\n250 yes", "5.7.1"), Reply(450, "läter"), Reply(250, "ja\r"))[self.asked % 3]

    def judge(self, event: object) -> None:
        protocol = self.protocol
        if isinstance(event, StartTLS):
            protocol.accept()
            self.tls_wanted = self.over = True
            return
        if isinstance(event, Authenticate):
            try:
                if event.credentials.check_password("secret") or event.credentials.password is not None:
                    protocol.accept()
                else:
                    protocol.answer(AUTH_REFUSED)
            except UnverifiedError:
                pass
            return
        reply = self.answer()
        if isinstance(event, XClient):
            protocol.accept()
            protocol.greet(reply)
        elif isinstance(event, Data):
            self.begin_message(event, reply)
        elif reply is None:
            protocol.accept()
        else:
            protocol.answer(reply)

    def begin_message(self, event: Data, reply: Reply | None) -> None:
        protocol = self.protocol
        self.verdict = reply or YES
        if protocol.profile.config.lmtp and self.asked % 2:
            self.verdict = {protocol.transactions.addressees[0]: self.verdict}  # nothing about the others
        when = self.asked // 3 % 3
        if reply is not None and when == 0:
            protocol.conclude(self.verdict)
            return
        self.waits = reply is None or when == 1
        if not self.waits and event.chunking:
            self.depends_on_pieces = True  # the application may have read some text before a bare newline or a NUL
        protocol.accept()
        self.text = b""

    def read(self, text: bytes, event: object) -> None:
        """Take octets of a message, or conclude it."""
        protocol = self.protocol
        if isinstance(event, bytes) and self.waits:
            self.text = text + event
            return
        self.text = None
        if event is Signal.BODY_END:
            assert protocol.transactions.envelope is not None
            if protocol.transfer.fault is None and best(self.verdict).is_success:
                self.messages.append((text, protocol.transactions.envelope.sender.body == "BINARYMIME"))
        else:
            assert isinstance(event, bytes) or event in (Signal.BODY_TOO_LARGE, Signal.BODY_ABORTED), event
        protocol.conclude(self.verdict)


def best(verdict: Verdict) -> Reply:
    """The reply that decides whether the message was accepted at all."""
    return verdict if isinstance(verdict, Reply) else min(verdict.values(), key=lambda reply: reply.code)


def pieces(wire: bytes, cut: int) -> Iterator[bytes]:
    """Split the wire into pieces whose sizes depend on `cut`; 0 is one piece, 1 single octets."""
    if cut == 0:
        yield wire
        return
    at = 0
    while at < len(wire):
        size = 1 + (at * 31 + cut) % cut
        yield wire[at : at + size]
        at += size


def talk(data: bytes, cut: int) -> Talk:
    """One session over the input, in pieces by `cut`."""
    switches, more, mood, _ = data[:HEADER]
    session = Talk(switches, more, mood)
    for piece in pieces(data[HEADER:], cut):
        session.feed(piece)
        assert len(session.protocol.input._buffer) <= MAX_AUTH_LINE + len(piece)
    session.feed(b"")
    return session


_CHALLENGE = re.compile(rb"334 [^\r]*")


def check(data: bytes) -> None:
    """Check the invariant for one input."""
    if len(data) < HEADER:
        return
    sessions = [talk(data, cut) for cut in {0, 1, data[3]}]
    for session in sessions:
        check_replies(session.out)
        if session.protocol.profile.config.disabled_extensions[-1:] == ("ENHANCEDSTATUSCODES",):
            assert _ENHANCED(session.out) is None
        for text, binary in session.messages:
            assert len(text) <= 300
            assert binary or (_BARE(text) is None and b"\0" not in text), text
    if any(session.tls_wanted for session in sessions) or b"STARTTLS" in data.upper():
        return  # octets in one segment with STARTTLS are refused, later ones belong to TLS
    if any(session.depends_on_pieces for session in sessions):
        return
    first = sessions[0]
    for session in sessions[1:]:
        assert _CHALLENGE.sub(b"334", session.out) == _CHALLENGE.sub(b"334", first.out)
        assert session.messages == first.messages
        assert session.over == first.over


def check_replies(out: bytes) -> None:
    """Check that the output is complete replies only, and that a 421 is the last."""
    assert _BARE(out) is None
    assert max(map(len, out.split(b"\n"))) < 512
    reader = ReplyReader(1 << 24)
    reader.receive_data(out)
    last = None
    while (reply := reader.next_reply()) is not None:
        assert last is None or last.code != 421, "a reply after 421"
        last = reply
    assert not reader.unread


if __name__ == "__main__":
    from fuzz.runner import main

    main("server")
