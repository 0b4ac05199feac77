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

    async def on_rcpt(self, session, recipient):
        session.envelope.sender = None

    async def on_data(self, session, envelope, body):
        await body.read()
        envelope.recipients.clear()
        return "ABC1"


async def test_a_hook_that_takes_the_sender_away_ends_no_session():
    async with (
        testing.open_server(Rewrites()) as server,
        trio_smtp.open_client("mx.test", stream=server.connect(), local_hostname="me.test") as client,
    ):
        for _ in range(2):
            result = await client.send("a@a.test", ["b@b.test", "c@b.test"], b"text\r\n")
            assert result.reply.text == "OK: queued as ABC1"
