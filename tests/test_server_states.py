# The server's state machine as data: the table of commands and the moves beside it, walked without a session.
from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from core_session import ENVELOPE, Core, codes

from trio_smtp import ServerConfig, ServerExtension
from trio_smtp._protocol.extensions import KNOWN_EXTENSIONS
from trio_smtp._protocol.replies import Reply
from trio_smtp._protocol.server import commands
from trio_smtp._protocol.server.commands import COMMANDS
from trio_smtp._protocol.server.events import Signal
from trio_smtp._protocol.server.profile import ServerProfile
from trio_smtp._protocol.server.protocol import ServerProtocol
from trio_smtp._protocol.server.reading import READ
from trio_smtp._protocol.server.rows import CommandRow, Junk, Taken
from trio_smtp._protocol.server.states import COMMAND_STATES, MESSAGE_STATES, MOVES, Occurrence, State


def edges() -> Iterator[tuple[State, str, State]]:
    """All that moves a session: state, verb or occurrence, next state."""
    for row in COMMANDS:
        for state in COMMAND_STATES:
            if state in row.allowed_in:
                yield state, row.verb, row.after(state)
    for state, moves in MOVES.items():
        for occurrence, to in moves.items():
            if to is not None:
                yield state, occurrence.name, to
            if occurrence is Occurrence.CHUNK_REFUSED:
                yield State.DROPPING, Occurrence.CHUNK_DROPPED.name, state


def test_every_state_can_be_reached_and_left():
    reached = {State.CONNECTED}
    while more := {to for state, _, to in edges() if state in reached} - reached:
        reached |= more
    assert reached == set(State)
    assert {state for state, _, to in edges() if to is State.CLOSED} == set(State)


def test_every_state_but_the_first_has_a_reader():
    assert READ.keys() == set(State) - {State.CONNECTED}


def test_commands_are_read_where_commands_are_allowed():
    assert {state for row in COMMANDS for state in row.allowed_in} == set(COMMAND_STATES)
    assert {state for state in READ if READ[state] is READ[State.READY]} == set(COMMAND_STATES)


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.verb)
def test_a_row_says_what_happens_in_each_state(row: CommandRow):
    assert row.allowed_in.isdisjoint(row.misplaced)
    assert row.allowed_in | row.misplaced.keys() == set(COMMAND_STATES)
    assert all(reply.code == 503 for reply in row.misplaced.values())
    assert row.keyword is None or row.keyword in KNOWN_EXTENSIONS
    assert row.default_reply is None or row.event is not None
    assert isinstance(row.next_state, State | None) or row.next_state.keys() == row.allowed_in


def test_verbs_are_there_once():
    verbs = [row.verb for row in COMMANDS]
    assert len(verbs) == len(set(verbs))


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize("row", [row for row in COMMANDS if row.misplaced], ids=lambda row: row.verb)
def test_a_misplaced_command_gets_the_reply_of_its_row(row: CommandRow, lmtp: bool):
    hello = b"LHLO x\r\n" if lmtp else b"EHLO x\r\n"
    mail, rcpt = ENVELOPE.splitlines(keepends=True)
    path = {
        State.GREETED: b"",
        State.READY: hello,
        State.MAIL: hello + mail,
        State.RCPT: hello + mail + rcpt,
        State.CHUNKING: hello + mail + rcpt + b"BDAT 0\r\n",
    }
    for state, reply in row.misplaced.items():
        core = Core(lmtp=lmtp, xclient_from=["::/0"])
        core.say(path[state])
        assert core.protocol.state is state
        text = reply.text.replace("EHLO", "LHLO") if lmtp else reply.text
        assert core.say(f"{row.verb} 0\r\n".encode()) == [f"{reply.code} {reply.enhanced} {text}"]
        assert core.protocol.state is state


