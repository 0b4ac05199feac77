# trio_smtp.inbox: Mailpit's HTTP interface.
from __future__ import annotations

import hashlib
from email.policy import SMTP

import pytest
import trio
from inbox_support import PLAIN, opened, png, rich, send

import trio_smtp
from trio_smtp.inbox import _answers, _mailpit

SUMMARY = {
    "ID": str,
    "MessageID": str,
    "Read": bool,
    "From": dict,
    "To": list,
    "Cc": list,
    "Bcc": list,
    "ReplyTo": list,
    "Subject": str,
    "Created": str,
    "Username": str,
    "Tags": list,
    "Size": int,
    "Attachments": int,
    "Snippet": str,
}
MESSAGE = {
    "ID": str,
    "MessageID": str,
    "From": dict,
    "To": list,
    "Cc": list,
    "Bcc": list,
    "ReplyTo": list,
    "ReturnPath": str,
    "Subject": str,
    "ListUnsubscribe": dict,
    "Date": str,
    "Tags": list,
    "Username": str,
    "Text": str,
    "HTML": str,
    "Size": int,
    "Inline": list,
    "Attachments": list,
}


def check(value, shape, *more):
    assert set(value) == {*shape, *more}
    for name, kind in shape.items():
        assert type(value[name]) is kind, name


async def test_the_list():
    async with opened() as (inbox, http):
        answer = await http.get("/api/v1/messages")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "total": 0,
            "unread": 0,
            "count": 0,
            "messages_count": 0,
            "messages_unread": 0,
            "start": 0,
            "tags": [],
            "messages": [],
        }
        names = [await send(inbox, rich()), await send(inbox, recipients=["bob@example.com", "eve@example.com"])]
        page = (await http.get("/api/v1/messages")).json()
        assert [each["ID"] for each in page["messages"]] == names[::-1]
        newest = page["messages"][0]
        check(newest, SUMMARY)
        assert newest["From"] == {"Name": "Ann Example", "Address": "ann@example.com"}
        assert newest["To"] == [{"Name": "Bob", "Address": "bob@example.com"}]
        assert newest["Bcc"] == [{"Name": "", "Address": "eve@example.com"}]
        assert (newest["Subject"], newest["Snippet"], newest["Size"]) == ("Hello there", "How are you?", len(PLAIN))
        assert (newest["MessageID"], newest["Read"], newest["Tags"]) == ("one@example.com", False, [])
        assert newest["Created"].endswith("Z")
        assert page["messages"][1]["Attachments"] == 2
        assert {
            key: page[key] for key in ("total", "unread", "count", "messages_count", "messages_unread", "start")
        } == {
            "total": 2,
            "unread": 2,
            "count": 2,
            "messages_count": 2,
            "messages_unread": 2,
            "start": 0,
        }


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("limit=1", "2"), ("start=1&limit=1", "1"), ("start=9", ""), ("limit=0", "210"), ("limit=x&start=-1", "210")],
)
async def test_a_part_of_the_list(query, wanted):
    async with opened() as (inbox, http):
        for number in range(3):
            await send(inbox, PLAIN.replace(b"Hello there", str(number).encode()))
        page = (await http.get(f"/api/v1/messages?{query}")).json()
        assert "".join(each["Subject"] for each in page["messages"]) == wanted
        assert (page["count"], page["messages_count"], page["total"]) == (len(wanted), 3, 3)


async def test_no_more_of_the_list_than_the_limit(monkeypatch):
    monkeypatch.setattr(_mailpit, "MAX_LIST", 2)
    async with opened() as (inbox, http):
        for _ in range(3):
            await send(inbox)
        for query in ("limit=100", "limit=0"):
            assert (await http.get(f"/api/v1/messages?{query}")).json()["count"] == 2


async def test_showing_a_message_marks_it_as_read():
    async with opened() as (inbox, http):
        name = await send(inbox, rich(), ["bob@example.com", "eve@example.com"])
        await send(inbox)
        message = (await http.get(f"/api/v1/message/{name}")).json()
        check(message, MESSAGE, "Read")
        assert message["Text"].startswith("Your code is 482913.")
        assert "cid:logo" in message["HTML"]
        assert (message["ReturnPath"], message["Date"]) == ("ann@example.com", "2026-11-27T10:00:00+01:00")
        assert message["Bcc"] == [{"Name": "", "Address": "eve@example.com"}]
        assert message["Inline"] == [
            {
                "PartID": "1.2.2",
                "FileName": "logo",
                "ContentType": "image/png",
                "ContentID": "logo",
                "Size": len(png()),
                "Checksums": {
                    "MD5": hashlib.md5(png()).hexdigest(),
                    "SHA1": hashlib.sha1(png()).hexdigest(),
                    "SHA256": hashlib.sha256(png()).hexdigest(),
                },
            }
        ]
        assert [each["FileName"] for each in message["Attachments"]] == ["chart.png", "numbers.csv"]
        page = (await http.get("/api/v1/messages")).json()
        assert [each["Read"] for each in page["messages"]] == [False, True]
        assert (page["unread"], page["messages_unread"]) == (1, 1)


