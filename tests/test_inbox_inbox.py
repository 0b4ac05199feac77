# trio_smtp.inbox: open_inbox and run_inbox, from Python.
from __future__ import annotations

import builtins
import smtplib
import socket
import unittest
import urllib.request
from typing import Any

import pytest
import trio
from inbox_support import PLAIN, opened, rich, send
from trio.testing import assert_checkpoints

import trio_smtp
from trio_smtp import inbox as public
from trio_smtp.inbox import find_codes, find_links, open_inbox, run_inbox
from trio_smtp.testing import make_certificates


async def test_it_keeps_everything_on_free_ports():
    async with open_inbox() as inbox:
        assert inbox.host == "127.0.0.1"
        assert inbox.url == f"http://127.0.0.1:{inbox.http_port}"
        assert inbox.messages == []
        names = [
            await send(inbox, PLAIN, ["bob@example.com", "eve@elsewhere.test"]),
            await send(inbox, "Subject: für\r\n\r\nüber\r\n".encode(), ["jürgen@example.com"], sender=""),
        ]
        first, second = inbox.messages
        assert (first.sender, first.recipients, first.content) == (
            "ann@example.com",
            ("bob@example.com", "eve@elsewhere.test"),
            PLAIN,
        )
        assert [message.queue_id for message in inbox.messages] == names
        assert (first.message["Subject"], first.hello, first.peer and first.peer[0]) == (
            "Hello there",
            "client.test",
            "127.0.0.1",
        )
        assert first.envelope.sender.size == len(PLAIN)
        assert (second.sender, second.envelope.sender.smtputf8) == ("", True)
        assert "2 messages" in repr(inbox)
        inbox.clear()
        assert inbox.messages == []


