"""Delivery reports: those we make, read by us and by the email package; those of others; and hostile ones."""

from __future__ import annotations

import email
import email.policy
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_smtp
from trio_smtp import (
    ConnectError,
    ConnectionLostError,
    Delivery,
    Envelope,
    MessageRefusedError,
    MessageTooLargeError,
    Recipient,
    RecipientsRefusedError,
    Reply,
    Sender,
    SenderRefusedError,
    SendResult,
    reports,
)
from trio_smtp.reports import (
    Action,
    Report,
    ReportedRecipient,
    ReportError,
    _fields,
    _making,
    _reading,
    make_report,
    parse_report,
)
from trio_smtp.testing import open_sink

SAMPLES = Path(__file__).parent / "reports"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NO_USER = Reply(550, "no such user", "5.1.1")
LATER = Reply(450, "come back later", "4.2.0")
ORIGINAL = b"From: <me@x.test>\r\nSubject: hi\r\nMessage-ID: <1@x.test>\r\n\r\nhello\r\n"


def envelope(*recipients: str | Recipient, sender: str = "me@x.test", **attributes: Any) -> Envelope:
    party = Sender(sender)
    for name, value in attributes.items():
        setattr(party, name, value)
    return Envelope(party, [Recipient(each) if isinstance(each, str) else each for each in recipients])


def recipient(address: str, notify: str | None = None, orcpt: tuple[str, str] | None = None) -> Recipient:
    found = Recipient(address)
    found.notify = None if notify is None else frozenset(notify.split(","))
    found.orcpt = orcpt
    return found


def refused(**replies: Reply) -> RecipientsRefusedError:
    addresses = {f"{name}@y.test": reply for name, reply in replies.items()}
    return RecipientsRefusedError(
        "no", reply=next(iter(replies.values())), refused=addresses, delivery=Delivery.REFUSED
    )


def make(outcome: Any, to: Envelope, **options: Any) -> EmailMessage:
    made = make_report(outcome, to, reporting_mta="mx.test", **options)
    assert made is not None
    return made


def read(outcome: Any, to: Envelope, **options: Any) -> Report:
    return parse_report(make(outcome, to, **options).as_bytes())


# -- ours


def test_a_refused_recipient() -> None:
    to = envelope(recipient("you@y.test", orcpt=("rfc822", "first@z.test")), envid="QQ 1", ret="FULL")
    report = read(refused(you=NO_USER), to, content=ORIGINAL, remote_mta="mail.y.test", received_from="c", arrived=NOW)
    [found] = report.recipients
    assert found.last_attempt is not None
    assert abs(found.last_attempt - datetime.now(UTC)) < timedelta(minutes=5)
    assert found == ReportedRecipient(
        address="you@y.test",
        action=Action.FAILED,
        status="5.1.1",
        orcpt=("rfc822", "first@z.test"),
        diagnostic="550 5.1.1 no such user",
        reply=NO_USER,
        remote_mta="mail.y.test",
        last_attempt=found.last_attempt,
    )
    assert (report.envelope_id, report.reporting_mta, report.received_from) == ("QQ 1", "mx.test", "c")
    assert report.arrived == NOW
    assert report.returned == ORIGINAL
    assert report.message_id == "<1@x.test>"
    assert "<you@y.test>: 550 5.1.1 no such user" in report.text


def test_the_email_package_reads_it_as_what_it_is() -> None:
    octets = make(refused(you=NO_USER), envelope("you@y.test"), content=ORIGINAL).as_bytes(policy=email.policy.SMTP)
    assert all(len(line) <= 78 for line in octets.split(b"\r\n"))
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["To"].addresses[0].addr_spec == "me@x.test"
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@mx.test"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == message["References"] == "<1@x.test>"
    assert message["Message-ID"].endswith("@mx.test>")
    text, status, returned = message.iter_parts()
    assert text.get_content_type() == "text/plain"
    groups: Any = status.get_payload()
    about, one = groups
    assert about["Reporting-MTA"] == "dns; mx.test"
    assert (one["Final-Recipient"], one["Action"], one["Status"]) == ("rfc822;you@y.test", "failed", "5.1.1")
    assert returned.get_content()["Subject"] == "hi"
    for part in message.walk():
        assert not part.defects


