# trio_smtp.inbox: waiting, events, faults, dialogues, and the files of the page.
from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import pytest
import trio
from inbox_support import PLAIN, opened, rich, send
from trio_websocket import open_websocket_url

import trio_smtp
from trio_smtp.inbox import _own

RICH_LINKS = ["https://example.com/in", "https://example.com/text"]


async def test_waiting_for_what_is_there():
    async with opened() as (inbox, http):
        name = await send(inbox, rich(), ["bob@example.com", "eve@example.com"])
        answer = await http.get("/api/wait", params={"to": "eve@example.com"})
        assert answer.status_code == 200
        found = answer.json()
        assert set(found) == {"Message", "Links", "Codes"}
        assert (found["Message"]["ID"], found["Links"], found["Codes"]) == (name, RICH_LINKS, ["482913"])
        assert found["Message"] == (await http.get("/api/v1/messages")).json()["messages"][0]


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        ({}, True),
        ({"to": "BOB@example.com"}, True),
        ({"to": "ob@example.com"}, False),
        ({"to": "@example.com"}, True),
        ({"to": "bo"}, True),
        ({"to": "carol@example.com"}, False),
        ({"from": "ann@example.com"}, True),
        ({"from": "envelope@x.test"}, True),
        ({"from": "Ann Ex"}, True),
        ({"from": "carol"}, False),
        ({"subject": "HELLO"}, True),
        ({"subject": "bye"}, False),
        ({"to": "bob@example.com", "from": "ann@example.com", "subject": "there"}, True),
        ({"to": "bob@example.com", "subject": "bye"}, False),
    ],
)
async def test_what_fits(query, fits):
    async with opened() as (inbox, http):
        await send(inbox, sender="envelope@x.test")
        answer = await http.get("/api/wait", params={**query, "timeout": 0})
        assert answer.status_code == (200 if fits else 408)


async def test_waiting_for_what_is_to_come():
    async with opened() as (inbox, http), trio.open_nursery() as nursery:
        await send(inbox)
        answers = []

        async def wait():
            answers.append(await http.get("/api/wait?subject=rich&timeout=20"))

        nursery.start_soon(wait)
        while not inbox._box._arrived.statistics().tasks_waiting:
            await trio.lowlevel.checkpoint()
        await send(inbox)
        name = await send(inbox, rich())
        while not answers:
            await trio.lowlevel.checkpoint()
        assert answers[0].json()["Message"]["ID"] == name


@pytest.mark.parametrize("timeout", ["x", "-1", "601", "nan", "inf"])
async def test_times_that_are_none(timeout):
    async with opened() as (_, http):
        assert (await http.get("/api/wait", params={"timeout": timeout})).status_code == 400


async def test_no_more_wait_than_the_limit(monkeypatch):
    monkeypatch.setattr(_own, "MAX_WAITERS", 0)
    async with opened() as (_, http):
        assert (await http.get("/api/wait")).status_code == 503


