# The mail transactions of a session by themselves.
from __future__ import annotations

import trio_smtp
from trio_smtp import Recipient, Sender, testing
from trio_smtp._protocol.server.transactions import Transactions

SENDER, RECIPIENT = Sender("a@a.test"), Recipient("b@b.test")


def test_a_transaction_from_its_beginning_to_its_end():
    transactions = Transactions()
    assert (transactions.envelope, transactions.addressees, transactions.count) == (None, [], 0)
    transactions.begin(SENDER)
    transactions.add(RECIPIENT)
    assert transactions.envelope is not None
    assert (transactions.envelope.sender, transactions.envelope.recipients) == (SENDER, [RECIPIENT])
    assert transactions.addressees == ["b@b.test"]
    transactions.end(accepted=True)
    assert transactions.accepted
    assert repr(transactions) == "<Transactions: none in progress, 1 begun>"


def test_the_outcome_is_that_of_the_last_one():
    transactions = Transactions()
    for accepted in (True, False):
        transactions.begin(SENDER)
        transactions.end(accepted=accepted)
        assert transactions.accepted is accepted
    assert transactions.count == 2


def test_addressees_are_those_that_were_accepted_whatever_becomes_of_the_envelope():
    transactions = Transactions()
    transactions.begin(SENDER)
    transactions.add(RECIPIENT)
    assert transactions.envelope is not None
    transactions.envelope.recipients.clear()
    assert transactions.addressees == ["b@b.test"]
    transactions.begin(SENDER)
    assert transactions.addressees == []


def test_repr():
    transactions = Transactions()
    assert repr(transactions) == "<Transactions: none in progress, 0 begun>"
    transactions.begin(SENDER)
    assert "a@a.test" in repr(transactions)


def test_what_the_dialogue_goes_by_is_as_it_was_accepted_whatever_becomes_of_the_envelope():
    sender = Sender("a@a.test", params={"SMTPUTF8": None, "BODY": "BINARYMIME"})
    sender.smtputf8, sender.body = True, "BINARYMIME"
    transactions = Transactions()
    transactions.begin(sender)
    assert transactions.envelope is not None
    transactions.envelope.sender = Sender("other@a.test")
    sender.smtputf8, sender.body = False, None
    assert (transactions.utf8, transactions.binary) == (True, True)
    transactions.end(accepted=True)
    assert not transactions.utf8
    transactions.begin(SENDER)
    assert (transactions.utf8, transactions.binary) == (False, False)


class Rewrites(trio_smtp.Handler):
    """Does with the envelope as it likes: a session goes on, as after any other mistake of a hook."""

    def __init__(self, recipients: dict[str, object] | None = None) -> None:
        self.recipients = recipients or {}

    async def on_rcpt(self, session, recipient):
        session.envelope.sender = None
        if recipient.local_part in self.recipients:
            session.envelope.recipients = self.recipients[recipient.local_part]

    async def on_data(self, session, envelope, body):
        await body.read()
        addresses = [recipient.address for recipient in envelope.recipients]
        envelope.recipients.clear()
        return " ".join(addresses)


async def test_a_hook_that_takes_the_sender_away_ends_no_session():
    async with (
        testing.open_server(Rewrites()) as server,
        trio_smtp.open_client("mx.test", stream=server.connect(), local_hostname="me.test") as client,
    ):
        for _ in range(2):
            result = await client.send("a@a.test", ["b@b.test", "c@b.test"], b"text\r\n")
            assert result.reply.text == "OK: queued as b@b.test c@b.test"


async def test_recipients_that_a_hook_has_made_a_tuple_are_a_list_again():
    async with (
        testing.open_server(Rewrites({"c": (Recipient("x@x.test"),)})) as server,
        trio_smtp.open_client("mx.test", stream=server.connect(), local_hostname="me.test") as client,
    ):
        result = await client.send("a@a.test", ["b@b.test", "c@b.test", "d@b.test"], b"text\r\n")
        assert result.reply.text == "OK: queued as x@x.test c@b.test d@b.test"


async def test_recipients_that_a_hook_has_made_nothing_of_are_its_failure(caplog):
    async with (
        testing.open_server(Rewrites({"b": None, "d": ()})) as server,
        trio_smtp.open_client("mx.test", stream=server.connect(), local_hostname="me.test") as client,
    ):
        for _ in range(2):  # the session goes on
            result = await client.send("a@a.test", ["b@b.test", "c@b.test", "d@b.test"], b"text\r\n")
            assert [str(reply) for reply in result.refused.values()] == ["451 4.3.0 local error in processing"] * 2
            assert result.reply.text == "OK: queued as d@b.test"
    assert "on_rcpt failed" in caplog.text
    assert "the recipients of the envelope must be a list, not None" in caplog.text


class Forgets(trio_smtp.Handler):
    """Has no hook that is asked about recipients, and takes them away all the same."""

    async def on_vrfy(self, session, argument):
        if session.envelope is not None:
            session.envelope.recipients = None

    async def on_data(self, session, envelope, body):
        return " ".join(recipient.address for recipient in envelope.recipients)


async def test_recipients_that_another_hook_has_taken_away_end_no_session():
    async with testing.open_server(Forgets()) as server:
        peer = testing.ScriptedPeer(server.connect(), side="C")
        await peer.reply()
        for command in ("EHLO me.test", "MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "VRFY you"):
            await peer.ask(command)
        assert await peer.ask("RCPT TO:<c@b.test>") == "250 2.1.5 OK"
        await peer.ask("DATA")
        assert await peer.ask(".") == "250 2.0.0 OK: queued as c@b.test"