@pytest.mark.parametrize(
    ("ret", "size", "failed", "whole"),
    [
        ("FULL", 10, True, True),
        ("FULL", _making.RETURNED, True, True),
        ("HDRS", 10, True, False),
        (None, 10, True, True),
        (None, _making.RETURNED, True, False),
        ("FULL", 10, False, False),  # RFC 3461 §4.3: of a failure only
    ],
)
def test_what_is_returned(ret: str | None, size: int, failed: bool, whole: bool) -> None:
    content = ORIGINAL + b"x" * size + b"\r\n"
    outcome = refused(you=NO_USER if failed else LATER)
    report = read(outcome, envelope("you@y.test", ret=ret), content=content, retry_until=NOW)
    assert report.returned == (content if whole else ORIGINAL.partition(b"\r\n\r\n")[0] + b"\r\n")
    assert report.message_id == "<1@x.test>"


def test_a_message_object_is_returned_and_nothing_at_all() -> None:
    original = EmailMessage()
    original["Subject"] = "hi"
    original.set_content("hello")
    assert b"hello\r\n" in read(refused(you=NO_USER), envelope("you@y.test"), content=original).returned
    report = read(refused(you=NO_USER), envelope("you@y.test"))
    assert (report.returned, report.message_id) == (b"", None)


@pytest.mark.parametrize(
    ("notify", "failed", "delayed", "accepted"),
    [
        (None, True, True, False),
        ("NEVER", False, False, False),
        ("FAILURE", True, False, False),
        ("DELAY", False, True, False),
        ("SUCCESS", False, False, True),
        ("SUCCESS,FAILURE,DELAY", True, True, True),
    ],
)
def test_notify_decides_who_is_reported_on(notify: str | None, failed: bool, delayed: bool, accepted: bool) -> None:
    to = envelope(recipient("you@y.test", notify))
    taken = SendResult(Reply(250, "ok", "2.0.0"), ["you@y.test"])
    outcomes: list[tuple[Any, bool]] = [
        (refused(you=NO_USER), failed),
        (refused(you=LATER), delayed),
        (taken, accepted),
    ]
    for outcome, wanted in outcomes:
        made = make_report(outcome, to, reporting_mta="mx.test", retry_until=NOW)
        assert (made is not None) is wanted


def test_each_recipient_has_its_own_fate() -> None:
    to = envelope("a@y.test", "b@y.test", recipient("c@y.test", "SUCCESS"), "d@y.test", recipient("e@y.test", "NEVER"))
    result = SendResult(
        Reply(250, "ok", "2.0.0"), ["c@y.test", "d@y.test"], {"a@y.test": NO_USER, "b@y.test": LATER, "e@y.test": LATER}
    )
    report = read(result, to, retry_until=NOW)
    assert [(each.address, each.action, each.status) for each in report.recipients] == [
        ("a@y.test", Action.FAILED, "5.1.1"),
        ("b@y.test", Action.DELAYED, "4.2.0"),
        ("c@y.test", Action.RELAYED, "2.0.0"),
    ]
    assert [each.retry_until for each in report.recipients] == [None, NOW, None]
    delivered = read(result, to, accepted="delivered")
    assert [each.action for each in delivered.recipients] == [Action.FAILED, Action.FAILED, Action.DELIVERED]
    silent = read(result, to, accepted=None)
    assert [each.address for each in silent.recipients] == ["a@y.test", "b@y.test"]