class Events:
    """The lines of server-sent events, read from the socket."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = b""

    async def line(self):
        while b"\n" not in self._buffer:
            data = await self._stream.receive_some()
            assert data, "the events have ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.strip().decode()

    async def next(self):
        while True:
            line = await self.line()
            if line.startswith("data: "):
                return json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def listening(inbox):
    async with await trio.open_tcp_stream(inbox.host, inbox.http_port) as stream:
        await stream.send_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        events = Events(stream)
        head = [await events.line() for _ in range(3)]
        assert head[:2] == ["HTTP/1.1 200", "content-type: text/event-stream; charset=utf-8"]
        while not inbox._box.events._listeners:
            await trio.lowlevel.checkpoint()
        yield events


async def test_events():
    async with opened() as (inbox, http), listening(inbox) as events:
        name = await send(inbox)
        event = await events.next()
        assert event["Type"] == "new"
        assert event["Data"] == (await http.get("/api/v1/messages")).json()["messages"][0]
        await http.get(f"/api/v1/message/{name}")
        assert await events.next() == {"Type": "read", "Data": {"ID": name, "Read": True}}
        await http.get(f"/api/v1/message/{name}")  # read already: no event
        await http.delete("/api/v1/messages")
        assert await events.next() == {"Type": "delete", "Data": {"ID": name}}


async def test_the_oldest_messages_leave_with_an_event():
    async with opened(keep=1) as (inbox, _), listening(inbox) as events:
        first = await send(inbox)
        await send(inbox)
        kinds = [await events.next() for _ in range(3)]
        assert [each["Type"] for each in kinds] == ["new", "new", "delete"]
        assert kinds[2]["Data"] == {"ID": first}


async def test_a_listener_that_goes_is_forgotten():
    async with opened() as (inbox, http):
        async with listening(inbox):
            assert len(inbox._box.events._listeners) == 1
        while inbox._box.events._listeners:
            await trio.lowlevel.checkpoint()
        assert (await http.head("/api/events")).status_code == 200
        while inbox._box.events._listeners:
            await trio.lowlevel.checkpoint()


async def test_a_quiet_stream_shows_signs_of_life(monkeypatch):
    monkeypatch.setattr(_own, "SIGN_OF_LIFE", 0.001)
    async with opened() as (inbox, _), listening(inbox) as events:
        while await events.line() != ": still here":
            pass


async def test_no_more_listeners_than_the_limit(monkeypatch):
    monkeypatch.setattr("trio_smtp.inbox._events.MAX_LISTENERS", 0)
    async with opened() as (inbox, http):
        assert (await http.get("/api/events")).status_code == 503
        async with await trio.open_tcp_stream(inbox.host, inbox.http_port) as stream:
            await stream.send_all(
                b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")


async def test_events_by_web_socket_as_mailpit_has_them():
    async with opened() as (inbox, _):
        async with open_websocket_url(f"{inbox.url}/api/events".replace("http", "ws")) as socket:
            while not inbox._box.events._listeners:
                await trio.lowlevel.checkpoint()
            name = await send(inbox)
            event = json.loads(await socket.get_message())
            assert (event["Type"], event["Data"]["ID"]) == ("new", name)
        while inbox._box.events._listeners:
            await trio.lowlevel.checkpoint()


async def test_faults():
    rule = {"recipient": "*@slow.test", "stage": "rcpt", "reply": "450 4.2.1 later", "times": 1}
    async with opened() as (inbox, http):
        assert (await http.get("/api/faults")).json() == {"rules": []}
        answer = await http.put("/api/faults", json={"rules": [rule]})
        assert (answer.status_code, answer.json()) == (200, {"rules": [rule]})
        assert (await http.get("/api/faults")).json() == {"rules": [rule]} == {"rules": inbox.faults}
        with pytest.raises(trio_smtp.RecipientsRefusedError, match=r"450 4\.2\.1 later"):
            await send(inbox, recipients=["b@slow.test"])
        await send(inbox, recipients=["b@slow.test"])
        await http.put("/api/faults", json={"rules": [rule, {"stage": "end", "cut": True}]})
        with pytest.raises(trio_smtp.ConnectionLostError):
            await send(inbox)
        for bad in (b"x", b"[]", b'{"rules": [], "more": 1}', b'{"rules": [{}]}', b"[" * 100_000):
            assert (await http.put("/api/faults", content=bad)).status_code == 400
        assert len((await http.get("/api/faults")).json()["rules"]) == 2
        assert (await http.delete("/api/faults")).json() == {"rules": []}
        await send(inbox)


async def test_addresses_ask_for_faults():
    async with opened() as (inbox, _):
        with pytest.raises(trio_smtp.RecipientsRefusedError, match="450"):
            await send(inbox, recipients=["450-rcpt@example.com"])
        with pytest.raises(trio_smtp.MessageRefusedError, match="554"):
            await send(inbox, recipients=["554-end@example.com"])
        assert inbox.messages == []


async def test_the_dialogue_with_secrets_masked():
    async with opened(auth="any") as (inbox, http):
        options: dict[str, Any] = {
            "tls": "none",
            "auth": ("me", "hunter2"),
            "allow_insecure_auth": True,
            "local_hostname": "client.test",
        }
        async with trio_smtp.open_client(inbox.host, inbox.smtp_port, **options) as client:
            await client.send("ann@example.com", ["bob@example.com", "eve@example.com"], PLAIN)
            await client.send("ann@example.com", ["carol@example.com"], PLAIN)
        answer = await http.get("/api/v1/message/latest/transcript")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        lines = answer.text.splitlines()
        assert lines[0].startswith("S: 220 inbox.localhost ESMTP")
        assert lines[1] == "C: EHLO client.test"
        assert "C: AUTH PLAIN ***" in lines
        assert "hunter2" not in answer.text
        assert "eve@example.com" not in answer.text
        assert lines[-1] == f"S: 250 2.0.0 OK: queued as {inbox.messages[-1].queue_id}"
        assert all(line[:3] in ("C: ", "S: ") for line in lines)
        first = await http.get(f"/api/v1/message/{inbox.messages[0].queue_id}/transcript")
        assert "RCPT TO:<eve@example.com>" in first.text


async def test_the_facts_of_a_message():
    async with opened(tls="starttls") as (inbox, http):
        await send(inbox, rich(), ["bob@example.com", "eve@example.com"])
        facts = (await http.get("/api/v1/message/latest/facts")).json()
        assert facts["Sender"]["Address"] == "ann@example.com"
        assert [each["Address"] for each in facts["Recipients"]] == ["bob@example.com", "eve@example.com"]
        assert facts["TLS"]["Version"] == "TLSv1.3"
        assert (facts["Hello"], facts["Peer"][0], facts["HasText"]) == ("client.test", "127.0.0.1", True)
        assert (facts["Links"], facts["Codes"], facts["Warnings"]) == (RICH_LINKS, ["482913"], [])
        assert ["Subject", "Rich"] in facts["Headers"]


async def test_the_page_and_its_files():
    async with opened(keep=7) as (inbox, http):
        page = await http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name in ("page.js", "page.css", "icon.svg"):
            assert f"/static/{name}" in page.text
            assert (await http.get(f"/static/{name}")).status_code == 200
        assert (await http.get("/static/../__init__.py")).status_code == 404
        assert (await http.get("/static/nothing")).status_code == 404
        about = (await http.get("/api/about")).json()
        assert about["SMTP"] == {"Host": "127.0.0.1", "Port": inbox.smtp_port, "TLS": "none"}
        assert (about["Keep"], about["Login"], about["Store"]) == (7, "none", "")


def test_the_page_names_nothing_elsewhere_and_makes_no_markup_of_text():
    folder = files("trio_smtp.inbox") / "page"
    for name in ("index.html", "page.css", "page.js", "icon.svg"):
        text = (folder / name).read_text("utf-8")
        assert set(re.findall(r"(?:https?:)?//[a-z0-9.-]+", text)) <= {"http://www.w3.org"}
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "srcdoc"):
            assert word not in text
