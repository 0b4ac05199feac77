"""The server's core against a small model: random commands, random answers of the application, equal state after each.

The model knows six facts of a session (greeted name, authenticated, sender, recipients, chunks begun, what XFORWARD
has said) and one rule for each command. After every reply the core must say the same, and have answered with the same
class of code, and as often: with LMTP once for each recipient of a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_smtp import Reply, ServerConfig
from trio_smtp._protocol.server.events import Authenticate, Data, Signal, XClient
from trio_smtp._protocol.server.fixed_replies import AUTH_REFUSED
from trio_smtp._protocol.server.message import Verdict
from trio_smtp._protocol.server.profile import ServerProfile
from trio_smtp._protocol.server.protocol import ServerProtocol
from trio_smtp._protocol.server.states import State

YES, NO, LATER = Reply(250, "yes"), Reply(550, "no"), Reply(450, "later")
answers = st.sampled_from([YES, YES, YES, NO, LATER])


@dataclass
class Model:
    """What a session should believe."""

    auth_required: bool = False
    lmtp: bool = False
    trusted: bool = False  # may use XCLIENT and XFORWARD
    hello: str | None = None
    esmtp: bool = False
    authenticated: bool = False
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    chunking: bool = False
    forwarded: bool = False
    accepted: int = 0

    @property
    def state(self) -> State:
        if self.hello is None:
            return State.GREETED
        if self.sender is None:
            return State.READY
        if self.chunking:
            return State.CHUNKING
        return State.RCPT if self.recipients else State.MAIL

    def forget_transaction(self) -> None:
        self.sender, self.recipients, self.chunking, self.forwarded = None, [], False, False

    def forget_session(self) -> None:
        self.forget_transaction()
        self.hello, self.esmtp, self.authenticated = None, False, False

    def judged(self, answer: Reply) -> int:
        return answer.code // 100

    def refused(self, code: int = 5) -> list[int]:
        """The replies to a message that the application does not get."""
        return [code] * (len(self.recipients) if self.lmtp else 1)

    def taken(self) -> list[int]:
        """The replies to a message that is good: with LMTP some have no mailbox, as is known only then."""
        if not self.lmtp:
            return [2]
        return [5 if has_no_mailbox(address) else 2 for address in self.recipients]


def has_no_mailbox(address: str) -> bool:
    return address.startswith("d")


class ServerMachine(RuleBasedStateMachine):
    """Says a command to both, compares."""

    judges_hello = False  # the application may refuse EHLO

    @initialize(auth_required=st.booleans(), lmtp=st.booleans(), trusted=st.booleans(), judges_hello=st.booleans())
    def connect(self, auth_required: bool, lmtp: bool, trusted: bool, judges_hello: bool) -> None:
        self.judges_hello = judges_hello
        self.begin(Model(auth_required, lmtp, trusted), hello=judges_hello)

    def begin(self, model: Model, **abilities: bool) -> None:
        config = ServerConfig(
            hostname="mx.test",
            auth="required" if model.auth_required else "optional",
            allow_insecure_auth=True,
            lmtp=model.lmtp,
            xclient_from=["::/0"],
            max_errors=None,
            max_junk_commands=None,
            max_auth_failures=None,
            max_recipients=3,
            max_message_size=100,
        )
        self.core = ServerProtocol(ServerProfile(config, auth=True, verify=True, expand=True, **abilities))
        self.core.trust(model.trusted)
        self.model = model
        self.messages: list[tuple[str, list[str]]] = []
        self.core.greet()
        assert self.say(b"") == [2]
        self.hello("x.test", "LHLO" if model.lmtp else "EHLO", YES)

    def say(self, wire: bytes, answer: Reply = YES) -> list[int]:
        """The classes of the replies to a piece of input, the application answering all with `answer`."""
        core = self.core
        if wire:
            core.receive_data(wire)
        while (event := core.next_event()) is not Signal.NEED_DATA:
            if event is Signal.CLOSE:
                break
            if event is Signal.PAUSE:
                core.take_penalty()
            elif isinstance(event, Data):
                if answer is YES:
                    core.accept()
                else:
                    core.conclude(answer)
            elif event is Signal.BODY_END:
                core.conclude(self.take_message())
            elif event is Signal.BODY_ABORTED or event is Signal.BODY_TOO_LARGE:
                core.conclude(YES)
            elif isinstance(event, Authenticate) and answer is NO:
                core.answer(AUTH_REFUSED)
            elif isinstance(event, XClient):
                core.accept()
                core.greet()
            elif not isinstance(event, Signal | bytes):
                core.answer(answer)
        lines = bytes(core.data_to_send()).decode().splitlines()
        return [int(line[0]) for line in lines if line[3] == " "]

    def take_message(self) -> Verdict:
        """What the application says of a whole message."""
        party = self.core.transactions.envelope
        assert party is not None
        addresses = [each.address for each in party.recipients]
        if self.core.transfer.fault is None and 2 in self.model.taken():
            self.messages.append((party.sender.address, addresses))
        return {address: NO if has_no_mailbox(address) else YES for address in addresses} if self.model.lmtp else YES

    # ---- commands, and the model's rule for each

    @rule(name=st.sampled_from(["x.test", "y.test"]), verb=st.sampled_from(["EHLO", "HELO", "LHLO"]), answer=answers)
    def hello(self, name: str, verb: str, answer: Reply) -> None:
        if not self.judges_hello:
            answer = YES
        got = self.say(f"{verb} {name}\r\n".encode(), answer)
        model = self.model
        if (verb == "LHLO") != model.lmtp:
            assert got == [5]
            return
        if model.chunking and self.judges_hello:
            assert got == [5]  # the application cannot be asked
            return
        assert got == [model.judged(answer)]
        if answer is YES:
            model.hello, model.esmtp = name, verb != "HELO"
            model.forget_transaction()

    @rule(
        line=st.sampled_from(
            ["EHLO", "EHLO a b", "RSET x", "DATA x", "STARTTLS", "FOO", "MAIL FROM:a", "VRFY", "ETRN x"]
        )
    )
    def nonsense(self, line: str) -> None:
        assert self.say(line.encode() + b"\r\n") == [5]

    @rule(address=st.sampled_from(["", "a@a.test", "b@a.test"]), answer=answers)
    def mail(self, address: str, answer: Reply) -> None:
        got = self.say(f"MAIL FROM:<{address}>\r\n".encode(), answer)
        model = self.model
        if model.hello is None or model.sender is not None or (model.auth_required and not model.authenticated):
            assert got == [5]
            return
        assert got == [model.judged(answer)]
        if answer is YES:
            model.sender = address

    @rule(parameter=st.sampled_from(["SIZE=101", "FOO=1", "BODY=9BIT", "SIZE=1 SIZE=1", "RET=FULL"]))
    def mail_with_a_bad_parameter(self, parameter: str) -> None:
        assert self.say(f"MAIL FROM:<a@a.test> {parameter}\r\n".encode()) == [5]

    @rule(address=st.sampled_from(["c@b.test", "d@b.test"]), answer=answers)
    def rcpt(self, address: str, answer: Reply) -> None:
        got = self.say(f"RCPT TO:<{address}>\r\n".encode(), answer)
        model = self.model
        if model.sender is None or model.chunking:
            assert got == [5]
        elif len(model.recipients) == 3:
            assert got == [4]
        else:
            assert got == [model.judged(answer)]
            if answer is YES:
                model.recipients.append(address)

    @precondition(lambda self: self.model.state is State.READY)
    @rule(recipients=st.integers(1, 4))
    def envelope(self, recipients: int) -> None:
        """The common way into a transaction, which a random walk would seldom find."""
        self.auth(YES)
        self.mail("a@a.test", YES)
        for _ in range(recipients):
            self.rcpt("c@b.test", YES)

    @rule(
        text=st.sampled_from([b"", b"hi\r\n", b"..\r\n", b"a\nb\r\n", b"x" * 101 + b"\r\n"]),
        answer=answers,
        pieces=st.integers(1, 9),
    )
    def data(self, text: bytes, answer: Reply, pieces: int) -> None:
        model = self.model
        got = self.say(b"DATA\r\n", answer)
        if not model.recipients or model.chunking:
            assert got == [5]
            return
        if answer is not YES:
            assert got == [model.judged(answer)]
        else:
            assert got == [3]
            wire = text + b".\r\n"
            got = [code for at in range(0, len(wire), pieces) for code in self.say(wire[at : at + pieces])]
            good = b"a\nb" not in text and len(text) <= 100
            assert got == (model.taken() if good else model.refused())
            model.accepted += good and 2 in got
        model.forget_transaction()

    @rule(text=st.sampled_from([b"", b"hi\r\n", b"QUIT\r\n", b"\n"]), last=st.booleans(), answer=answers)
    def bdat(self, text: bytes, last: bool, answer: Reply) -> None:
        model = self.model
        self.bad = getattr(self, "bad", False) and model.chunking
        got = self.say(b"BDAT %d%b\r\n" % (len(text), b" LAST" * last) + text, answer)
        if not model.recipients:
            assert got == [5]
            return
        if not model.chunking and answer is not YES:
            # Refused with its first chunk: that ends the transaction.
            assert got == (model.refused(model.judged(answer)) if last else [model.judged(answer)])
            model.forget_transaction()
            return
        model.chunking = True
        self.bad = self.bad or text == b"\n"
        if last:
            assert got == (model.refused() if self.bad else model.taken())
            model.accepted += not self.bad and 2 in got
            model.forget_transaction()
        else:
            assert got == [2]

    @rule()
    def rset(self) -> None:
        assert self.say(b"RSET\r\n") == [2]
        self.model.forget_transaction()

    @rule(login=st.booleans())
    def xclient(self, login: bool) -> None:
        """A relay names its client, who starts over."""
        model = self.model
        got = self.say(b"XCLIENT NAME=host.test" + b" LOGIN=me" * login + b"\r\n")
        if not model.trusted or model.sender is not None:
            assert got == [5]
            return
        assert got == [2]
        model.forget_session()
        model.authenticated = login

    @rule()
    def xforward(self) -> None:
        model = self.model
        got = self.say(b"XFORWARD IDENT=ABC\r\n")
        allowed = model.trusted and model.sender is None
        assert got == [2 if allowed else 5]
        model.forwarded = model.forwarded or allowed

    @rule(line=st.sampled_from(["NOOP", "NOOP x", "HELP"]))
    def harmless(self, line: str) -> None:
        assert self.say(line.encode() + b"\r\n") == [2]

    @rule(verb=st.sampled_from(["VRFY", "EXPN"]), answer=answers)
    def lookup(self, verb: str, answer: Reply) -> None:
        got = self.say(f"{verb} somebody\r\n".encode(), answer)
        assert got == [2 if self.model.chunking else self.model.judged(answer)]

    @rule(answer=answers)
    def auth(self, answer: Reply) -> None:
        model = self.model
        got = self.say(b"AUTH PLAIN AG1lAHNlY3JldA==\r\n", answer)
        if model.state is not State.READY or model.authenticated or not model.esmtp:
            assert got == [5]
            return
        assert got == [model.judged(answer)]
        model.authenticated = answer is YES

    @precondition(lambda self: self.model.state is State.READY and self.model.esmtp and not self.model.authenticated)
    @rule(line=st.sampled_from([b"*", b"!", b"AG1l", b"\xff"]))
    def auth_that_fails(self, line: bytes) -> None:
        assert self.say(b"AUTH PLAIN\r\n" + line + b"\r\n") == [3, 5]

    @rule()
    def a_long_line(self) -> None:
        assert self.say(b"NOOP " + b"x" * 5000 + b"\r\n") == [5]

    # ---- what must always agree

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "core"):
            return
        core, model = self.core, self.model
        assert core.state is model.state
        assert core.hello == model.hello
        assert core.esmtp == model.esmtp
        assert core.auth.authenticated == model.authenticated
        assert bool(core.relay.forwarded) == model.forwarded
        assert len(self.messages) == model.accepted
        if model.sender is None:
            assert core.transactions.envelope is None
        else:
            assert core.transactions.envelope is not None
            assert core.transactions.envelope.sender.address == model.sender
            assert [each.address for each in core.transactions.envelope.recipients] == model.recipients
        assert not core.replies
        assert not core.has_input


ServerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestServerModel = ServerMachine.TestCase
