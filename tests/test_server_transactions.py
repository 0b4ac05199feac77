# The mail transactions of a session by themselves.
from __future__ import annotations

from trio_smtp import Recipient, Sender
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