def test_lmtp_has_a_reply_for_each() -> None:
    replies = {"a@y.test": Reply(250, "into the box", "2.1.5")}
    result = SendResult(Reply(250, "ok"), ["a@y.test"], {"b@y.test": NO_USER}, replies)
    report = read(result, envelope(recipient("a@y.test", "SUCCESS"), "b@y.test"), accepted="delivered")
    assert [each.reply for each in report.recipients] == [replies["a@y.test"], NO_USER]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (ConnectError("cannot connect"), "4.4.1"),
        (ConnectionLostError("gone"), "4.4.2"),
        (trio_smtp.SMTPTimeoutError("late"), "4.4.1"),
        (trio_smtp.TLSError("no TLS"), "4.7.5"),
        (trio_smtp.AuthenticationError("no", reply=Reply(535, "no", "5.7.8")), "5.7.8"),
        (trio_smtp.ExtensionNotSupportedError("no"), "5.3.3"),
        (MessageTooLargeError("too large"), "5.3.4"),
        (trio_smtp.LocalProtocolError("bad"), "5.6.0"),
        (trio_smtp.RemoteProtocolError("odd"), "5.5.0"),
        (trio_smtp.PoolFullError("full"), "4.0.0"),
        (SenderRefusedError("no", reply=Reply(550, "no")), "5.0.0"),
        (MessageRefusedError("no", reply=Reply(451, "later")), "4.0.0"),
        (MessageRefusedError("no", reply=Reply(554, "spam", "5.7.1")), "5.7.1"),
    ],
)
def test_errors_that_are_about_the_whole_message(outcome: trio_smtp.SMTPError, status: str) -> None:
    [found] = read(outcome, envelope("you@y.test")).recipients
    assert (found.address, found.action, found.status) == ("you@y.test", Action.FAILED, status)
    assert found.reply == outcome.reply
    assert found.diagnostic is not None
    [found] = read(outcome, envelope("you@y.test"), retry_until=NOW).recipients
    assert found.action is (Action.DELAYED if status.startswith("4") else Action.FAILED)


def test_a_message_in_doubt_is_said_to_be() -> None:
    error = ConnectionLostError("gone", delivery=Delivery.UNKNOWN, accepted=["a@y.test"], unknown=["b@y.test"])
    report = read(error, envelope("a@y.test", "b@y.test"))
    [found] = report.recipients
    assert (found.address, found.status) == ("b@y.test", "4.4.2")
    assert "may have been delivered" in report.text


def test_no_report_on_a_report() -> None:
    assert make_report(refused(you=NO_USER), envelope("you@y.test", sender=""), reporting_mta="mx.test") is None


def test_addresses_that_are_not_ascii() -> None:
    """RFC 6533: as they are for a sender that used SMTPUTF8, else in ASCII."""
    to = recipient("jürgen@grüße.test", orcpt=("utf-8", "ä\\b@z.test"))
    for smtputf8 in (True, False):
        made = make(RecipientsRefusedError("no", reply=NO_USER), envelope(to, smtputf8=smtputf8))
        octets = made.as_bytes()
        assert (b"message/global-delivery-status" in octets) is smtputf8
        assert ("jürgen".encode() in octets.partition(b"Final-Recipient")[2]) is smtputf8
        [found] = parse_report(octets).recipients
        assert found.address == "jürgen@grüße.test"
        assert found.orcpt == ("utf-8", "ä\\b@z.test")


@pytest.mark.parametrize("smtputf8", [True, False])
def test_a_header_that_is_not_ascii_is_returned_as_it_is(smtputf8: bool) -> None:
    content = "Subject: Grüße\r\n\r\nhällo\r\n".encode()
    for ret in ("FULL", "HDRS"):
        made = make(refused(you=NO_USER), envelope("you@y.test", smtputf8=smtputf8, ret=ret), content=content)
        assert parse_report(made.as_bytes()).returned.rstrip() == (content if ret == "FULL" else content[:16]).rstrip()
        [kind] = [
            part.get_content_type() for part in made.walk() if part.get_content_type() in _reading._RETURNED_TYPES
        ]
        assert (
            kind
            == {
                (True, "FULL"): "message/global",
                (True, "HDRS"): "message/global-headers",
                (False, "FULL"): "message/rfc822",
                (False, "HDRS"): "text/rfc822-headers",
            }[smtputf8, ret]
        )


def test_what_a_server_said_adds_no_field() -> None:
    reply = Reply.received(550, ("a\rAction: delivered", "b\x0bStatus: 2.0.0\x85X: 1\u2028Y: 2"), None)
    error = MessageRefusedError("no", reply=reply)
    to = envelope(recipient("you@y.test", orcpt=("rfc822", "x\r\nAction: delivered")), envid="1\r\nX-Evil: 1")
    octets = make(error, to, received_from="x\r\n\r\nFinal-Recipient: rfc822; evil@z.test").as_bytes()
    report = parse_report(octets)
    [found] = report.recipients
    assert (found.action, found.status, found.address) == (Action.FAILED, "5.0.0", "you@y.test")
    assert b"\nX-Evil" not in octets


def test_a_reply_without_blanks_makes_no_line_too_long() -> None:
    made = make(MessageRefusedError("no", reply=Reply.received(550, ("x" * 5000,), None)), envelope("you@y.test"))
    assert max(map(len, made.as_bytes().split(b"\n"))) <= 998


