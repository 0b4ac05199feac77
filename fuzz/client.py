"""The client core with any server.

Invariant: for any bytes from a server, in pieces of any size, the client core returns one reply for each command, in
order, or raises RemoteProtocolError and is then closed. The fate that it reports for a message follows from these
replies. The sizes of the pieces make no difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from trio_smtp._protocol.client.commands import (
    NOOP,
    QUIT,
    RSET,
    STARTTLS,
    Command,
    Verb,
    auth,
    auth_response,
    bdat,
    data,
    end,
    hello,
    mail,
    rcpt,
)
from trio_smtp._protocol.client.protocol import ClientProtocol, State
from trio_smtp._protocol.client.transaction import Transaction
from trio_smtp._protocol.errors import (
    AuthenticationError,
    Delivery,
    LocalProtocolError,
    RemoteProtocolError,
)
from trio_smtp._protocol.extensions import Extensions
from trio_smtp._protocol.replies import Reply
from trio_smtp._protocol.sasl import (
    Auth,
    DeriveKey,
    External,
    OAuth,
    Password,
    client_mechanism,
    decode_challenge,
    encode_challenge,
)

HEADER = 2  # octets of an input before the wire: the kind of session, the size of the pieces
MAX_REPLY = 1000
_PASSWORD = Password("me", "secret")
_TOKEN = OAuth("me", "token")
_MECHANISMS: tuple[tuple[str, Auth], ...] = (
    ("PLAIN", _PASSWORD),
    ("LOGIN", _PASSWORD),
    ("CRAM-MD5", _PASSWORD),
    ("SCRAM-SHA-1", _PASSWORD),
    ("SCRAM-SHA-256", _PASSWORD),
    ("XOAUTH2", _TOKEN),
    ("OAUTHBEARER", _TOKEN),
    ("EXTERNAL", External()),
)


class Talk:
    """One session: greeting, EHLO, perhaps AUTH or STARTTLS, two messages, QUIT, as far as the server allows."""

    def __init__(self, kind: int) -> None:
        self.lmtp = bool(kind & 1)
        self.pipelining = bool(kind & 2)
        self.chunking = bool(kind & 4)
        self.protocol = ClientProtocol(max_reply_size=MAX_REPLY)
        self.sent: list[Command] = []
        self.answers: list[tuple[str, int]] = []
        self.transactions: list[Transaction] = []
        self.error: str | None = None
        name, credentials = _MECHANISMS[(kind >> 3) % len(_MECHANISMS)]
        self.mechanism = client_mechanism(name, credentials, token="token", host="h", port=25)
        self.rest: deque[Command] = deque()  # of a transaction in lock-step
        self.steps: list[Callable[[], None]] = [self.say_hello, *([self.log_in] if kind & 64 else [])]
        if kind & 128:
            self.steps.append(lambda: self.send(STARTTLS))
        self.steps += [self.send_message, self.send_message, lambda: self.send(NOOP), lambda: self.send(QUIT)]
        self.protocol.learn(pipelining=self.pipelining)

    def feed(self, piece: bytes) -> None:
        """Take a piece of the input, read replies, and send more whenever no reply is outstanding."""
        if self.error is not None:
            return
        protocol = self.protocol
        protocol.receive_data(piece)
        try:
            while (event := protocol.next_event()) is not None:
                command, reply = event
                self.answers.append((command.verb.value, reply.code))
                assert 200 <= reply.code <= 599
                assert len(reply.text) <= 5 * MAX_REPLY
                self.take(command, reply)
                if not protocol.outstanding and protocol.state is not State.CLOSED:
                    self.go_on()
        except RemoteProtocolError as exc:
            self.error = "remote"
            assert protocol.state is State.CLOSED
            assert exc.delivery is None or exc.delivery in Delivery  # noqa: PT017 - not a test of the raising
        except AuthenticationError:
            self.error = "auth"  # a 235 without proof: the connection cannot be used
        except LocalProtocolError:
            self.error = "local"  # the script does not fit the state, so nothing was sent
        for transaction in self.transactions:
            check_transaction(transaction)

    def take(self, command: Command, reply: Reply) -> None:
        protocol = self.protocol
        if command.verb is Verb.EHLO or command.verb is Verb.LHLO:
            extensions = Extensions.from_lines(reply.lines)
            assert all(keyword.isupper() or not keyword.isalpha() for keyword in extensions)
            assert extensions.size is None or extensions.size > 0
        if protocol.state is State.AUTH:
            try:
                step = self.mechanism.respond(decode_challenge(reply))
                while isinstance(step, DeriveKey):
                    assert step.iterations <= 10_000_000
                    step = self.mechanism.derived(bytes(32))
                self.send(auth_response(encode_challenge(step)))
            except AuthenticationError:
                if protocol.state is State.AUTH:
                    self.send(auth_response(b"*"))
        elif (command.verb is Verb.AUTH or command.verb is Verb.RESPONSE) and reply.code == 235:
            self.mechanism.finish()

    def send(self, command: Command) -> None:
        wire = self.protocol.send(command)
        assert wire.endswith(b"\r\n")
        self.sent.append(command)

    def go_on(self) -> None:
        state = self.protocol.state
        if state is State.TLS:
            self.protocol.tls_started()
            self.steps.insert(0, self.say_hello)
        elif state is State.BODY:
            self.send(end(self.transactions[-1], b".\r\n"))
            return
        elif state in (State.MAIL, State.RCPT, State.CHUNKS) and self.rest and not self.transactions[-1].all_refused:
            self.send(self.rest.popleft())
            return
        elif state not in (State.HELLO, State.READY):
            if state is not State.AUTH:
                self.send(RSET)
            return
        if self.steps:
            self.steps.pop(0)()

    def say_hello(self) -> None:
        self.send(hello(Verb.LHLO if self.lmtp else Verb.EHLO, "client.test"))

    def log_in(self) -> None:
        self.send(auth(self.mechanism.command()))

    def send_message(self) -> None:
        addresses = ["a@x.test", "b@x.test"]
        transaction = Transaction(addresses, lmtp=self.lmtp)
        self.transactions.append(transaction)
        content = [bdat(transaction, 3), bdat(transaction, 4, last=True)] if self.chunking else [data(transaction)]
        self.rest = deque((*(rcpt(transaction, address, address) for address in addresses), *content))
        self.send(mail(transaction, "me@x.test"))
        while self.protocol.pipelining and self.rest:
            self.send(self.rest.popleft())


def check_transaction(transaction: Transaction) -> None:
    """What is believed of a message fits what was said of it."""
    delivery = transaction.delivery
    delivered, refused, unknown = transaction.fates()
    assert not {*delivered} & {*refused}
    assert not {*delivered} & {*unknown}
    if delivery is None:
        assert transaction.ended
        assert delivered
    if transaction.farewell is not None:  # a 421: nothing that left behind it was accepted
        assert delivery in (Delivery.NOT_SENT, Delivery.REFUSED)
        return
    if delivery is Delivery.NOT_SENT:
        assert not transaction.ended
    if transaction.reply is None and transaction.ended and not transaction.all_refused and not transaction.lmtp:
        assert delivery is Delivery.UNKNOWN


def talk(data: bytes, cut: int) -> Talk:
    """One session over the input, cut into pieces of `cut` octets; 0 is whole."""
    session = Talk(data[0])
    wire = data[HEADER:]
    size = cut or len(wire) or 1
    for at in range(0, len(wire), size):
        session.feed(wire[at : at + size])
    return session


def check(data: bytes) -> None:
    """Check the invariant for one input."""
    if len(data) < HEADER:
        return
    for_all = [talk(data, cut) for cut in (0, 1, data[1])]
    for session in for_all:
        expected = ["CONNECT", *(command.verb.value for command in session.sent)]
        got = [verb for at, (verb, _) in enumerate(session.answers)]
        assert follows(got, expected, session), (got, expected)
    # In one piece, the server may reply before the next command is sent, which is an error.
    assert for_all[1].answers[: len(for_all[0].answers)] == for_all[0].answers


def follows(got: list[str], expected: list[str], session: Talk) -> bool:
    """Whether the replies are in the order of the commands. The end of an LMTP message has several."""
    at = 0
    for verb in got:
        if verb == "the end of the message" and (at >= len(expected) or expected[at] != verb):
            continue  # the server refused the message before its end
        if at and verb == expected[at - 1] and (at >= len(expected) or expected[at] != verb) and session.lmtp:
            continue
        if at >= len(expected) or verb != expected[at]:
            return False
        at += 1
    return True


if __name__ == "__main__":
    from fuzz.runner import main

    main("client")
