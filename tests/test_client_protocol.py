"""The client's half of the protocol, without a stream: order of commands, replies to commands, facts of delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp import Delivery, LocalProtocolError, RemoteProtocolError, Reply
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
    encode_line,
    end,
    hello,
    mail,
    other,
    rcpt,
)
from trio_smtp._protocol.client.protocol import ClientProtocol, State
from trio_smtp._protocol.client.transaction import Transaction
from trio_smtp._protocol.replies import KEPT


def events(protocol: ClientProtocol, octets: bytes) -> list[tuple[Command, Reply]]:
    protocol.receive_data(octets)
    found = []
    while (event := protocol.next_event()) is not None:
        found.append(event)
    return found


def ready(*, lmtp: bool = False, pipelining: bool = True) -> ClientProtocol:
    protocol = ClientProtocol()
    events(protocol, b"220 hi\r\n")
    protocol.send(hello(Verb.LHLO if lmtp else Verb.EHLO, "me.test"))
    events(protocol, b"250 hi\r\n")
    protocol.learn(pipelining=pipelining)
    return protocol


def begin(protocol: ClientProtocol, *recipients: str, lmtp: bool = False) -> Transaction:
    transaction = Transaction(list(recipients), lmtp=lmtp)
    protocol.send(mail(transaction, "a@x.test"))
    for recipient in recipients:
        protocol.send(rcpt(transaction, recipient, recipient))
    return transaction


def test_greeting_answers_the_connection_and_nothing_may_be_sent_before_it() -> None:
    protocol = ClientProtocol()
    with pytest.raises(LocalProtocolError, match="waiting for a reply"):
        protocol.send(hello(Verb.EHLO, "me.test"))
    [(command, reply)] = events(protocol, b"220 hi\r\n")
    assert command.verb is Verb.CONNECT
    assert reply.code == 220
    assert protocol.state is State.HELLO


def test_replies_are_matched_to_commands_first_come_first_served() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test", "c@y.test")
    protocol.send(data(transaction))
    got = events(protocol, b"250 one\r\n550 two\r\n250 three\r\n354 four\r\n")
    assert [(command.verb, reply.text) for command, reply in got] == [
        (Verb.MAIL, "one"),
        (Verb.RCPT, "two"),
        (Verb.RCPT, "three"),
        (Verb.DATA, "four"),
    ]
    assert transaction.accepted == ["c@y.test"]
    assert list(transaction.refused) == ["b@y.test"]
    assert protocol.state is State.BODY


@pytest.mark.parametrize("verb", [Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.END, Verb.LAST, Verb.STARTTLS, Verb.AUTH])
def test_wrong_order_is_an_error_before_an_octet_is_sent(verb: Verb) -> None:
    protocol = ClientProtocol()
    events(protocol, b"220 hi\r\n")
    with pytest.raises(LocalProtocolError, match="cannot be sent before EHLO"):
        protocol.send(Command(verb, b"X\r\n"))
    assert not protocol.outstanding


def test_without_pipelining_a_command_waits_for_the_reply_to_the_last() -> None:
    protocol = ready(pipelining=False)
    transaction = Transaction(["b@y.test"])
    protocol.send(mail(transaction, "a@x.test"))
    with pytest.raises(LocalProtocolError, match="must wait for the reply to MAIL"):
        protocol.send(rcpt(transaction, "b@y.test", "b@y.test"))


@pytest.mark.parametrize("command", [STARTTLS, hello(Verb.EHLO, "x"), auth(b"AUTH PLAIN"), QUIT])
def test_nothing_may_follow_a_command_that_ends_a_group(command: Command) -> None:
    protocol = ready()
    protocol.send(command)
    with pytest.raises(LocalProtocolError):
        protocol.send(NOOP)


def test_next_message_may_ride_behind_the_end_of_the_last() -> None:
    protocol = ready()
    first = begin(protocol, "b@y.test")
    protocol.send(data(first))
    events(protocol, b"250 ok\r\n250 ok\r\n354 go\r\n")
    protocol.send(end(first, b".\r\n"))
    second = begin(protocol, "c@y.test")
    protocol.send(data(second))
    assert first.delivery is Delivery.UNKNOWN
    assert second.delivery is Delivery.NOT_SENT
    events(protocol, b"250 taken\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert first.delivery is None
    assert first.fates() == (["b@y.test"], {}, [])
    assert protocol.state is State.BODY


def test_several_bdat_messages_in_flight() -> None:
    protocol = ready()
    transactions = []
    for _ in range(3):
        transaction = begin(protocol, "b@y.test")
        assert protocol.send(bdat(transaction, 7, last=True)) == b"BDAT 7 LAST\r\n"
        transactions.append(transaction)
    assert [t.delivery for t in transactions] == [Delivery.UNKNOWN] * 3
    events(protocol, b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n550 no\r\n")
    assert [t.delivery for t in transactions] == [None, Delivery.REFUSED, Delivery.UNKNOWN]


def test_refused_mail_leaves_nothing_to_reset() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    events(protocol, b"550 no\r\n503 no\r\n503 no\r\n")
    assert transaction.delivery is Delivery.REFUSED
    assert transaction.stage == "mail"
    assert protocol.state is State.READY


def test_refused_recipients_leave_a_transaction_that_only_rset_ends() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    events(protocol, b"250 ok\r\n550 no\r\n554 no\r\n")
    assert transaction.delivery is Delivery.REFUSED
    with pytest.raises(LocalProtocolError):
        protocol.send(mail(transaction, "a@x.test"))
    protocol.send(RSET)
    protocol.send(mail(transaction, "a@x.test"))


def test_message_refused_at_its_end_needs_no_rset() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    events(protocol, b"250 ok\r\n250 ok\r\n354 go\r\n")
    protocol.send(end(transaction, b".\r\n"))
    events(protocol, b"554 spam\r\n")
    assert transaction.delivery is Delivery.REFUSED
    assert transaction.stage == "end"
    assert protocol.state is State.READY


def test_refused_bdat_needs_rset() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(bdat(transaction, 3, last=True))
    events(protocol, b"250 ok\r\n250 ok\r\n552 no\r\n")
    assert protocol.state is State.SPOILT
    assert protocol.is_reusable


@pytest.mark.parametrize("lmtp", [False, True])
def test_of_refusals_by_recipient_only_so_much_is_kept(lmtp: bool) -> None:
    """A thousand of them, of 57 KB each, were as many octets in the error."""
    protocol = ready(lmtp=lmtp)
    transaction = begin(protocol, "b@y.test", "c@y.test", lmtp=lmtp)
    protocol.send(data(transaction))
    long = b"".join(b"550-%b\r\n" % (b"x" * 500) for _ in range(110)) + b"550 x\r\n"
    got = events(protocol, b"250 ok\r\n" + long + b"250 ok\r\n354 go\r\n")
    assert len(got[1][1].text) > 50_000  # the reply itself is whole
    assert len("".join(transaction.refused["b@y.test"].lines)) == KEPT
    protocol.send(end(transaction, b".\r\n"))
    events(protocol, long)
    kept = transaction.replies.get("c@y.test")
    assert kept is None if not lmtp else kept is not None and len("".join(kept.lines)) == KEPT


def test_lmtp_has_a_reply_for_each_accepted_recipient() -> None:
    protocol = ready(lmtp=True)
    transaction = begin(protocol, "b@y.test", "c@y.test", "d@y.test", lmtp=True)
    protocol.send(data(transaction))
    events(protocol, b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
    protocol.send(end(transaction, b".\r\n"))
    [_] = events(protocol, b"250 yes\r\n")
    assert transaction.delivery is Delivery.UNKNOWN
    delivered, refused, unknown = transaction.fates()
    assert (delivered, list(refused), unknown) == (["b@y.test"], ["c@y.test"], ["d@y.test"])
    events(protocol, b"452 full\r\n")
    assert transaction.delivery is None
    assert transaction.fates()[0] == ["b@y.test"]
    assert set(transaction.fates()[1]) == {"c@y.test", "d@y.test"}
    assert not protocol.outstanding


def test_reply_without_a_command_is_an_error() -> None:
    protocol = ready()
    with pytest.raises(RemoteProtocolError, match="before it was asked"):
        events(protocol, b"250 what\r\n")
    assert protocol.state is State.CLOSED


def test_reply_that_came_too_early_is_noticed_before_the_next_command() -> None:
    protocol = ready()
    protocol.receive_data(b"250 earl")
    with pytest.raises(RemoteProtocolError, match="before it was asked"):
        protocol.send(NOOP)


def test_a_reply_that_comes_after_a_421_does_not_open_the_session_again() -> None:
    protocol = ready()
    transaction = Transaction(["b@y.test"])
    protocol.send(mail(transaction, "a@x.test"), rcpt(transaction, "b@y.test", "b@y.test"))
    events(protocol, b"421 too many messages\r\n503 sender not yet given\r\n")
    assert protocol.state is State.CLOSED
    assert not protocol.is_reusable


def test_unasked_421_is_kept() -> None:
    protocol = ready()
    assert events(protocol, b"421 4.3.2 going down\r\n") == []
    assert protocol.farewell == Reply(421, "going down", "4.3.2")
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("answered", range(4))
def test_421_refuses_a_message_only_at_its_end(answered: int) -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    replies = [b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"]
    events(protocol, b"".join(replies[:answered]))
    if answered == 3:
        protocol.send(end(transaction, b".\r\n"))
    events(protocol, b"421 bye\r\n")
    assert transaction.delivery is (Delivery.REFUSED if answered == 3 else Delivery.NOT_SENT)
    assert (transaction.reply or transaction.farewell) == Reply(421, "bye")
    assert transaction.refused == {}
    assert transaction.stage == ("mail", "rcpt", "data", "end")[answered]
    assert protocol.state is State.CLOSED


def test_a_reply_after_421_opens_nothing_again() -> None:
    protocol = ready()
    protocol.send(NOOP, hello(Verb.EHLO, "me.test"))
    events(protocol, b"421 bye\r\n250 hello\r\n")
    assert protocol.state is State.CLOSED
    assert not protocol.is_reusable
    with pytest.raises(LocalProtocolError):
        protocol.send(NOOP)


@pytest.mark.parametrize("behind", [b"", b"503 no\r\n503 no\r\n503 no\r\n", b"250 ok\r\n250 ok\r\n421 bye\r\n"])
def test_what_stands_behind_a_421_is_not_sent(behind: bytes) -> None:
    protocol = ready()
    first = begin(protocol, "b@y.test")
    protocol.send(bdat(first, 3, last=True))
    second = begin(protocol, "c@y.test")
    protocol.send(bdat(second, 3, last=True))
    events(protocol, b"250 ok\r\n250 ok\r\n421 bye\r\n" + behind)
    assert first.delivery is Delivery.REFUSED
    assert second.delivery is Delivery.NOT_SENT
    assert second.fates() == ([], {}, [])
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("lmtp", [False, True])
def test_a_text_accepted_after_421_is_in_doubt(lmtp: bool) -> None:
    protocol = ready(lmtp=lmtp)
    transaction = begin(protocol, "b@y.test", "c@y.test", lmtp=lmtp)
    protocol.send(bdat(transaction, 3, last=True))
    with pytest.raises(RemoteProtocolError, match="after 421"):
        events(protocol, b"250 ok\r\n250 ok\r\n421 too many\r\n250 queued\r\n")
    assert transaction.delivery is Delivery.UNKNOWN
    assert transaction.fates() == ([], {}, ["b@y.test", "c@y.test"])
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("octets", [b"250 what\r\n", b"250-wh", b"gibberish\r\n"])
def test_what_is_said_unasked_is_a_breach_wherever_it_is_noticed(octets: bytes) -> None:
    for notice in (ClientProtocol.hear_unasked, lambda protocol: protocol.send(NOOP)):
        protocol = ready()
        protocol.receive_data(octets)
        with pytest.raises(RemoteProtocolError):
            notice(protocol)
        assert protocol.state is State.CLOSED
        protocol.hear_unasked()  # once is enough


def test_an_error_between_messages_says_nothing_of_the_last_message() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    events(protocol, b"250 ok\r\n550 no\r\n554 no\r\n")
    assert transaction.delivery is Delivery.REFUSED
    with pytest.raises(RemoteProtocolError) as caught:
        events(protocol, b"250 what\r\n")
    assert caught.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize("command", [NOOP, QUIT, RSET, other("HELP")])
def test_an_error_about_a_command_between_messages_has_a_stage(command: Command) -> None:
    protocol = ready()
    protocol.send(command)
    with pytest.raises(RemoteProtocolError) as caught:
        events(protocol, b"334 what\r\n" if command.verb is not Verb.OTHER else b"what\r\n")
    assert command.verb is Verb.OTHER or caught.value.stage == "mail"


@pytest.mark.parametrize(
    ("octets", "verb"), [(b"354 go\r\n", Verb.MAIL), (b"334 x\r\n", Verb.EHLO), (b"250 no\r\n", Verb.DATA)]
)
def test_reply_of_a_kind_that_answers_nothing_of_the_sort(octets: bytes, verb: Verb) -> None:
    protocol = ready()
    if verb is Verb.EHLO:
        protocol.send(hello(verb, "me.test"))
    else:
        transaction = begin(protocol, "b@y.test")
        if verb is Verb.DATA:
            protocol.send(data(transaction))
            events(protocol, b"250 ok\r\n250 ok\r\n")
    with pytest.raises(RemoteProtocolError, match=f"no answer to {verb}"):
        events(protocol, octets)
    assert protocol.state is State.CLOSED


def test_refusal_in_the_middle_of_the_text_is_understood() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    events(protocol, b"250 ok\r\n250 ok\r\n354 go\r\n")
    [(_, reply)] = events(protocol, b"552 too much\r\n")
    assert reply.code == 552
    assert transaction.stage == "body"
    assert transaction.delivery is Delivery.REFUSED
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(
    "answers",
    [
        b"550 no\r\n503 no\r\n503 no\r\n",
        b"550 no\r\n250 ok\r\n250 ok\r\n",
        b"250 ok\r\n550 no\r\n450 later\r\n",
    ],
)
def test_text_accepted_after_its_envelope_was_refused_is_in_doubt(answers: bytes, lmtp: bool) -> None:
    protocol = ready(lmtp=lmtp)
    transaction = begin(protocol, "b@y.test", "c@y.test", lmtp=lmtp)
    protocol.send(bdat(transaction, 3, last=True))
    events(protocol, answers)
    with pytest.raises(RemoteProtocolError, match="that was refused") as caught:
        events(protocol, b"250 queued\r\n")
    assert caught.value.delivery is Delivery.UNKNOWN
    assert transaction.delivery is Delivery.UNKNOWN
    assert transaction.fates() == ([], {}, ["b@y.test", "c@y.test"])
    assert protocol.state is State.CLOSED


def test_chunk_refused_and_the_last_one_accepted_is_in_doubt() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(bdat(transaction, 3))
    protocol.send(bdat(transaction, 3, last=True))
    with pytest.raises(RemoteProtocolError, match="that was refused"):
        events(protocol, b"250 ok\r\n250 ok\r\n552 too much\r\n250 queued\r\n")
    assert transaction.delivery is Delivery.UNKNOWN


def test_go_ahead_after_mail_was_refused_ends_the_connection_with_the_text_unsent() -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(data(transaction))
    with pytest.raises(RemoteProtocolError, match="after MAIL was refused"):
        events(protocol, b"550 no\r\n250 ok\r\n354 go\r\n")
    assert transaction.delivery is Delivery.REFUSED


def test_octets_behind_the_answer_to_starttls_are_seen() -> None:
    protocol = ready()
    protocol.send(STARTTLS)
    protocol.receive_data(b"220 go\r\n250-evil\r\n")
    assert protocol.next_event() is not None
    assert protocol.state is State.TLS
    assert not protocol.is_silent


def test_after_tls_everything_begins_again() -> None:
    protocol = ready()
    protocol.send(STARTTLS)
    events(protocol, b"220 go\r\n")
    protocol.tls_started()
    assert protocol.state is State.HELLO
    assert not protocol.pipelining
    with pytest.raises(LocalProtocolError):
        protocol.tls_started()


def test_a_handshake_before_the_greeting_changes_nothing() -> None:
    protocol = ClientProtocol()
    protocol.tls_started()
    assert protocol.state is State.WAIT
    [(command, _)] = events(protocol, b"220 hi\r\n")
    assert command.verb is Verb.CONNECT


def test_auth_goes_to_and_fro() -> None:
    protocol = ready()
    protocol.send(auth(b"AUTH LOGIN"))
    events(protocol, b"334 VXNlcm5hbWU6\r\n")
    assert protocol.state is State.AUTH
    with pytest.raises(LocalProtocolError):
        protocol.send(NOOP)
    protocol.send(auth_response(b"Zm9v"))
    events(protocol, b"535 no\r\n")
    assert protocol.state is State.READY  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b", "NOOP\r\nMAIL", "a\x7fb", "caf\xe9"])
def test_nothing_that_ends_a_line_gets_through_the_choke_point(text: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_line(text)


@given(st.text())
def test_a_line_has_exactly_one_end(text: str) -> None:
    try:
        line = encode_line(text, utf8=True)
    except LocalProtocolError:
        return
    assert line.endswith(b"\r\n")
    assert b"\r" not in line[:-2]
    assert b"\n" not in line[:-2]
    assert b"\0" not in line


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "m\xfcnchen", "a\tb"])
def test_hello_name_is_checked(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        hello(Verb.EHLO, name)


@pytest.mark.parametrize(
    "line",
    [
        *("", "MAIL FROM:<>", "data", "Starttls", "QUIT", "rset now", "BDAT 1 LAST", " NOOP"),
        *("XCLIENT NAME=spike", "ATRN", "saml from:<a@x.test>"),
    ],
)
def test_commands_with_a_meaning_of_their_own_are_not_sent_as_text(line: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        other(line)
    assert caught.value.delivery is Delivery.NOT_SENT


def test_no_secret_is_shown() -> None:
    assert str(auth(b"AUTH PLAIN AGEAYg==")) == "AUTH PLAIN ***"
    assert str(auth_response(b"c2VjcmV0")) == "***"
    assert "c2VjcmV0" not in repr(auth_response(b"c2VjcmV0"))
    assert str(end(Transaction(["x"]), b"body\r\n.\r\n")) == "."


@pytest.mark.parametrize(
    "command",
    [
        mail(Transaction(["x"]), "a@x.test", " SIZE=9 BODY=8BITMIME"),
        mail(Transaction(["x"]), ""),
        mail(Transaction(["x"]), "j\u00f6rg@x.test", " SMTPUTF8", utf8=True),
        rcpt(Transaction(["x"]), "x", "b@y.test", " NOTIFY=NEVER"),
        rcpt(Transaction(["x"]), "x", "j\u00f6rg@y.test", utf8=True),
        data(Transaction(["x"])),
        bdat(Transaction(["x"]), 7),
        bdat(Transaction(["x"]), 7, last=True),
        RSET,
    ],
    ids=str,
)
def test_any_other_command_is_shown_as_it_is_sent(command: Command) -> None:
    assert str(command) == command.wire.decode().removesuffix("\r\n")


@pytest.mark.parametrize(
    "line",
    [
        "AUTH PLAIN c2VjcmV0",
        "auth\tPLAIN c2VjcmV0",
        "AUTH PLAIN\tc2VjcmV0",
        "AUTH\xa0PLAIN c2VjcmV0",
        " AUTH PLAIN c2VjcmV0",
        "X-AUTH c2VjcmV0\r\nNOOP",
        "X-AUTH c2VjcmV0ü",
    ],
)
def test_an_error_shows_a_lines_first_word_alone(line: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        other(line)
    assert "c2VjcmV0" not in str(caught.value)
    assert "AUTH" in str(caught.value) or line.startswith(" ")
    for make in (auth, auth_response):
        with pytest.raises(LocalProtocolError) as caught:
            make(b"AUTH XOAUTH c2VjcmV0\r\nNOOP")
        assert "c2VjcmV0" not in str(caught.value)


REPLIES = st.lists(
    st.sampled_from(
        [b"250 ok\r\n", b"250-a\r\n250 b\r\n", b"550 5.7.1 no\r\n", b"354 go\r\n", b"421 bye\r\n", b"x\r\n"]
    ),
    max_size=8,
).map(b"".join)


def outcome(octets: list[bytes]) -> list[object]:
    protocol = ready()
    transaction = begin(protocol, "b@y.test", "c@y.test")
    protocol.send(data(transaction))
    seen: list[object] = []
    try:
        for piece in octets:
            protocol.receive_data(piece)
            while (event := protocol.next_event()) is not None:
                seen.append((event[0].verb, event[1]))
    except RemoteProtocolError as exc:
        seen.append(str(exc))
    return [*seen, protocol.state, transaction.delivery, transaction.fates()]


@given(REPLIES)
def test_whole_and_octet_by_octet_give_the_same_events(octets: bytes) -> None:
    assert outcome([octets]) == outcome([octets[i : i + 1] for i in range(len(octets))])


@given(st.binary(max_size=200))
def test_whatever_a_server_sends_is_understood_or_a_remote_protocol_error(octets: bytes) -> None:
    protocol = ready()
    transaction = begin(protocol, "b@y.test")
    protocol.send(bdat(transaction, 0, last=True))
    try:
        events(protocol, octets)
    except RemoteProtocolError:
        assert protocol.state is State.CLOSED
    if transaction.delivery is None:
        assert transaction.reply is not None
        assert transaction.reply.is_success
