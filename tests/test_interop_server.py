# Clients that others wrote speak to our server over real sockets: smtplib in a thread, swaks as a process.
from __future__ import annotations

import contextlib
import smtplib
import subprocess
from email.message import EmailMessage
from functools import partial

import pytest
import trio
from cli_process import LIMIT, tool
from support import HOSTNAME, Recorder, make_server
from tls_support import authority, client_context, server_context

from trio_smtp import Reply

CONTENT = b"Subject: hi\r\n\r\n.dot\r\n..two\r\n\r\n.\r\nend\r\n"


async def check(session, credentials):
    return credentials.check_password("secret")


@contextlib.asynccontextmanager
async def port(handler: Recorder, **options: object):
    server = make_server(handler, **options)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        with trio.fail_after(LIMIT):
            yield listener.socket.getsockname()[1]
            while server.sessions:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["clear", "STARTTLS", "implicit"])
@pytest.mark.parametrize("mechanism", [None, "PLAIN", "LOGIN", "CRAM-MD5"])
async def test_smtplib(mode: str, mechanism: str | None):
    handler = Recorder(on_auth=check)
    context = None if mode == "clear" else server_context()
    options = {"auth_mechanisms": (mechanism or "PLAIN",), "auth": "required" if mechanism else "optional"}

    def send(number: int) -> None:
        client = (
            smtplib.SMTP_SSL("localhost", number, timeout=LIMIT, context=client_context())
            if mode == "implicit"
            else smtplib.SMTP("localhost", number, timeout=LIMIT)
        )
        with client:
            if mode == "STARTTLS":
                client.starttls(context=client_context())
            if mechanism:
                client.login("me", "secret")
            assert client.sendmail("a@a.test", ["b@b.test", "c@c.test"], CONTENT) == {}
            assert client.rset()[0] == client.noop()[0] == 250
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "a@a.test", "gr\u00fc\u00df@b.test", "gr\u00fcn"
            message.set_content("\u00fc\n.\n" * 100)
            client.send_message(message)

    implicit = mode == "implicit"
    async with port(handler, ssl_context=context, implicit_tls=implicit, allow_insecure_auth=True, **options) as number:
        await trio.to_thread.run_sync(send, number)
    assert handler.messages[0] == ("a@a.test", ["b@b.test", "c@c.test"], CONTENT)
    assert handler.messages[1][1] == ["gr\u00fc\u00df@b.test"]
    assert handler.count("on_close") == 1


async def test_smtplib_is_refused_as_it_should_be():
    async def on_rcpt(session, recipient):
        if recipient.local_part == "bad":
            return Reply(550, "no such user", "5.1.1")
        return None

    def send(number: int) -> None:
        with smtplib.SMTP("127.0.0.1", number, timeout=LIMIT) as client:
            refused = client.sendmail("a@a.test", ["bad@b.test", "good@b.test"], CONTENT)
            assert refused == {"bad@b.test": (550, b"5.1.1 no such user")}
            with pytest.raises(smtplib.SMTPNotSupportedError):
                client.login("me", "secret")
            with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.3\.4"):
                client.sendmail("a@a.test", ["b@b.test"], b"x" * 2000)
            assert client.noop()[0] == 250

    async with port(Recorder(on_rcpt=on_rcpt), max_message_size=1000) as number:
        await trio.to_thread.run_sync(send, number)


async def test_smtplib_lmtp():
    handler = Recorder()

    def send(number: int) -> None:
        with smtplib.LMTP("127.0.0.1", number, timeout=LIMIT) as client:
            # smtplib reads one reply to the message, where RFC 2033 has one for each recipient
            assert client.sendmail("a@a.test", ["b@b.test"], CONTENT) == {}

    async with port(handler, lmtp=True) as number:
        await trio.to_thread.run_sync(send, number)
    assert handler.messages == [("a@a.test", ["b@b.test"], CONTENT)]


SWAKS = {
    "clear": [],
    "pipelined": ["--pipeline"],
    "STARTTLS": ["--tls"],
    "implicit": ["--tls-on-connect"],
    "PLAIN": ["--tls", "--auth", "PLAIN"],
    "LOGIN": ["--tls", "--auth", "LOGIN"],
    "CRAM-MD5": ["--tls", "--auth", "CRAM-MD5"],
    "LMTP": ["--protocol", "LMTP"],
}


@pytest.mark.parametrize("mode", SWAKS)
async def test_swaks(mode: str, tmp_path):
    swaks = tool("swaks")
    authority_file = tmp_path / "ca.pem"
    authority().cert_pem.write_to_path(str(authority_file))
    handler = Recorder(on_auth=check)
    arguments = [swaks, "--server", "127.0.0.1", "--from", "a@a.test", "--to", "b@b.test,c@c.test", "--helo", "x.test"]
    arguments += ["--data", "-", "--auth-user", "me", "--auth-password", "secret", *SWAKS[mode]]
    if "--auth" not in SWAKS[mode]:
        del arguments[arguments.index("--auth-user") : arguments.index("--auth-password") + 2]
    if any(option.startswith("--tls") for option in SWAKS[mode]):
        arguments += ["--tls-ca-path", str(authority_file)]
    options = {
        "lmtp": mode == "LMTP",
        "implicit_tls": mode == "implicit",
        "auth_mechanisms": ("PLAIN", "LOGIN", "CRAM-MD5"),
    }
    async with port(handler, ssl_context=server_context(), **options) as number:
        done = await trio.run_process(
            [*arguments, "--port", str(number)],
            stdin=b"Subject: hi\n\n.dot\nend\n",
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()
    [(sender, recipients, content)] = handler.messages
    assert (sender, recipients) == ("a@a.test", ["b@b.test", "c@c.test"])
    assert content.startswith(b"Subject: hi\r\n\r\n.dot\r\nend\r\n")
    session = handler.sessions[0]
    assert (session.tls is not None) == any(option.startswith("--tls") for option in SWAKS[mode])
    assert session.identity == ("me" if "--auth" in SWAKS[mode] else None)
    assert HOSTNAME in done.stdout.decode()