async def test_a_report_goes_out_as_it_was_made() -> None:
    content = ORIGINAL + b"J\xfcrgen\r\n"
    made = make(refused(you=NO_USER), envelope("you@y.test", ret="FULL"), content=content)
    async with open_sink() as sink:
        async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
            await client.send("", ["me@x.test"], made)
        [received] = sink.messages
    report = parse_report(received.content)
    assert report.recipients[0].address == "you@y.test"
    assert report.returned == content
    assert received.sender == ""


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((refused(you=NO_USER), envelope("you@y.test")), {"reporting_mta": "mx test"}),
        ((refused(you=NO_USER), envelope("you@y.test")), {"reporting_mta": "mx\r\n"}),
        ((refused(you=NO_USER), envelope("you@y.test")), {"arrived": datetime(2026, 1, 1)}),
        ((refused(you=NO_USER), envelope("you@y.test")), {"retry_until": datetime(2026, 1, 1)}),
    ],
)
def test_wrong_arguments(arguments, options) -> None:
    with pytest.raises(ValueError, match=r"reporting_mta|time zone"):
        make_report(*arguments, **{"reporting_mta": "mx.test", **options})
    with pytest.raises(TypeError, match="outcome"):
        make_report(None, arguments[1], reporting_mta="mx.test")  # type: ignore[arg-type]


def test_the_boundary_is_not_in_what_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: Iterator[str] = iter(["aa", "aa", "bb"])
    monkeypatch.setattr("trio_smtp.reports._making.secrets.token_hex", lambda size: next(tokens))
    content = ORIGINAL + b"--=_aa\r\n"
    assert read(refused(you=NO_USER), envelope("you@y.test"), content=content).returned == content
    assert next(tokens, None) is None


ADDRESSES = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~äß-]{1,40}@[a-zß]{1,20}\.test", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@settings(max_examples=50, deadline=None)
@given(
    address=ADDRESSES,
    envid=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100),
    lines=st.lists(TEXT, min_size=1, max_size=4),
    smtputf8=st.booleans(),
    body=st.binary(max_size=200),
)
def test_what_is_made_can_be_read(
    address: str, envid: str | None, lines: list[str], smtputf8: bool, body: bytes
) -> None:
    reply = Reply.received(550, tuple(lines), None)
    to = envelope(recipient(address), smtputf8=smtputf8, envid=envid, ret="FULL")
    content = ORIGINAL + body.replace(b"\r", b"").replace(b"\n", b"\r\n")
    octets = make(MessageRefusedError("no", reply=reply), to, content=content).as_bytes(
        policy=email.policy.SMTP.clone(refold_source="none")
    )
    report = parse_report(octets)
    [found] = report.recipients
    assert (found.address, found.action, found.status) == (address, Action.FAILED, "5.0.0")
    assert found.reply is not None
    assert found.reply.code == 550
    assert report.envelope_id == envid
    assert report.returned == content


# -- those of others


