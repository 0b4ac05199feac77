"""A message that is checked and written out now, to be sent later."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from trio_smtp import LocalProtocolError, PreparedMessage, prepare_message

A, B = "a@x.test", "b@y.test"


def test_octets_and_text_stay_as_they_are():
    prepared = prepare_message(A, [B, B], b"x\n\xff")
    assert isinstance(prepared, PreparedMessage)
    assert prepared == PreparedMessage(sender=A, recipients=(B,), content=b"x\n\xff")
    assert prepare_message("", [B], "Subject: ü\n\n").content == "Subject: ü\n\n".encode()
    assert prepare_message(A, [B], bytearray(b"x")).content == b"x"
    assert prepare_message(A, [B], memoryview(b"")).content == b""


def test_a_message_is_written_for_any_server_without_its_bcc():
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"], message["Subject"] = A, B, "c@z.test", "ü"
    message.set_content("ü")
    prepared = prepare_message(None, None, message)
    assert (prepared.sender, prepared.recipients) == (A, (B, "c@z.test"))
    assert prepared.content.isascii()
    assert b"Bcc" not in prepared.content
    assert prepare_message("", [B], message).recipients == (B,)


def test_utf8_stays_where_an_address_needs_it():
    message = EmailMessage()
    message["From"], message["To"] = "ü@x.test", B
    message.set_content("hi")
    assert "ü@x.test".encode() in prepare_message(None, None, message).content


def test_parameters_are_checked_and_kept():
    prepared = prepare_message(A, [B], b"", mail_params={"ret": "HDRS"}, rcpt_params={B: {"NOTIFY": "NEVER"}})
    assert (prepared.mail_params, prepared.rcpt_params) == ({"RET": "HDRS"}, {B: {"NOTIFY": "NEVER"}})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((A, [B], 5), TypeError),
        ((A, B, b""), TypeError),
        ((None, None, b""), TypeError),
        ((A, [], b""), LocalProtocolError),
        ((A, ["x"], b""), LocalProtocolError),
        (("a\r\n@x", [B], b""), LocalProtocolError),
        ((A, [B], "Subject: \udc80\n\n"), LocalProtocolError),
        ((None, None, EmailMessage()), LocalProtocolError),
    ],
)
def test_what_cannot_be_sent(arguments, error):
    with pytest.raises(error):
        prepare_message(*arguments)