# What each command needs, to be taken, in READY or else after an envelope.
ARGUMENTS = {
    **dict.fromkeys(("EHLO", "HELO", "LHLO", "VRFY", "EXPN"), b"x"),
    "AUTH": b"PLAIN",
    "BDAT": b"16",
    "MAIL": b"FROM:<>",
    "XCLIENT": b"NAME=x",
    "XFORWARD": b"NAME=x",
}
OFFERED: Any = {"starttls": True, "xclient_from": ["::/0"]}
ROWS_TAKEN_ALONE = [row for row in COMMANDS if State.READY in row.allowed_in]


def core_for(row: CommandRow, **options: Any) -> Core:
    core = Core(lmtp=row.verb == "LHLO", verify=True, expand=True, tls=row.verb == "AUTH", **OFFERED, **options)
    core.protocol.trust(True)
    return core


@pytest.mark.parametrize("row", ROWS_TAKEN_ALONE, ids=lambda row: row.verb)
def test_what_is_junk_is_counted_as_the_row_says(row: CommandRow):
    for is_greeted in (False, True):
        if not is_greeted and State.GREETED not in row.allowed_in:
            continue
        core = core_for(row, max_junk_commands=0)
        if is_greeted:
            core.say(b"LHLO x\r\n" if row.verb == "LHLO" else b"EHLO x\r\n")
        core.protocol.receive_data(row.verb.encode() + b" " + ARGUMENTS.get(row.verb, b"") + b"\r\n")
        core.protocol.next_event()
        is_junk = row.junk is Junk.ALWAYS or (row.junk is Junk.AGAIN and is_greeted)
        assert repr(core.protocol.offences).startswith(f"<Offences: {int(is_junk)} errors, {int(is_junk)} junk")


@pytest.mark.parametrize("row", ROWS_TAKEN_ALONE, ids=lambda row: row.verb)
def test_what_ends_a_group_has_the_replies_sent(row: CommandRow):
    core = core_for(row)
    core.say(b"LHLO x\r\n" if row.verb == "LHLO" else b"EHLO x\r\n")
    core.protocol.receive_data(row.verb.encode() + b" " + ARGUMENTS.get(row.verb, b"") + b"\r\n")
    event = core.protocol.next_event()
    assert (event is Signal.FLUSH or core.protocol.queue.flush_due) == row.ends_group


@pytest.mark.parametrize("row", [row for row in COMMANDS if State.CHUNKING in row.allowed_in], ids=lambda row: row.verb)
def test_what_aborts_a_message_is_told_and_then_taken_once(row: CommandRow):
    traced: list[tuple[str, bytes]] = []
    core = core_for(row, max_junk_commands=1)
    protocol = core.protocol
    core.say((b"LHLO x\r\n" if row.verb == "LHLO" else b"EHLO x\r\n") + ENVELOPE + b"BDAT 16\r\n" + b"x" * 16)
    protocol.transcribe(lambda direction, line: traced.append((direction, line)))
    line = row.verb.encode() + b" " + ARGUMENTS.get(row.verb, b"")
    protocol.receive_data(line + b"\r\n")
    event = protocol.next_event()
    assert (event is Signal.BODY_ABORTED) == row.aborts_message
    assert (protocol.transactions.envelope is None) == row.aborts_message
    if row.aborts_message:
        protocol.conclude(Reply(250))
        core.say(b"")
        assert protocol.state is row.after(State.READY)
        assert protocol.step == protocol.rules.steps[State.READY][row.verb.encode()]
        assert [text for direction, text in traced if direction == "<"] == [line]
        assert "0 errors" in repr(protocol.offences)


def test_a_command_that_was_put_off_is_forgotten_with_the_peer():
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE + b"BDAT 16\r\n" + b"x" * 16)
    core.protocol.receive_data(b"RSET\r\n")
    assert core.protocol.next_event() is Signal.BODY_ABORTED
    core.protocol.lose_peer()
    assert core.protocol.next_event() is Signal.CLOSE