async def test_both_the_inbox_and_the_configurations_own_function_hear_the_dialogue():
    heard: list[str] = []
    config = trio_smtp.ServerConfig(transcript=lambda session, side, line: heard.append(f"{side}: {line}"))
    async with opened(config=config) as (inbox, http):
        name = await send(inbox, PLAIN, ["bob@example.com"])
        text = (await http.get(f"/api/v1/message/{name}/transcript")).text
    assert "C: RCPT TO:<bob@example.com>" in text
    assert "C: RCPT TO:<bob@example.com>" in heard


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at a step of the scheduler."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.left = step
        self.opened = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def test_cancelled_while_it_opens_it_listens_on_nothing():
    """Hypercorn, cancelled while the application starts, left open what it had been given by number."""
    (free,) = await trio_smtp.open_tcp_listeners(0, host="127.0.0.1")
    port = free.socket.getsockname()[1]
    await free.aclose()
    for step in range(1, 1000):
        instrument = CancelAt(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                async with open_inbox(http_port=port):
                    instrument.opened = instrument.left > 0
        finally:
            trio.lowlevel.remove_instrument(instrument)
        (listener,) = await trio_smtp.open_tcp_listeners(port, host="127.0.0.1")  # else: the address is in use
        await listener.aclose()
        if instrument.opened:
            break
    assert step > 10


@pytest.mark.parametrize("hosts", [5, "name.test", b"name.test", [5]], ids=repr)
async def test_names_that_are_none(hosts):
    with pytest.raises(TypeError, match="allow_hosts is an iterable of names"):
        async with open_inbox(allow_hosts=hosts):
            raise AssertionError("it was opened")


async def test_waiting():
    async with open_inbox() as inbox, trio.open_nursery() as nursery:
        got = []

        async def wait(**what):
            got.append(await inbox.wait_for(**what))

        nursery.start_soon(lambda: wait(to="carol@example.com", subject="rich"))
        await trio.testing.wait_all_tasks_blocked()
        await send(inbox, PLAIN, ["carol@example.com"])
        await send(inbox, rich(), ["carol@example.com"])
        while not got:
            await trio.lowlevel.checkpoint()
        assert got[0].message["Subject"] == "Rich"
        with assert_checkpoints():
            newest = await inbox.wait_for(sender="ann@example.com")
        assert newest == inbox.messages[-1]
        assert (await inbox.wait_for()) == newest
        with trio.move_on_after(0.01) as scope:
            await inbox.wait_for(to="nobody@example.com")
        assert scope.cancelled_caught


async def test_what_its_server_offers():
    async with open_inbox(tls="starttls", auth="any") as inbox:
        options: dict[str, Any] = {"tls": "none", "local_hostname": "c.test"}
        async with trio_smtp.open_client(inbox.host, inbox.smtp_port, **options) as client:
            for keyword in ("STARTTLS", "AUTH", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "SIZE", "PIPELINING"):
                assert keyword in client.extensions
            await client.send("a@x.test", ["b@y.test"], b"x\r\n", rcpt_params={"b@y.test": {"NOTIFY": "NEVER"}})
        [message] = inbox.messages
        assert message.envelope.recipients[0].notify == frozenset({"NEVER"})
        await send(inbox)
        assert inbox.messages[-1].tls is not None


async def test_a_login_that_is_required():
    async with open_inbox(auth=("me", "secret")) as inbox:
        options: dict[str, Any] = {"tls": "none", "local_hostname": "c.test", "allow_insecure_auth": True}
        async with trio_smtp.open_client(inbox.host, inbox.smtp_port, **options) as client:
            with pytest.raises(trio_smtp.SenderRefusedError, match="530"):
                await client.send("a@x.test", ["b@y.test"], b"x\r\n")
        with pytest.raises(trio_smtp.AuthenticationError):
            async with trio_smtp.open_client(inbox.host, inbox.smtp_port, auth=("me", "wrong"), **options):
                pass
        await send(inbox)
        assert [message.identity for message in inbox.messages] == ["me"]


async def test_any_login_in_clear_too():
    async with open_inbox(auth="any") as inbox:
        options: dict[str, Any] = {"tls": "none", "local_hostname": "c.test", "allow_insecure_auth": True}
        async with trio_smtp.open_client(inbox.host, inbox.smtp_port, auth=("who", "ever"), **options) as client:
            await client.send("a@x.test", ["b@y.test"], b"x\r\n")
        await send(inbox)
        assert [message.identity for message in inbox.messages] == ["who", None]


async def test_certificates_of_ones_own():
    certificates = make_certificates("mail.example.com")
    async with open_inbox(tls="implicit", certificates=certificates) as inbox:
        await send(inbox)
        assert inbox.sink.certificates is certificates


async def test_faults_from_python():
    async with open_inbox() as inbox:
        inbox.sink.refuse("rcpt", 550, "no such user", address="nobody@example.com")
        inbox.faults = [{"recipient": "slow@*", "reply": "450 later"}]
        for recipient, code in (("nobody@example.com", "550"), ("slow@example.com", "450")):
            with pytest.raises(trio_smtp.RecipientsRefusedError, match=code):
                await send(inbox, recipients=[recipient])
        assert inbox.faults == [{"recipient": "slow@*", "reply": "450 later"}]
        with pytest.raises(ValueError, match="a rule"):
            inbox.faults = [{}]
        inbox.faults = []
        await send(inbox, recipients=["slow@example.com"])


async def test_messages_outlive_it_in_a_file(tmp_path):
    path = tmp_path / "inbox.db"
    certificates = make_certificates()
    async with open_inbox(store=path, tls="starttls", certificates=certificates, auth=("me", "secret")) as inbox:
        name = await send(inbox, PLAIN, ["bob@example.com", "eve@example.com"])
        [before] = inbox.messages
    async with opened(store=path) as (inbox, http):
        [message] = inbox.messages
        assert (message.sender, message.recipients, message.content, message.queue_id, message.identity) == (
            before.sender,
            before.recipients,
            PLAIN,
            name,
            "me",
        )
        assert (message.hello, message.peer) == (before.hello, before.peer)
        assert message.tls is not None
        assert message.tls.version == "TLSv1.3"
        assert message.envelope.sender.params == before.envelope.sender.params
        assert (await http.get("/api/about")).json()["Store"] == str(path)
        assert (await http.get("/api/v1/messages")).json()["messages"][0]["Bcc"][0]["Address"] == "eve@example.com"
        assert "AUTH PLAIN ***" in (await http.get(f"/api/v1/message/{name}/transcript")).text
        assert (await inbox.wait_for(to="eve@example.com")).queue_id == name


async def test_the_oldest_messages_go():
    async with open_inbox(keep=2) as inbox:
        names = [await send(inbox) for _ in range(4)]
        assert [message.queue_id for message in inbox.messages] == names[2:]
        assert len(inbox._box._arrivals) == 2


async def test_mail_of_careless_programs_is_taken():
    async with open_inbox() as inbox:
        async with await trio.open_tcp_stream(inbox.host, inbox.smtp_port) as stream:
            await stream.send_all(
                b"EHLO x\r\nMAIL FROM: ann@example.com\r\nRCPT TO:root\r\nDATA\r\n"
                b"Subject: bare\n\nline feeds\0\n\r\n.\r\nQUIT\r\n"
            )
            while await stream.receive_some():
                pass
        [message] = inbox.messages
        assert (message.sender, message.recipients) == ("ann@example.com", ("root",))
        assert message.content == b"Subject: bare\r\n\r\nline feeds\0\r\n\r\n"


async def test_very_many_recipients_senders_and_sizes():
    async with open_inbox() as inbox:
        await send(inbox, PLAIN, [f"b{number}@example.com" for number in range(500)])
        assert len(inbox.messages[0].recipients) == 500
        with pytest.raises(trio_smtp.MessageTooLargeError):
            await send(inbox, b"x" * (33 * 1024 * 1024))


async def test_ports_that_are_taken_are_an_error_and_nothing_stays_open():
    async with open_inbox() as inbox:
        for ports in ((inbox.smtp_port, 0), (0, inbox.http_port)):
            with pytest.raises(OSError, match="in use"):
                async with open_inbox(*ports):
                    pass
        taken = inbox.smtp_port, inbox.http_port
    async with open_inbox(*taken) as again:
        assert (again.smtp_port, again.http_port) == taken


@pytest.mark.parametrize("keep", [0, -1])
async def test_keeping_nothing_makes_no_sense(keep):
    with pytest.raises(ValueError, match="keep is at least 1"):
        async with open_inbox(keep=keep):
            pass


async def test_a_file_that_cannot_be_had(tmp_path):
    (tmp_path / "x").write_text("no database at all " * 100)
    with pytest.raises(OSError, match="cannot use"):
        async with open_inbox(store=str(tmp_path / "x")):
            pass


async def test_an_error_of_the_block_comes_out_as_it_is():
    async def fail():
        async with open_inbox() as inbox:
            await send(inbox)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_cancelling_the_block_while_there_are_listeners():
    with trio.CancelScope() as scope:
        async with open_inbox() as inbox:
            stream = await trio.open_tcp_stream(inbox.host, inbox.http_port)
            await stream.send_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stream.receive_some()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    await stream.aclose()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(inbox.host, inbox.http_port)


async def test_on_another_loopback_address():
    if not socket.has_ipv6:
        pytest.skip("there is no IPv6")
    async with opened(host="::1") as (inbox, http):
        await send(inbox)
        assert inbox.url == f"http://[::1]:{inbox.http_port}"
        assert (await http.get("/api/v1/messages")).json()["total"] == 1


async def test_on_all_addresses_the_page_is_at_a_loopback_one():
    async with opened(host="0.0.0.0") as (inbox, http):
        assert inbox.url == f"http://127.0.0.1:{inbox.http_port}"
        assert (await http.get("/livez")).status_code == 200


async def test_links_and_codes_of_a_message():
    async with open_inbox() as inbox:
        await send(inbox, rich())
        [message] = inbox.messages
        assert find_links(message) == ["https://example.com/in", "https://example.com/text"]
        assert find_codes(message) == ["482913"]


@pytest.mark.parametrize("missing", ["starlette", "hypercorn"])
async def test_without_its_libraries_it_says_what_to_install(monkeypatch, missing):
    import sys

    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith(("trio_smtp.inbox._", missing))]:
        if name != "trio_smtp.inbox._inbox":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(public, "_web", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'trio-smtp\[inbox\]'"):
        async with open_inbox():
            pass


# --- in a thread ---


def deliver(inbox, content=PLAIN):
    with smtplib.SMTP(inbox.host, inbox.smtp_port, timeout=20) as client:
        client.sendmail("ann@example.com", ["bob@example.com"], content)


def test_without_async():
    with run_inbox(keep=10) as inbox:
        assert inbox.url in repr(inbox)
        deliver(inbox)
        message = inbox.wait_for(to="bob@example.com", subject="hello")
        assert inbox.messages == [message]
        with pytest.raises(TimeoutError):
            inbox.wait_for(sender="nobody@example.com", timeout=0.01)
        inbox.faults = [{"recipient": "*", "reply": "450 later", "times": 1}]
        assert len(inbox.faults) == 1
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            deliver(inbox)
        assert inbox.faults == []
        deliver(inbox)
        with urllib.request.urlopen(f"{inbox.url}/api/wait?to=bob@example.com", timeout=20) as answer:
            assert answer.status == 200
        assert len(inbox.messages) == 2
        inbox.clear()
        assert inbox.messages == []


class InUnittest(unittest.TestCase):
    def test_it(self):
        inbox = self.enterContext(run_inbox())
        deliver(inbox)
        assert inbox.wait_for().message["Subject"] == "Hello there"