@pytest.mark.parametrize("server", ["postfix", "exim"])
@pytest.mark.parametrize("ret", ["hdrs", "full"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_postfix_and_exim(server: str, ret: str, ends: bytes) -> None:
    """As tests/peers/test_reports_of_peers.py got them."""
    octets = (SAMPLES / f"{server}-{ret}.eml").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", ends)
    report = parse_report(octets)
    [found] = report.recipients
    plus = "+" if server == "postfix" else "+2B"  # Exim 4.96 does not decode xtext
    assert found.address == "bad@ours.test"
    assert found.action is Action.FAILED
    assert found.status == ("5.1.1" if server == "postfix" else "5.0.0")
    assert found.orcpt == ("rfc822", f"first{plus}one@here.test")
    assert found.reply == Reply(550, ["mailbox", "unavailable"], "5.1.1")
    assert report.envelope_id == f"QQ{plus}314159"
    assert report.reporting_mta == f"{server}.test"
    assert report.message_id is not None
    assert (b"Hello!" in report.returned) is (ret == "full")
    assert report.text


def report_of(*groups: str, kind: str = "message/delivery-status", encoding: str = "") -> bytes:
    header = f"Content-Type: {kind}\n" + (f"Content-Transfer-Encoding: {encoding}\n" if encoding else "")
    return (
        "Content-Type: multipart/report; report-type=delivery-status;\n boundary=b\n\n--b\n\nIt failed.\n\n"
        f"--b\n{header}\n"
        + "\n\n".join(groups)
        + "\n\n--b\nContent-Type: message/rfc822\n\nMessage-ID: <1@x>\n\nhi\n--b--\n"
    ).encode()


# What these servers write, with names changed: (group about the message, group about the recipient, what it means).
FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Gmail": (
        "Reporting-MTA: dns; googlemail.com\nArrival-Date: Sun, 01 Mar 2026 04:00:00 -0800 (PST)\n"
        "X-Original-Message-ID: <1@x>",
        "Final-Recipient: rfc822; you@y.test\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; mx.y.test. (192.0.2.1, "
        "the server for the domain y.test.)\nDiagnostic-Code: smtp; 550-5.1.1 The email account that you tried to "
        "reach does not exist.\n 550-5.1.1 Please try double-checking\n 550 5.1.1 https://support.test/ a1 - gsmtp\n"
        "Last-Attempt-Date: Sun, 01 Mar 2026 04:00:01 -0800 (PST)",
        {
            "reply": Reply(
                550,
                [
                    "The email account that you tried to reach does not exist.",
                    "Please try double-checking",
                    "https://support.test/ a1 - gsmtp",
                ],
                "5.1.1",
            ),
            "last_attempt": NOW + timedelta(seconds=1),
        },
    ),
    "Exchange": (
        "Reporting-MTA: dns;AM0PR01.prod.test\nReceived-From-MTA: dns;AM0PR02.prod.test\nArrival-Date: Sun, 1 Mar 2026"
        " 12:00:00 +0000",
        "Final-Recipient: rfc822;you@y.test\nAction: failed\nStatus: 5.1.10\nDiagnostic-Code: smtp;550 5.1.10"
        " RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup\nX-Display-Name: You",
        {"reply": Reply(550, "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", "5.1.10")},
    ),
    "Sendmail": (
        "Reporting-MTA: dns; mx.test\nReceived-From-MTA: DNS; client.test\nArrival-Date: Sun, 1 Mar 2026 12:00:00 GMT",
        "Original-Recipient: rfc822;<you@y.test>\nFinal-Recipient: RFC822; <you@y.test>\nAction: failed\n"
        "Status: 5.1.1\nRemote-MTA: DNS; mail.y.test\nDiagnostic-Code: SMTP; 550 5.1.1 <you@y.test>... User unknown\n"
        "Last-Attempt-Date: Sun, 1 Mar 2026 12:00:01 GMT",
        {"reply": Reply(550, "<you@y.test>... User unknown", "5.1.1"), "orcpt": ("rfc822", "you@y.test")},
    ),
    "Amazon SES": (
        "Reporting-MTA: dns; a1-2.smtp-out.ses.test\nArrival-Date: Sun, 01 Mar 2026 12:00:00 +0000",
        "Action: failed\nFinal-Recipient: rfc822; you@y.test\nDiagnostic-Code: smtp; 550 5.1.1 user unknown\n"
        "Status: 5.1.1",
        {"reply": Reply(550, "user unknown", "5.1.1")},
    ),
    "a delay of Postfix": (
        "Reporting-MTA: dns; mx.test\nX-Postfix-Queue-ID: 1\nArrival-Date: Sun,  1 Mar 2026 12:00:00 +0000 (UTC)",
        "Final-Recipient: rfc822; you@y.test\nOriginal-Recipient: rfc822;you@y.test\nAction: delayed\nStatus: 4.4.1\n"
        "Diagnostic-Code: X-Postfix; connect to mail.y.test[192.0.2.1]:25: Connection timed\n    out\n"
        "Will-Retry-Until: Fri,  6 Mar 2026 12:00:00 +0000 (UTC)",
        {
            "action": Action.DELAYED,
            "status": "4.4.1",
            "reply": None,
            "diagnostic": "connect to mail.y.test[192.0.2.1]:25: Connection timed out",
            "retry_until": NOW + timedelta(days=5),
        },
    ),
    "a success": (
        "Reporting-MTA: dns; mx.test",
        "Final-Recipient: rfc822; you@y.test\nAction: Relayed (to a server without DSN)\nStatus: 2.0.0 (ok)",
        {"action": Action.RELAYED, "status": "2.0.0", "reply": None, "diagnostic": None},
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_forms_of_other_servers(form: str, wrapped: bool) -> None:
    about, group, wanted = FORMS[form]
    octets = report_of(about, group)
    if wrapped:  # by a list or a scanner
        octets = b"Content-Type: multipart/mixed; boundary=out\n\n--out\n\nscanned\n--out\n" + octets + b"\n--out--\n"
    report = parse_report(octets)
    [found] = report.recipients
    expected = {"address": "you@y.test", "action": Action.FAILED, "status": "5.1.1"} | wanted
    if form == "Exchange":
        expected["status"] = "5.1.10"
    for name, value in expected.items():
        assert getattr(found, name) == value, name
    assert report.reporting_mta
    if "Arrival-Date" in about:
        assert report.arrived == NOW
    assert report.message_id == "<1@x>"
    assert report.text == ("scanned" if wrapped else "It failed.\n")


def test_parts_inside_the_part_for_people() -> None:
    """Gmail's is a multipart/related with a multipart/alternative in it."""
    inner = (
        "Content-Type: multipart/related; boundary=r\n\n--r\nContent-Type: multipart/alternative; boundary=a\n\n--a\n"
        "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nf=FCr dich\n--a\n"
        "Content-Type: text/html\n\n<p>\n--a--\n\n--r\nContent-Type: image/png\n\n\n--r--"
    )
    octets = report_of("Reporting-MTA: dns; x", "Final-Recipient: rfc822; a@b\nAction: failed")
    report = parse_report(octets.replace(b"--b\n\nIt failed.\n", f"--b\n{inner}\n".encode(), 1))
    assert report.text == "für dich"
    assert report.recipients[0].address == "a@b"


def test_an_encoded_status_part() -> None:
    group = "Final-Recipient: utf-8; \\x{FC}@b\nAction: failed\nStatus: 5.1.1"
    import base64

    octets = report_of(
        base64.encodebytes(f"Reporting-MTA: dns; x\n\n{group}\n".encode()).decode(),
        kind="message/global-delivery-status",
        encoding="base64",
    )
    assert parse_report(octets).recipients[0].address == "ü@b"


def test_a_message_object_is_read() -> None:
    for policy in (email.policy.compat32, email.policy.default):
        message = email.message_from_bytes((SAMPLES / "postfix-full.eml").read_bytes(), policy=policy)
        assert parse_report(message).recipients[0].address == "bad@ours.test"


# -- hostile ones


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n",
        b"hello",
        b"Subject: hi\r\n\r\nhi\r\n",
        b"Content-Type: multipart/report\r\n\r\n--b\r\n",
        b"Content-Type: multipart/report; boundary=\r\n\r\n--\r\n",
        b"Content-Type: multipart/report; boundary*" + b"9" * 5000 + b"*=b\r\n\r\n--b\r\n",
        b"Content-Type: multipart/report; boundary*=xx''%ff\r\n\r\n--b\r\n",
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b--\r\n",
        b'Content-Type: \x00\xff;;;="\r\n\r\n',
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nspam\n--b--\n",
        # What is returned is not looked into: it is somebody else's.
        b"Content-Type: message/rfc822\n\n" + report_of("Reporting-MTA: dns; x", "Final-Recipient: rfc822; a@b"),
    ],
)
def test_what_is_no_report(octets: bytes) -> None:
    with pytest.raises(ReportError):
        parse_report(octets)