async def test_a_recipient_of_the_envelope_alone_is_not_in_the_source():
    async with opened() as (inbox, http):
        name = await send(inbox, PLAIN, ["eve@example.com"])
        raw = await http.get(f"/api/v1/message/{name}/raw")
        assert raw.content == PLAIN
        assert raw.headers["content-type"] == "text/plain; charset=utf-8"
        assert "eve" not in (await http.get(f"/api/v1/message/{name}/headers")).text
        download = await http.get(f"/api/v1/message/{name}/raw?dl=1")
        assert download.headers["content-disposition"] == f'attachment; filename="{name}.eml"'


async def test_the_newest_message():
    async with opened() as (inbox, http):
        for path in ("", "/raw", "/headers", "/part/1", "/transcript"):
            assert (await http.get(f"/api/v1/message/latest{path}")).status_code == 404
        first = await send(inbox)
        second = await send(inbox, rich())
        assert (await http.get("/api/v1/message/latest")).json()["ID"] == second
        found = await http.get("/api/v1/message/latest", params={"query": "subject:hello"})
        assert found.json()["ID"] == first
        assert (await http.get("/api/v1/message/latest", params={"query": "nothing"})).status_code == 404


async def test_header_fields_are_named_as_go_does():
    content = b"MIME-version: 1.0\r\nx-ONE: a\r\nX-One: b\r\n c\r\nSubject: =?utf-8?q?=C3=A9?=\r\n\r\n"
    async with opened() as (inbox, http):
        name = await send(inbox, content)
        assert (await http.get(f"/api/v1/message/{name}/headers")).json() == {
            "Mime-Version": ["1.0"],
            "Subject": ["=?utf-8?q?=C3=A9?="],
            "X-One": ["a", "b c"],
        }


async def test_parts_are_served_so_that_nothing_in_them_runs():
    message = rich()
    message.add_attachment("<script>alert(1)</script>", "html", filename="a.html")
    drawing = (
        b"Content-Type: image/svg+xml\r\n"
        b"Content-Disposition: attachment; filename*=utf-8''a/x%22%0d%0aSet-Cookie:%20a=b;%C3%A9.svg\r\n\r\n<svg/>\r\n"
    )
    content = message.as_bytes(policy=SMTP)
    boundary = str(message.get_boundary()).encode()
    content = content.replace(b"--" + boundary + b"--", b"--" + boundary + b"\r\n" + drawing + b"--" + boundary + b"--")
    async with opened() as (inbox, http):
        name = await send(inbox, content)
        picture = await http.get(f"/api/v1/message/{name}/part/2")
        assert (picture.content, picture.headers["content-type"]) == (png(), "image/png")
        assert picture.headers["content-disposition"] == "inline; filename=\"chart.png\"; filename*=UTF-8''chart.png"
        page = await http.get(f"/api/v1/message/{name}/part/4")
        assert page.headers["content-disposition"].startswith("attachment;")
        assert "sandbox" in page.headers["content-security-policy"]
        answer = await http.get(f"/api/v1/message/{name}/part/5")
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert "%22" in answer.headers["content-disposition"]
        assert "set-cookie" not in answer.headers
        assert (await http.get(f"/api/v1/message/{name}/part/9")).status_code == 404
        assert (await http.get(f"/api/v1/message/{name}/part/2?dl=1")).headers["content-disposition"].startswith("att")


@pytest.mark.parametrize("name", ["x", "../../etc/passwd", "%2e%2e", "' OR 1=1 --", "x" * 500, "\0"])
async def test_names_of_no_message(name):
    async with opened() as (inbox, http):
        await send(inbox)
        for path in ("", "/raw", "/headers", "/part/1", "/transcript", "/facts"):
            assert (await http.get(f"/api/v1/message/{name}{path}".replace("\0", "%00"))).status_code == 404


async def test_search():
    async with opened() as (inbox, http):
        await send(inbox)
        name = await send(inbox, rich())
        page = (await http.get("/api/v1/search", params={"query": "has:attachment code"})).json()
        assert [each["ID"] for each in page["messages"]] == [name]
        check(page["messages"][0], SUMMARY)
        assert (page["total"], page["count"], page["messages_count"], page["messages_unread"]) == (2, 1, 1, 1)
        for query in ("", "  "):
            assert (await http.get("/api/v1/search", params={"query": query})).status_code == 400
        for query in ("before:yesterday", "x " * 60):
            answer = await http.get("/api/v1/search", params={"query": query})
            assert answer.status_code == 400
        assert "at most 50 terms" in answer.text


