from __future__ import annotations

import pytest

from trio_smtp._protocol.envelope import DeliverBy, Envelope, Recipient, Sender


def test_parts_are_found_in_the_address():
    sender = Sender('"a b"@Example.COM')
    assert (sender.address, sender.local_part, sender.domain, sender.params) == (
        '"a b"@Example.COM',
        "a b",
        "example.com",
        {},
    )
    null = Sender("")
    assert (null.address, null.local_part, null.domain) == ("", "", "")
    assert Recipient("postmaster").domain == ""


def test_defaults():
    sender = Sender("a@b")
    assert [sender.size, sender.body, sender.ret, sender.envid, sender.auth] == [None] * 5
    assert sender.smtputf8 is sender.requiretls is False
    assert [sender.mt_priority, sender.deliver_by, sender.hold_for, sender.hold_until] == [None] * 4
    recipient = Recipient("a@b")
    assert (recipient.notify, recipient.orcpt) == (None, None)


def test_values_are_not_shared():
    one, two = Sender("a@b"), Sender("a@b")
    one.params["X"] = None
    one.size = 5
    assert two.params == {}
    assert two.size is None
    assert Sender.size is None


def test_equality():
    assert Sender("a@b") == Sender("a@b")
    assert Sender("a@b") != Sender("a@B")
    assert Sender("a@b") != Recipient("a@b")
    assert Sender("a@b") != "a@b"
    assert Sender("a@b", params={"SIZE": "1"}) != Sender("a@b")
    sized = Sender("a@b")
    sized.size = 1
    assert sized != Sender("a@b")
    assert len({Recipient("a@b"), Recipient("a@b"), Recipient("c@d")}) == 2


def test_text():
    assert str(Sender("a@b")) == "a@b"
    assert repr(Sender("a@b")) == "Sender('a@b')"
    assert repr(Recipient("a@b", params={"NOTIFY": "NEVER"})) == "Recipient('a@b', {'NOTIFY': 'NEVER'})"
    assert repr(Envelope(Sender(""), [Recipient("a@b")])) == "Envelope(Sender(''), [Recipient('a@b')])"


def test_envelope():
    envelope = Envelope(Sender("a@b"))
    assert envelope.recipients == []
    assert envelope == Envelope(Sender("a@b"))
    envelope.recipients.append(Recipient("c@d"))
    assert envelope != Envelope(Sender("a@b"))
    assert envelope == Envelope(Sender("a@b"), [Recipient("c@d")])
    assert envelope != Envelope(Sender("x@b"), [Recipient("c@d")])
    assert envelope != "envelope"
    with pytest.raises(TypeError, match="unhashable"):
        hash(envelope)


def test_deliver_by_is_a_tuple():
    assert DeliverBy(60, "R", True) == (60, "R", True)