def test_what_is_neither_octets_nor_a_message() -> None:
    with pytest.raises(TypeError):
        parse_report("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("octets", "recipients"),
    [
        (report_of(""), 0),
        (report_of("Reporting-MTA: dns; x"), 0),
        (report_of("Action: failed"), 1),
        (report_of("Final-Recipient: rfc822;\nAction: nonsense\nStatus: 5.x"), 1),
        (report_of("Final-Recipient: a@b"), 1),
        (report_of("no field", ": none", "Final-Recipient: rfc822; a@b\n folded"), 1),
        (report_of("Final-Recipient: utf-8; \\x{110000}\\x{D800}\\x{0A}a@b"), 1),
        (report_of("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 999 no\nLast-Attempt-Date: 99 Foo"), 1),
        (report_of("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 550 4.1.1 no"), 1),
        (report_of("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp;"), 1),
        (report_of("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 550-x 550-y 550"), 1),
        (report_of("Final-Recipient: rfc822; a\x00\x1b[31m\x85@b"), 1),
        (report_of("Arrival-Date: " + "9" * 8000, "Final-Recipient: rfc822; a@b"), 1),
        (b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b\n", 1),
        (b"Content-Type: multipart/x; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\nAction: failed", 1),
    ],
)
def test_what_is_hardly_one(octets: bytes, recipients: int) -> None:
    report = parse_report(octets)
    assert len(report.recipients) == recipients
    for each in report.recipients:
        assert each.address.isprintable()
        assert all(ord(char) not in range(0xD800, 0xE000) for char in each.address)
        assert each.reply is None or each.reply.code == 550


def nested(depth: int) -> bytes:
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
    return head + b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b\n"


LIMITS: dict[str, tuple[Any, int]] = {
    "MAX_HEADER": (
        lambda n: b"X: %s\n" % (b"x" * (n - 4 - nested(1).index(b"\n") - 1)) + nested(1),
        _fields.MAX_HEADER,
    ),
    "MAX_STATUS": (lambda n: b"Content-Type: message/delivery-status\n\n" + b"x" * n, _reading.MAX_STATUS),
    "MAX_DEPTH": (nested, _reading.MAX_DEPTH),
    "MAX_PARTS": (
        lambda n: (
            b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
            + b"\n--b\n" * (n - 1)
            + b"Content-Type: message/delivery-status\n\nAction: failed\n--b--\n"
        ),
        _reading.MAX_PARTS,
    ),
    "MAX_RECIPIENTS": (lambda n: report_of(*["Final-Recipient: rfc822; a@b"] * n), _reading.MAX_RECIPIENTS),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_limits(limit: str) -> None:
    make_one, most = LIMITS[limit]
    parse_report(make_one(most))
    with pytest.raises(ReportError, match="more than"):
        parse_report(make_one(most + 1))


def test_what_is_cut() -> None:
    text = b"x" * (_reading.MAX_TEXT + 1)
    octets = report_of(
        "Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 550 " + "y" * 2 * _fields.MAX_FIELD,
    ).replace(b"It failed.", text)
    report = parse_report(octets)
    assert len(report.text) == _reading.MAX_TEXT
    [found] = report.recipients
    assert found.diagnostic is not None
    assert len(found.diagnostic) <= _fields.MAX_FIELD
    folded = "\n ".join(["smtp; 550-a", *["550-b"] * 2 * _fields.MAX_LINES])
    [found] = parse_report(report_of(f"Final-Recipient: rfc822; a@b\nDiagnostic-Code: {folded}")).recipients
    assert found.reply is not None
    assert len(found.reply.lines) == _fields.MAX_LINES


@pytest.mark.parametrize(
    "octets",
    [
        nested(500),
        report_of(*["Final-Recipient: rfc822; a@b"] * 100_000)[: _reading.MAX_STATUS],
        report_of("Final-Recipient: rfc822; a@b\nDiagnostic-Code: smtp; 550-x\n" + " 550-y\n" * 500_000),
        report_of("Final-Recipient: rfc822; a@b\n" + " \n" * 1_000_000),
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b \t" * 1_000_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n" * 1_000_000,
        b"Content-Type: multipart/mixed; " + b"a;" * 4000 + b"boundary=b\n\n--b\n",
        b'Content-Type: multipart/mixed; a="' + b'\\"' * 4000 + b"\n\n--b\n",
        b"X" * 10_000_000,
        b"\n" * 10_000_000,
        b" \n" * 5_000_000,
    ],
    ids=range(11),
)
def test_a_hostile_report_costs_little(octets: bytes) -> None:
    started = time.process_time()
    try:
        parse_report(octets)
    except ReportError:
        pass
    assert time.process_time() - started < 5  # seconds; what is quadratic takes minutes


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 3000), st.integers(0, 3000))
def test_damage_is_an_error_or_less_of_a_report(junk: bytes, at: int, length: int) -> None:
    octets = (SAMPLES / "postfix-full.eml").read_bytes()
    try:
        report = parse_report(octets[:at] + junk + octets[at + length :])
    except ReportError:
        return
    for each in report.recipients:
        assert each.address.isprintable()
        repr(each)


def test_names_say_where_they_are_public() -> None:
    for name in reports.__all__:
        assert getattr(reports, name).__module__ == "trio_smtp.reports"