async def test_marking():
    async with opened() as (inbox, http):
        names = [await send(inbox), await send(inbox, rich()), await send(inbox)]

        async def read():
            page = (await http.get("/api/v1/messages")).json()
            return {each["ID"] for each in page["messages"] if each["Read"]}

        answer = await http.put("/api/v1/messages", json={"IDs": names[:1], "Read": True})
        assert (answer.status_code, answer.text) == (200, "ok")
        assert await read() == {names[0]}
        await http.put("/api/v1/messages", json={"Search": "has:attachment", "Read": True})
        assert await read() == set(names[:2])
        await http.put("/api/v1/messages", json={"Read": True})
        assert await read() == set(names)
        await http.put("/api/v1/messages", json={"ids": names[:1], "read": False})
        assert await read() == set(names[1:])
        await http.put("/api/v1/messages", json={})
        assert await read() == set()


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", '{"IDs": "x"}', '{"IDs": [1]}', '{"Read": 1}', '{"Search": 1}', '{"IDs": ["x"], "Search": "y"}'],
)
async def test_marks_that_make_no_sense(body):
    async with opened() as (inbox, http):
        await send(inbox)
        answer = await http.put("/api/v1/messages", content=body)
        assert answer.status_code == 400
        assert (await http.get("/api/v1/messages")).json()["unread"] == 1


async def test_deleting():
    async with opened() as (inbox, http):

        async def names():
            return [each["ID"] for each in (await http.get("/api/v1/messages")).json()["messages"]]

        first, second, third = [await send(inbox), await send(inbox, rich()), await send(inbox)]
        answer = await http.request("DELETE", "/api/v1/messages", json={"IDs": [first, "x"]})
        assert (answer.status_code, answer.text) == (200, "ok")
        assert await names() == [third, second]
        assert (await http.request("DELETE", "/api/v1/messages", content="x")).status_code == 400
        assert (await http.delete("/api/v1/search")).status_code == 400
        assert (await http.delete("/api/v1/search", params={"query": "before:x"})).status_code == 400
        assert await names() == [third, second]
        await http.delete("/api/v1/search", params={"query": "has:attachment"})
        assert await names() == [third]
        await http.delete("/api/v1/messages")
        assert await names() == []
        await send(inbox)
        await http.request("DELETE", "/api/v1/messages", json={})
        assert await names() == []


async def test_a_form_is_understood_as_well():
    async with opened() as (inbox, http):
        first, second = await send(inbox), await send(inbox)
        await http.put("/api/v1/messages", data={"ids": [first], "Read": True})
        assert [each["Read"] for each in (await http.get("/api/v1/messages")).json()["messages"]] == [False, True]
        await http.request("DELETE", "/api/v1/messages", data={"ids": [first]})
        assert [message.queue_id for message in inbox.messages] == [second]


async def test_sending_goes_by_smtp():
    async with opened() as (inbox, http):
        body = {"From": {"Email": "me@x.test"}, "To": [{"Email": "you@y.test"}], "Bcc": ["eve@z.test"], "Text": "hi"}
        answer = await http.post("/api/v1/send", json=body)
        assert answer.status_code == 200
        [message] = inbox.messages
        assert answer.json() == {"ID": message.queue_id}
        assert message.recipients == ("you@y.test", "eve@z.test")
        assert message.message["Bcc"] is None
        inbox.faults = [{"recipient": "you@*", "reply": "450 later"}, {"recipient": "eve@*", "reply": "450 later"}]
        answer = await http.post("/api/v1/send", json=body)
        assert answer.status_code == 400
        assert "450 4.0.0 later" in answer.json()["Error"]
        for bad in (b"x", b"[]", b'{"From": {}}'):
            answer = await http.post("/api/v1/send", content=bad)
            assert answer.status_code == 400
            assert set(answer.json()) == {"Error"}


async def test_sending_where_a_login_and_tls_are_needed():
    async with opened(auth=("me", "secret"), tls="starttls") as (inbox, http):
        body = {"From": {"Email": "me@x.test"}, "To": [{"Email": "you@y.test"}]}
        assert (await http.post("/api/v1/send", json=body)).status_code == 200
        [message] = inbox.messages
        assert (message.identity, message.tls is not None) == ("me", True)
        assert (await http.get("/api/v1/messages")).json()["messages"][0]["Username"] == "me"


async def test_bodies_have_a_limit():
    async with opened(config=trio_smtp.ServerConfig(max_message_size=1000)) as (inbox, http):
        await send(inbox)
        for path in ("/api/v1/messages", "/api/faults"):
            assert (await http.put(path, content=b"x" * (_answers.MAX_BODY + 1))).status_code == 413
        answer = await http.post("/api/v1/send", content=b"x" * 70_000)
        assert answer.status_code == 413
        assert set(answer.json()) == {"Error"}
        assert len(inbox.messages) == 1


