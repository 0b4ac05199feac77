# trio_smtp.inbox: who may ask the HTTP side, and what the answers say to browsers.
from __future__ import annotations

import logging

import pytest
import trio
from inbox_support import opened, rich, send

from trio_smtp.inbox import _guard
from trio_smtp.inbox._guard import Guard


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:{port}", 200),
        ("LOCALHOST.", 200),
        ("app.localhost:{port}", 200),
        ("127.0.0.1", 200),
        ("127.1.2.3:80", 200),
        ("[::1]:{port}", 200),
        ("mail.box.test", 200),
        ("MAIL.box.test:8025", 200),
        ("evil.test", 403),
        ("localhost.evil.test", 403),
        ("evil-localhost", 403),
        ("127.0.0.1.evil.test", 403),
        ("192.0.2.1", 403),
        ("0.0.0.0", 403),
        ("user@localhost", 403),
        ("localhost:x", 403),
        ("localhost/evil.test", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
async def test_the_host_must_be_ours(host, status):
    async with opened(allow_hosts=["Mail.box.test"]) as (inbox, http):
        for path in ("/", "/api/v1/messages", "/static/page.js", "/api/events-of-nothing"):
            answer = await http.get(path, headers={"host": host.format(port=inbox.http_port)})
            assert answer.status_code == (status if "nothing" not in path or status == 403 else 404)
        assert status == 200 or "--allow-host" in answer.text


async def test_two_hosts_or_none_are_refused():
    async with opened() as (inbox, _):
        for head in (b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n"):
            stream = await trio.open_tcp_stream(inbox.host, inbox.http_port)
            async with stream:
                await stream.send_all(head + b"\r\n")
                assert (await stream.receive_some()).split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"origin": "{url}"}, True),
        ({"origin": "{url}", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "https://evil.test"}, False),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://[x"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
    ],
)
async def test_writes_come_from_our_own_page_or_from_no_page(method, headers, allowed):
    path = {"PUT": "/api/faults", "DELETE": "/api/v1/messages", "POST": "/api/v1/send"}[method]
    async with opened() as (inbox, http):
        await send(inbox)
        values = {name: value.format(url=inbox.url) for name, value in headers.items()}
        answer = await http.request(method, path, headers=values, content=b'{"rules": []}' if method == "PUT" else b"")
        assert (answer.status_code != 403) is allowed
        assert bool(inbox.messages) is not (allowed and method == "DELETE")


@pytest.mark.parametrize(
    ("path", "mode", "allowed"),
    [
        ("/", "navigate", True),
        ("/view/latest.html", "navigate", True),
        ("/api/v1/message/latest", "navigate", False),
        ("//api/v1/message/latest", "navigate", False),
        ("/api/v1/messages", "cors", False),
        ("/api/v1/message/latest/part/2", "no-cors", False),
        ("/view/latest.html", "no-cors", False),
        ("/static/page.js", "no-cors", False),
        ("/api/events", "cors", False),
    ],
)
async def test_pages_of_other_sites_may_link_to_us_and_no_more(path, mode, allowed):
    async with opened() as (inbox, http):
        await send(inbox, rich())
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        answer = await http.get(f"{inbox.url}{path}", headers=headers)
        assert answer.status_code == (200 if allowed else 403)
        assert "access-control-allow-origin" not in answer.headers


async def test_every_answer_forbids_what_it_does_not_need():
    async with opened() as (inbox, http):
        name = await send(inbox, rich())
        for path in (
            "/",
            "/static/page.js",
            "/nothing",
            "/api/v1/messages",
            f"/api/v1/message/{name}",
            f"/api/v1/message/{name}/raw",
            f"/api/v1/message/{name}/part/2",
            f"/view/{name}.html",
            f"/view/{name}.html?embed=1",
            "/api/wait?timeout=0&to=x",
        ):
            headers = (await http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "'unsafe-eval'" not in policy
            assert "script-src" not in policy or "script-src 'self';" in policy
            assert "frame-ancestors" in policy
            assert "sandbox" in policy or path in ("/", "/static/page.js")
            assert headers.get_list("content-security-policy") == [policy]


async def test_a_web_socket_of_another_origin_is_refused():
    async with opened() as (inbox, _):
        stream = await trio.open_tcp_stream(inbox.host, inbox.http_port)
        async with stream:
            await stream.send_all(
                b"GET /api/events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Origin: https://evil.test\r\n\r\n"
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")


async def call(app, path="/x", kind="http"):
    sent = []

    async def put(message):
        sent.append(message)

    async def receive():
        raise AssertionError

    await app({"type": kind, "method": "GET", "path": path, "headers": [(b"host", b"localhost")]}, receive, put)
    return sent


async def test_a_bug_ends_one_request_and_is_logged(caplog):
    async def fail(scope, receive, put):
        raise ZeroDivisionError

    start, end = await call(Guard(fail, allow_hosts=()))
    assert start["status"] == 500
    assert b"its log has the traceback" in end["body"]
    assert "ZeroDivisionError" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


async def test_a_bug_in_mid_answer_sends_no_second_one(caplog):
    async def fail(scope, receive, put):
        await put({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    assert [message["status"] for message in await call(Guard(fail, allow_hosts=()))] == [200]


async def test_an_answer_keeps_its_own_policy():
    async def answer(scope, receive, put):
        headers = [(b"Content-Security-Policy", b"default-src 'none'; img-src data:")]
        await put({"type": "http.response.start", "status": 200, "headers": headers})

    [start] = await call(Guard(answer, allow_hosts=()))
    policies = [value for name, value in start["headers"] if name.lower() == b"content-security-policy"]
    assert policies == [b"default-src 'none'; img-src data:"]
    assert len(start["headers"]) == len(_guard._HEADERS)
