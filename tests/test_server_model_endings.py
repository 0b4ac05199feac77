"""The model of test_server_model.py once more, with what the application says of a message it has begun to read.

A message that it refuses at its end, gives up in the middle, or that is too large; and TLS, which forgets everything.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from test_server_model import LATER, NO, YES, Model, ServerMachine

from trio_smtp import Reply
from trio_smtp._protocol.server.events import Data, Signal
from trio_smtp._protocol.server.states import State

refusals = st.sampled_from([NO, LATER])


class EndingsMachine(ServerMachine):
    """Reads messages, and then says no."""

    @initialize(auth_required=st.booleans(), lmtp=st.booleans(), trusted=st.booleans())
    def connect(self, auth_required: bool, lmtp: bool, trusted: bool) -> None:
        self.begin(Model(auth_required, lmtp, trusted), starttls=True)

    @rule(line=st.sampled_from(["EHLO", "EHLO a b", "RSET x", "DATA x", "STARTTLS x", "FOO", "MAIL FROM:a", "ETRN x"]))
    def nonsense(self, line: str) -> None:
        assert self.say(line.encode() + b"\r\n") == [5]

    def say_and_refuse(self, wire: bytes, answer: Reply, *, early: bool) -> list[int]:
        """As :meth:`say`, the message being refused with its first octets, or else at its end."""
        core, begun = self.core, False
        core.receive_data(wire)
        while (event := core.next_event()) is not Signal.NEED_DATA:
            if isinstance(event, Data):
                core.accept()
                begun = True
            elif (isinstance(event, bytes) and early and begun) or event in (
                Signal.BODY_END,
                Signal.BODY_TOO_LARGE,
                Signal.BODY_ABORTED,
            ):
                core.conclude(answer)
                begun = False
            elif not isinstance(event, Signal | bytes):
                core.answer(YES)
        lines = bytes(core.data_to_send()).decode().splitlines()
        return [int(line[0]) for line in lines if line[3] == " "]

    @precondition(lambda self: self.model.state is State.RCPT)
    @rule(
        text=st.sampled_from([b"", b"hi\r\n", b"a\nb\r\n", b"x" * 101 + b"\r\n"]), answer=refusals, early=st.booleans()
    )
    def data_that_is_read_and_refused(self, text: bytes, answer: Reply, early: bool) -> None:
        got = self.say_and_refuse(b"DATA\r\n" + text + b".\r\n", answer, early=early)
        assert got == [3, *self.model.refused(answer.code // 100)]
        self.model.forget_transaction()
        assert self.say(b"DATA\r\n") == [5]
        assert self.say(b"RCPT TO:<e@b.test>\r\n") == [5]

    @precondition(lambda self: self.model.state is State.RCPT)
    @rule(first=st.sampled_from([b"", b"hi\r\n"]), answer=refusals, last=st.booleans())
    def chunks_that_are_read_and_refused(self, first: bytes, answer: Reply, last: bool) -> None:
        """The first chunk is taken; the second refused in the middle, or at its end where it is the last."""
        wire = b"BDAT %d\r\n%b" % (len(first), first) + b"BDAT 4%b\r\nho\r\n" % (b" LAST" * last)
        got = self.say_and_refuse(wire, answer, early=not last)
        refused_at = 0 if first and not last else 1  # a refusal with the first octets is the answer to their chunk
        code = answer.code // 100
        at_end = self.model.refused(code) if last else [code]
        assert got == ([2, *at_end] if refused_at else [code, 5])
        self.model.forget_transaction()
        assert self.say(b"BDAT 4 LAST\r\nho\r\n") == [5]
        assert self.say(b"DATA\r\n") == [5]

    @precondition(lambda self: self.model.state is State.RCPT)
    @rule(last=st.booleans(), answer=st.sampled_from([YES, NO]))
    def chunks_that_are_too_large_together(self, last: bool, answer: Reply) -> None:
        wire = b"BDAT 60\r\n" + b"x" * 60 + b"BDAT 41%b\r\n" % (b" LAST" * last) + b"x" * 41
        got = self.say_and_refuse(wire, answer, early=False)
        if answer is YES and not last:  # an application that does not mind hears of the limit once more, at the end
            assert got == [2, 2]
            assert self.say(b"BDAT 0 LAST\r\n") == self.model.refused()
        else:
            assert got == [2, *(self.model.refused() if last else [5])]
        self.model.forget_transaction()
        assert self.say(b"RCPT TO:<e@b.test>\r\n") == [5]

    @precondition(lambda self: not self.core.tls)
    @rule()
    def starttls(self) -> None:
        assert self.say(b"STARTTLS\r\n") == [2]
        self.core.start_tls()
        self.model.forget_session()

    @precondition(lambda self: self.core.tls)
    @rule()
    def starttls_again(self) -> None:
        assert self.say(b"STARTTLS\r\n") == [5]

    @rule(verb=st.sampled_from(["EHLO", "HELO", "LHLO"]))
    def hello_again(self, verb: str) -> None:
        self.hello("z.test", verb, YES)


EndingsMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestServerModelEndings = EndingsMachine.TestCase