async def test_a_body_that_does_not_come_ends(monkeypatch):
    monkeypatch.setattr(_answers, "BODY_TIMEOUT", 0.01)
    async with opened() as (inbox, _):
        stream = await trio.open_tcp_stream(inbox.host, inbox.http_port)
        async with stream:
            await stream.send_all(b"PUT /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_goes_amid_its_body_is_no_bug(caplog):
    async with opened() as (inbox, http):
        async with await trio.open_tcp_stream(inbox.host, inbox.http_port) as stream:
            await stream.send_all(b"PUT /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert (await http.get("/livez")).status_code == 200
    assert caplog.records == []


async def test_about_the_inbox():
    async with opened() as (inbox, http):
        await send(inbox)
        inbox.faults = [{"stage": "rcpt", "reply": "550 no"}]
        with pytest.raises(trio_smtp.SMTPError):
            await send(inbox)
        info = (await http.get("/api/v1/info")).json()
        assert (info["Messages"], info["Unread"], info["Tags"], info["LatestVersion"]) == (1, 1, {}, "disabled")
        assert trio_smtp.__version__ in info["Version"]
        stats = info["RuntimeStats"]
        assert (stats["SMTPAccepted"], stats["SMTPRejected"], stats["SMTPAcceptedSize"]) == (1, 1, len(PLAIN))
        assert stats["Memory"] > 1_000_000
        assert (await http.get("/api/v1/webui")).json()["MessageRelay"]["Enabled"] is False
        assert (await http.get("/api/v1/tags")).json() == []
        assert (await http.get("/api/v1/chaos")).status_code == 400
        assert (await http.get("/livez")).text == "ok"
        assert (await http.get("/readyz")).text == "ok"


async def test_the_html_and_the_text_by_themselves():
    async with opened() as (inbox, http):
        name = await send(inbox, rich("<script>x</script><img src=cid:logo><a href=https://a.test>y</a>"))
        program = await http.get(f"/view/{name}.html")
        assert program.text == (
            f"<script>x</script><img src=/api/v1/message/{name}/part/1.2.2><a href=https://a.test>y</a>\n"
        )
        browser = await http.get(f"/view/{name}.html", headers={"accept": "text/html,*/*"})
        embedded = await http.get("/view/latest.html?embed=1")
        assert browser.text == embedded.text
        assert "<script" not in embedded.text
        assert "data:image/png;base64," in embedded.text
        assert "sandbox allow-popups allow-popups-to-escape-sandbox" in embedded.headers["content-security-policy"]
        assert (await http.get(f"/view/{name}.txt")).text.startswith("Your code")
        await send(inbox)
        assert (await http.get("/view/latest.html")).status_code == 404


async def test_pictures_in_a_page_have_a_limit(monkeypatch):
    monkeypatch.setattr(_mailpit, "MAX_IMAGES", len(png()) - 1)
    async with opened() as (inbox, http):
        await send(inbox, rich())
        assert "data:image" not in (await http.get("/view/latest.html?embed=1")).text


@pytest.mark.parametrize(
    ("field", "links", "error"),
    [
        ("<mailto:a@b.test>, <https://b.test/u?x=1>", ["mailto:a@b.test", "https://b.test/u?x=1"], ""),
        ("<https://b.test> (comment)", ["https://b.test"], ""),
        ("https://b.test", [], "no valid"),
        ("<ftp://b.test>", [], "neither"),
        ("<https://b.test>, <https://c.test>", ["https://b.test", "https://c.test"], "maximum"),
    ],
)
async def test_list_unsubscribe(field, links, error):
    async with opened() as (inbox, http):
        head = f"List-Unsubscribe: {field}\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        await send(inbox, head.encode() + PLAIN)
        found = (await http.get("/api/v1/message/latest")).json()["ListUnsubscribe"]
        assert (found["Header"], found["Links"]) == (field, links)
        assert found["HeaderPost"] == "List-Unsubscribe=One-Click"
        assert (error in found["Errors"]) if error else not found["Errors"]


async def test_a_large_message_is_read_in_a_thread():
    async with opened() as (inbox, http):
        await send(inbox, PLAIN + b"line\r\n" * 100_000)
        message = (await http.get("/api/v1/message/latest")).json()
        assert len(message["Text"]) > 400_000


async def test_a_message_deleted_meanwhile_is_not_found(monkeypatch):
    async with opened() as (inbox, http):
        await send(inbox)
        monkeypatch.setattr(inbox._box.store, "content", lambda number: (_ for _ in ()).throw(LookupError))
        for path in ("", "/raw", "/headers", "/facts"):
            assert (await http.get(f"/api/v1/message/latest{path}")).status_code == 404
