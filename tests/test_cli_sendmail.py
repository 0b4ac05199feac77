# `trio-smtp send` in sendmail's place, called with the words of the programs that call sendmail.
from __future__ import annotations

import email
import email.policy
import getpass
import os
import re

import pytest
from cli_process import invoke

from trio_smtp.testing import run_sink

PATCH = b"From: Ada <ada@example.com>\nTo: list@example.net\nDate: x\nMessage-Id: <1@x>\nSubject: [PATCH]\n\n.\nafter\n"
BARE = b"To: grace@example.net\nSubject: from mail\n\nhello\n"
JOB = b"From: root (Cron Daemon)\nTo: ops@example.net\nSubject: Cron <root@box> true\n\nout\n"
BCC = b"From: ada@example.com\nTo: b@example.net\nBcc: c@example.net\n\nx\n"
USER = getpass.getuser()
HOST = "client.example"


def bare(port, *words, message):
    return invoke("send", "--server", f"127.0.0.1:{port}", "--hostname", HOST, *words, input=message)


@pytest.fixture(scope="module")
def sink():
    with run_sink() as sink:
        yield sink


@pytest.mark.parametrize(
    ("words", "message", "sender", "recipients"),
    [
        # git send-email --sendmail-cmd, with and without --envelope-sender
        ("-i list@example.net b@example.net", PATCH, "ada@example.com", "list@example.net b@example.net"),
        ("-f me@example.com -i b@example.net", PATCH, "me@example.com", "b@example.net"),
        # PHP: sendmail_path and the fifth argument of mail(); the last -f counts
        ("-t -i", BCC, "ada@example.com", "b@example.net c@example.net"),
        ("--from dev@example.com -t -i -fme@example.com", BCC, "me@example.com", "b@example.net c@example.net"),
        # mail and mailx, which leave From, Date and Message-ID to sendmail
        ("-i grace@example.net", BARE, f"{USER}@{HOST}", "grace@example.net"),
        ("-i -r me@example.com -- grace@example.net", BARE, "me@example.com", "grace@example.net"),
        # cron: Debian's, cronie's
        ("-FCronDaemon -i -B8BITMIME -oem ops@example.net", JOB, f"root@{HOST}", "ops@example.net"),
        ("-FCronDaemon -odi -oem -oi -t -f root", JOB, f"root@{HOST}", "ops@example.net"),
        # mutt; scripts; a null sender; lists and names in arguments; an address without a domain
        ("-oem -oi -f me@example.com -- b@example.net", PATCH, "me@example.com", "b@example.net"),
        ("-oi -odb -oep -om -bm -O DeliveryMode=b -G -U -n b@example.net", BCC, "ada@example.com", "b@example.net"),
        ("-i -f <> b@example.net", BCC, "", "b@example.net"),
        ("-oi b@example.net,<d@example.net> root", BCC, "ada@example.com", f"b@example.net d@example.net root@{HOST}"),
        # -t adds the header's; --to has the last word
        ("-t -oi d@example.net", BCC, "ada@example.com", "d@example.net b@example.net c@example.net"),
        ("--to me@example.org -t -i", BCC, "ada@example.com", "me@example.org"),
        ("--to me@example.org -i list@example.net", BCC, "ada@example.com", "me@example.org"),
    ],
)
def test_words_of_programs(sink, words, message, sender, recipients):
    done = bare(sink.port, *words.split(" "), message=message)
    assert (done.exit_code, done.output) == (0, "")
    received = sink.messages[-1]
    content = received.content
    assert (received.sender, received.recipients) == (sender, tuple(recipients.split(" ")))
    header, _, text = message.partition(b"\n\n")
    kept = header.replace(b"\nBcc: c@example.net", b"").replace(b"\n", b"\r\n")
    assert content.startswith(kept + b"\r\n")
    assert content.endswith(b"\r\n\r\n" + text.replace(b"\n", b"\r\n"))
    shown = email.message_from_bytes(content, policy=email.policy.default)
    assert [len(shown.get_all(name, ())) for name in ("From", "Date", "Message-ID", "Bcc")] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("message", "header", "text"),
    [
        (b"no header at all\n", "", "no header at all\r\n"),
        (b"no line end", "", "no line end\r\n"),
        (b"", "", ""),
        (b"Subject: only a header", "Subject: only a header\r\n", ""),
        (b"From me Fri Nov 27\nSubject: of a mailbox\r\n\r\nx\r\n", "Subject: of a mailbox\r\n", "x\r\n"),
        (b"Subject: no empty line,\n folded\nx\n\ny\n", "Subject: no empty line,\r\n folded\r\n", "x\r\n\r\ny\r\n"),
    ],
)
def test_a_message_that_is_not_quite_one(sink, message, header, text):
    done = bare(sink.port, "-i", "-F", "Ada Ł", "b@example.net", message=message)
    assert done.exit_code == 0, done.output
    content = sink.messages[-1].content
    made = rb"From: =\?utf-8\?.*\?= <(.*)>\r\nDate: .*\r\nMessage-ID: <.*@client\.example>\r\n\r\n"
    match = re.fullmatch(re.escape(header.encode()) + made + re.escape(text.encode()), content)
    assert match is not None, content
    assert match[1].decode() == f"{USER}@{HOST}"


def test_a_sender_whose_name_needs_quotes_and_whose_address_needs_utf8(sink):
    done = bare(sink.port, "-F", "Smith, Jürgen", "-f", "jürgen@example.com", "b@example.net", message=b"x\n")
    assert done.exit_code == 0, done.output
    received = sink.messages[-1]
    assert received.message["From"].addresses[0].display_name == "Smith, Jürgen"
    assert " <jürgen@example.com>\r\nDate: ".encode() in received.content


def test_a_user_without_a_name(monkeypatch):
    """The number of a container's user may be in no list."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4242424242)
    done = bare(9, "-i", "b@example.net", message=b"x\n")
    assert (done.exit_code, done.stdout) == (65, "")
    assert "the user has no name here: give the sender with --from" in done.stderr


def test_what_goes_wrong_is_said_on_standard_error_and_is_no_success_for_php():
    with run_sink() as sink:
        sink.refuse("rcpt", 450, "later")
        done = bare(sink.port, "-t", "-i", message=BCC)
        assert (done.exit_code, done.stdout) == (69, "")  # 75 is: sendmail keeps it, and tries again
        assert "refused for <b@example.net> (450" in done.stderr
        sink.refuse("greeting", 421, "busy")
        done = bare(sink.port, "-i", "b@example.net", message=BCC)
        assert (done.exit_code, done.stdout) == (69, "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-i"], 65, "there is no recipient: give some as arguments, or -t and a header that has them"),
        (["-i", ""], 65, "there is no recipient"),
        (["-bs"], 2, "Invalid value for '-b': 's' is not"),
        (["-q"], 2, "No such option"),
        (["-i", "--subject", "x", "b@example.net"], 2, "sendmail's options are about another"),
        (["-f", "me@example.com", "b@example.net"], 66, "with -i, as for sendmail, arguments are recipients"),
    ],
)
def test_what_it_does_not_do(words, status, said):
    done = bare(9, *words, message=b"Subject: x\n\nx\n")
    assert (done.exit_code, done.stdout) == (status, "")
    assert said in " ".join(done.stderr.split())
