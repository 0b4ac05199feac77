"""A session that uses everything at once, as a transcript to read: TLS, AUTH, pipelining, BDAT, SMTPUTF8, DSN."""

from __future__ import annotations

import logging
import textwrap

import pytest
import trio
from support import Recorder, make_server
from tls_support import client_context, server_context

import trio_smtp

PASSWORD = "correct horse"


async def test_everything_at_once(caplog: pytest.LogCaptureFixture) -> None:
    envelopes = []

    async def on_auth(session, credentials):
        return credentials.check_password(PASSWORD)

    async def on_data(session, envelope, body):
        envelopes.append((session.identity, session.tls.version, envelope, await body.read()))
        return "Q1"

    server = make_server(
        Recorder(on_auth=on_auth, on_data=on_data),
        ssl_context=server_context(),
        auth="required",
        auth_mechanisms=["SCRAM-SHA-256", "PLAIN"],
        require_tls=True,
        enabled_extensions=["DSN", "REQUIRETLS", "MT-PRIORITY", "DELIVERBY"],
    )
    near, far = trio.testing.memory_stream_pair()
    with caplog.at_level(logging.DEBUG, "trio_smtp"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, far)
            async with trio_smtp.open_client(
                "mx.test",
                587,
                stream=near,
                tls="starttls",
                ssl_context=client_context(),
                auth=trio_smtp.Password("jürgen", PASSWORD, mechanisms=["SCRAM-SHA-256"]),
                local_hostname="client.test",
            ) as client:
                result = await client.send(
                    "jürgen@mx.test",
                    ["用户@例子.测试", "bob@mx.test"],
                    "Subject: grüße\r\n\r\n.hallo\r\n",
                    mail_params={
                        "RET": "HDRS",
                        "ENVID": "Q3",
                        "REQUIRETLS": None,
                        "MT-PRIORITY": "3",
                        "BY": "600;N",
                    },
                    rcpt_params={"bob@mx.test": {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;Bob+2Bx@mx.test"}},
                )
    assert transcript(caplog) == textwrap.dedent("""\
        S: 220 mx.test ESMTP trio_smtp
        C: EHLO client.test
        S: 250 mx.test
           PIPELINING
           SIZE 33554432
           8BITMIME
           SMTPUTF8
           ENHANCEDSTATUSCODES
           STARTTLS
           CHUNKING
           BINARYMIME
           LIMITS MAILMAX=1000 RCPTMAX=1000
           DSN
           MT-PRIORITY
           DELIVERBY
           VRFY
        C: STARTTLS
        S: 220 ready to start TLS
        C: EHLO client.test
        S: 250 mx.test
           PIPELINING
           SIZE 33554432
           8BITMIME
           SMTPUTF8
           ENHANCEDSTATUSCODES
           AUTH SCRAM-SHA-256 PLAIN
           CHUNKING
           BINARYMIME
           LIMITS MAILMAX=1000 RCPTMAX=1000
           DSN
           REQUIRETLS
           MT-PRIORITY
           DELIVERBY
           VRFY
        C: AUTH SCRAM-SHA-256 ***
        S: 334 ***
        C: ***
        S: 334 ***
        C: ***
        S: 235 2.7.0 authentication succeeded
        C: MAIL FROM:<jürgen@mx.test> SIZE=28 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=Q3 REQUIRETLS MT-PRIORITY=3 BY=600;N
        C: RCPT TO:<用户@例子.测试>
        C: RCPT TO:<bob@mx.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx@mx.test
        C: BDAT 28 LAST
        S: 250 2.1.0 OK
        S: 250 2.1.5 OK
        S: 250 2.1.5 OK
        S: 250 2.0.0 OK: queued as Q1
        C: QUIT
        S: 221 2.0.0 mx.test closing connection
    """)
    [(identity, tls, envelope, content)] = envelopes
    assert (identity, tls) == ("jürgen", "TLSv1.3")
    sender, [user, bob] = envelope.sender, envelope.recipients
    assert (sender.address, sender.smtputf8, sender.body) == ("jürgen@mx.test", True, "8BITMIME")
    assert (sender.ret, sender.envid, sender.requiretls, sender.mt_priority) == ("HDRS", "Q3", True, 3)
    assert sender.deliver_by == (600, "N", False)
    assert (user.address, user.notify) == ("用户@例子.测试", None)
    assert (bob.notify, bob.orcpt) == ({"SUCCESS", "FAILURE"}, ("rfc822", "Bob+x@mx.test"))
    assert content == "Subject: grüße\r\n\r\n.hallo\r\n".encode()
    assert result.reply.text == "OK: queued as Q1"
    assert result.accepted == ["用户@例子.测试", "bob@mx.test"]
    assert result.refused == {}


def transcript(caplog: pytest.LogCaptureFixture) -> str:
    """The conversation as the client has logged it, which masks what is secret."""
    lines = []
    for record in caplog.records:
        name, side, text = record.getMessage().split(" ", 2)
        if name == "mx.test:587":
            lines.append(f"{side} {text}")
    return "\n".join(lines).replace(" / ", "\n   ") + "\n"