def test_octets_that_are_dropped_lead_back():
    core = Core()
    for hello in (b"", b"EHLO x\r\n", b"MAIL FROM:<>\r\n"):
        core.say(hello)
        before = core.protocol.state
        assert core.say(b"BDAT 6\r\nRSE") == []
        assert core.protocol.state is State.DROPPING
        assert core.protocol.state in MESSAGE_STATES
        assert codes(core.say(b"T\r\n")) == ["503"]
        assert core.protocol.state is before
    assert core.protocol.transfer.refused_chunks == 3


def test_the_states_of_a_message():
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE)
    seen = []
    for wire in (b"BDAT 4\r\nab", b"c\r", b"BDAT 1 LAST\r\n", b"\n"):
        core.say(wire)
        seen.append(core.protocol.state)
    assert seen == [State.BODY, State.CHUNKING, State.BODY, State.READY]
    assert core.messages == [b"abc\r\n"]


def test_the_states_of_auth():
    core = Core(tls=True)
    core.say(b"EHLO x\r\n")
    seen = []
    for wire in (b"AUTH PLAIN\r\n", b"*\r\n", b"AUTH LOGIN eA==\r\n", b"eA==\r\n"):
        core.say(wire)
        seen.append(core.protocol.state)
    assert seen == [State.AUTH, State.READY, State.AUTH, State.READY]
    assert core.protocol.auth.authenticated


def take_ping(protocol: ServerProtocol, argument: bytes) -> Taken:
    return Reply(250, f"pong {argument.decode()}".rstrip(), "2.0.0")


def test_a_command_is_a_row_and_a_function(monkeypatch: pytest.MonkeyPatch):
    ready = frozenset((State.READY,))
    early = dict.fromkeys(set(COMMAND_STATES) - ready, Reply(503, "not now", "5.5.1"))
    row = CommandRow(verb="XPING", allowed_in=ready, misplaced=early, take=take_ping)
    monkeypatch.setattr(commands, "COMMANDS", (*COMMANDS, row))
    core = Core()
    assert codes(core.say(b"XPING\r\n")) == ["503"]
    core.say(b"EHLO x\r\n")
    assert core.say(b"xping 1\r\n") == ["250 2.0.0 pong 1"]
    assert "XPING" in core.say(b"HELP\r\n")[0]
    assert codes(core.say(ENVELOPE + b"XPING\r\n")) == ["250", "250", "503"]


def test_the_command_of_the_contributing_page(monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")
    walk = page.split("## Adding a command to the server")[1]
    [function] = re.findall(r"```python\n(.*?)```", walk, re.DOTALL)
    [row] = re.findall(r"```text\n(.*?),\n *```", walk, re.DOTALL)
    names = dict(vars(commands))
    exec(textwrap.dedent(function), names)
    monkeypatch.setattr(commands, "COMMANDS", (*COMMANDS, eval(row.strip(), names)))
    core = Core()
    assert core.say(b"XPING\r\n") == ["250 2.0.0 PONG"]
    assert core.say(b"EHLO x\r\n" + ENVELOPE + b"xping \r\nXPING x\r\n")[-2:] == [
        "250 2.0.0 PONG",
        "501 5.5.4 XPING takes no argument",
    ]
    assert core.protocol.state is State.RCPT
    assert "XPING" in core.say(b"HELP\r\n")[0]


def test_what_is_not_offered_is_not_there():
    def verbs(**options: Any) -> set[bytes]:
        return set(ServerProfile(ServerConfig(hostname="mx.test", **options)).commands)

    usual = verbs()
    assert usual >= {b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"QUIT", b"HELP", b"VRFY"}
    assert not usual & {b"LHLO", b"STARTTLS", b"AUTH", b"EXPN", b"XCLIENT", b"XFORWARD"}
    assert verbs(lmtp=True) == usual - {b"EHLO", b"HELO"} | {b"LHLO"}
    assert verbs(enable_ehlo=False) == usual - {b"EHLO"}
    assert verbs(disabled_extensions=["CHUNKING"]) == usual - {b"BDAT"}
    own = ServerExtension("XFOO", commands=["XDO"])
    assert verbs(extensions=[own]) == usual | {b"XDO"}
    assert verbs(extensions=[own], disabled_extensions=["XFOO"]) == usual
