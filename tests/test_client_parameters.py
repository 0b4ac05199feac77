"""Each extension that the caller asks for with parameters: from send() to the hooks, and an error where not offered."""

from __future__ import annotations

import contextlib
import datetime as dt
import email
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from client_peer import Peer, client_and
from support import Recorder, make_server
from tls_support import client_context, server_context

import trio_smtp
from trio_smtp import DeliverBy, Delivery
from trio_smtp._protocol.extensions import OPT_IN_EXTENSIONS
from trio_smtp._protocol.parameters import PARAMETERS

# what the caller gives, and what the hooks see of it: attribute and value
MAIL: list[tuple[str, dict[str, Any], str, Any]] = [
    ("SIZE", {"SIZE": 4}, "size", 4),
    ("8BITMIME", {"BODY": "8BITMIME"}, "body", "8BITMIME"),
    ("8BITMIME", {"BODY": "7bit"}, "body", "7BIT"),
    ("BINARYMIME", {"BODY": "BINARYMIME"}, "body", "BINARYMIME"),
    ("SMTPUTF8", {"SMTPUTF8": None}, "smtputf8", True),
    ("AUTH", {"AUTH": "a+2Bb+3Dc@x.test"}, "auth", "a+b=c@x.test"),
    ("AUTH", {"AUTH": "<>"}, "auth", ""),
    ("DSN", {"RET": "HDRS"}, "ret", "HDRS"),
    ("DSN", {"ENVID": "Q+201+2B2+3D3"}, "envid", "Q 1+2=3"),
    ("REQUIRETLS", {"REQUIRETLS": None}, "requiretls", True),
    ("MT-PRIORITY", {"MT-PRIORITY": -9}, "mt_priority", -9),
    ("DELIVERBY", {"BY": "60;RT"}, "deliver_by", DeliverBy(60, "R", True)),
    ("DELIVERBY", {"BY": "-60;N"}, "deliver_by", DeliverBy(-60, "N", False)),
    ("FUTURERELEASE", {"HOLDFOR": 3600}, "hold_for", 3600),
    (
        "FUTURERELEASE",
        {"holduntil": "2030-01-01T00:00:00Z"},
        "hold_until",
        dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    ),
]
RCPT: list[tuple[str, dict[str, Any], str, Any]] = [
    ("DSN", {"NOTIFY": "NEVER"}, "notify", {"NEVER"}),
    ("DSN", {"NOTIFY": "SUCCESS,DELAY"}, "notify", {"SUCCESS", "DELAY"}),
    ("DSN", {"ORCPT": "rfc822;b+2Bc+3Dd@y.test"}, "orcpt", ("rfc822", "b+c=d@y.test")),
    ("DSN", {"ORCPT": "utf-8;b\\x{FC}ro@y.test"}, "orcpt", ("utf-8", "büro@y.test")),
]


def test_each_parameter_there_is_stands_in_the_tables_above() -> None:
    tested = {("MAIL", keyword.upper()) for _, params, _, _ in MAIL for keyword in params}
    tested |= {("RCPT", keyword.upper()) for _, params, _, _ in RCPT for keyword in params}
    assert tested == {(row.command, row.keyword) for row in PARAMETERS}


@contextlib.asynccontextmanager
async def client_of(handler: Recorder, **config: Any) -> AsyncIterator[trio_smtp.Client]:
    config = {"enabled_extensions": sorted(OPT_IN_EXTENSIONS), **config}
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True, **config)
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        async with trio_smtp.open_client(
            "mx.test", stream=near, tls="implicit", ssl_context=client_context(), lmtp=server.config.lmtp
        ) as client:
            yield client


@pytest.mark.parametrize("lmtp", [False, True])
@pytest.mark.parametrize(("keyword", "params", "attribute", "value"), MAIL)
async def test_parameter_of_mail_reaches_the_hooks(
    keyword: str, params: dict[str, Any], attribute: str, value: object, lmtp: bool
) -> None:
    handler = Recorder(on_auth=True)
    async with client_of(handler, lmtp=lmtp) as client:
        result = await client.send("a@x.test", ["b@y.test"], b"hi\r\n", mail_params=params)
    assert result.accepted == ["b@y.test"]
    [sender] = [seen for name, seen in handler.seen if name == "on_mail"]
    assert getattr(sender, attribute) == value
    assert handler.messages == [("a@x.test", ["b@y.test"], b"hi\r\n")]


@pytest.mark.parametrize(("keyword", "params", "attribute", "value"), RCPT)
async def test_parameter_of_rcpt_reaches_the_hooks_for_its_recipient_alone(
    keyword: str, params: dict[str, Any], attribute: str, value: object
) -> None:
    handler = Recorder(on_auth=True)
    async with client_of(handler) as client:
        await client.send("a@x.test", ["b@y.test", "c@y.test"], b"hi\r\n", rcpt_params={"b@y.test": params})
    first, second = [seen for name, seen in handler.seen if name == "on_rcpt"]
    assert (getattr(first, attribute), getattr(second, attribute)) == (value, None)


@pytest.mark.parametrize(("keyword", "params"), sorted({(case[0], tuple(case[1].items())) for case in MAIL}, key=str))
async def test_parameter_of_mail_that_is_not_offered_is_an_error_before_mail(keyword: str, params: Any) -> None:
    handler = Recorder(on_auth=True)
    async with client_of(handler, disabled_extensions=[keyword]) as client:
        assert keyword not in client.extensions
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match=keyword) as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n", mail_params=dict(params))
        assert caught.value.delivery is Delivery.NOT_SENT
        assert handler.count("on_mail") == 0
        await client.send("a@x.test", ["b@y.test"], b"hi\r\n")  # the connection is as good as before
    assert len(handler.messages) == 1


@pytest.mark.parametrize("params", [params for _, params, _, _ in RCPT])
async def test_parameter_of_rcpt_that_is_not_offered_is_an_error_before_mail(params: dict[str, Any]) -> None:
    handler = Recorder(on_auth=True)
    async with client_of(handler, disabled_extensions=["DSN"]) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="DSN"):
            await client.send("a@x.test", ["c@y.test", "b@y.test"], b"hi\r\n", rcpt_params={"b@y.test": params})
    assert handler.count("on_mail") == 0


@pytest.mark.parametrize("missing", ["BINARYMIME", "CHUNKING", "8BITMIME"])
async def test_binarymime_needs_three_extensions(missing: str) -> None:
    offers = [offer for offer in ("PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME") if offer != missing]

    async def script(peer: Peer) -> None:
        await peer.greet(*offers)
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match=missing):
            await client.send("a@x.test", ["b@y.test"], b"\n", mail_params={"BODY": "BINARYMIME"})


@pytest.mark.parametrize("size", [0, 1000, 1_000_000])
async def test_binary_content_arrives_as_it_was(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"\n.\r.\0"
    handler = Recorder(on_auth=True)
    async with client_of(handler) as client:
        await client.send("a@x.test", ["b@y.test"], content, mail_params={"BODY": "BINARYMIME"})
    assert handler.messages[0][2] == content


async def test_requiretls_is_not_said_in_clear_whatever_is_offered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "REQUIRETLS")
        await peer.goodbye()

    async with client_and(script) as client:
        for params in ({"REQUIRETLS": None}, {"requiretls": None}):
            with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="verified certificate"):
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n", mail_params=params)


@pytest.mark.parametrize(
    ("offer", "within", "beyond"),
    [
        ("FUTURERELEASE 3600 2030-01-01T00:00:00Z", {"HOLDFOR": 3600}, {"HOLDFOR": 3601}),
        (
            "FUTURERELEASE 3600 2030-01-01T00:00:00Z",
            {"HOLDUNTIL": "2030-01-01T00:00:00Z"},
            {"HOLDUNTIL": "2030-01-01t00:00:01z"},
        ),
        ("FUTURERELEASE", {"HOLDFOR": 999999999}, None),
        ("FUTURERELEASE x y", {"HOLDUNTIL": "9999-01-01T00:00:00Z"}, None),
        ("DELIVERBY 60", {"BY": "60;R"}, {"BY": "59;rt"}),
        ("DELIVERBY 60,more", {"BY": "+60;R"}, {"BY": "+1;R"}),
        ("DELIVERBY 60", {"BY": "-5;N"}, None),  # RFC 2852 §4: the minimum is for R
        ("DELIVERBY", {"BY": "1;R"}, None),
    ],
)
async def test_limits_that_the_server_names_are_kept(
    offer: str, within: dict[str, Any], beyond: dict[str, Any] | None
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", offer)
        [(keyword, value)] = within.items()
        await peer.take_message(f"MAIL FROM:<a@x.test> {keyword}={value}")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        if beyond is not None:
            with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="but the server") as caught:
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n", mail_params=beyond)
            assert (caught.value.stage, caught.value.delivery) == ("mail", Delivery.NOT_SENT)
        await client.send("a@x.test", ["b@y.test"], b"hi\r\n", mail_params=within)


@pytest.mark.parametrize("size", [1000, 1001, 10**19])
async def test_size_that_the_caller_declares_is_kept_to_the_servers(size: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"hi\r\n"

    handler = Recorder(on_auth=True)
    async with client_of(handler, max_message_size=1000) as client:
        with contextlib.nullcontext() if size == 1000 else pytest.raises(trio_smtp.MessageTooLargeError):
            await client.send("a@x.test", ["b@y.test"], chunks(), mail_params={"SIZE": size})
    assert handler.count("on_mail") == (size == 1000)


LIMIT = 300_000  # more than a block


@pytest.mark.parametrize("chunking", [True, False], ids=["bdat", "data"])
@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("last", [b".\r\n", b"x", b"\n"])
@pytest.mark.parametrize("push", [False, True], ids=["send", "transaction"])
async def test_a_stream_that_outgrows_the_servers_size_is_given_up(
    over: int, last: bytes, chunking: bool, push: bool
) -> None:
    """Octets are those of RFC 1870: line ends count two, stuffed dots nothing, and a missing last line end counts."""
    line = b"." * 98 + b"\r\n"
    tail = b"." * (100 + over - (2 if last == b"\n" else 3)) + last  # on the wire "x" and LF are "x" CR LF and CR LF
    pieces = [line] * (LIMIT // 100 - 1) + [tail]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def send(client: trio_smtp.Client) -> None:
        if not push:
            await client.send("a@x.test", ["b@y.test"], chunks())
            return
        async with client.transaction("a@x.test", ["b@y.test"]) as message:
            for piece in pieces:
                await message.send_all(piece)

    handler = Recorder(on_auth=True)
    disabled = () if chunking else ("CHUNKING", "BINARYMIME")
    with trio.fail_after(5):
        async with client_of(handler, max_message_size=LIMIT, disabled_extensions=disabled) as client:
            if not over:
                await send(client)
            else:
                with pytest.raises(trio_smtp.MessageTooLargeError, match=str(LIMIT)) as caught:
                    await send(client)
                assert (caught.value.stage, caught.value.delivery) == ("body", Delivery.NOT_SENT)
                assert client._connection.is_broken is not chunking
    assert [len(content) for _, _, content in handler.messages] == ([] if over else [LIMIT])


UTF8_HEADER = "Subject: grüße\r\n\r\nhi\r\n"


@pytest.mark.parametrize("size", [0, 2 << 20])
async def test_utf8_in_a_header_is_said_to_the_server_and_needs_its_consent(tmp_path: Path, size: int) -> None:
    path = tmp_path / "message"
    path.write_bytes(UTF8_HEADER.encode() + b"a line of text\r\n" * (size // 16))
    handler = Recorder(on_auth=True)
    async with client_of(handler) as client:
        await client.send("a@x.test", ["b@y.test"], path)
    [sender] = [seen for name, seen in handler.seen if name == "on_mail"]
    assert (sender.smtputf8, sender.body) == (True, "8BITMIME")
    handler = Recorder(on_auth=True)
    async with client_of(handler, disabled_extensions=["SMTPUTF8"]) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="SMTPUTF8") as caught:
            await client.send("a@x.test", ["b@y.test"], path)
        assert (caught.value.stage, caught.value.delivery) == ("mail", Delivery.NOT_SENT)
        assert handler.count("on_mail") == 0
        await client.send("a@x.test", ["b@y.test"], path, mail_params={"BODY": "8BITMIME"})  # the caller's own word
        await client.send("a@x.test", ["b@y.test"], "Subject: a\r\n\r\ngrüße\r\n")  # its text needs nothing
    assert len(handler.messages) == 2


async def test_a_message_object_gets_encoded_words_instead() -> None:
    message = email.message_from_bytes(UTF8_HEADER.encode())
    handler = Recorder(on_auth=True)
    async with client_of(handler, disabled_extensions=["SMTPUTF8"]) as client:
        await client.send("a@x.test", ["b@y.test"], message)
    assert handler.messages[0][2] == b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n\r\nhi\r\n"


async def test_parameters_of_an_application_go_as_they_are() -> None:
    handler = Recorder(on_auth=True)
    extension = trio_smtp.ServerExtension("XFOO", mail_parameters=["XTAG"], rcpt_parameters=["XHINT"])
    async with client_of(handler, extensions=[extension]) as client:
        assert "XFOO" in client.extensions
        await client.send(
            "a@x.test", ["b@y.test"], b"hi\r\n", mail_params={"XTAG": "a;b"}, rcpt_params={"b@y.test": {"XHINT": None}}
        )
    [sender] = [seen for name, seen in handler.seen if name == "on_mail"]
    [recipient] = [seen for name, seen in handler.seen if name == "on_rcpt"]
    assert sender.params["XTAG"] == "a;b"
    assert recipient.params == {"XHINT": None}


@pytest.mark.parametrize("value", [True, False, 1.5, b"x", ["x"]])
async def test_values_of_parameters_are_str_int_or_none(value: object) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "REQUIRETLS", "DSN")
        await peer.goodbye()

    async with client_and(script) as client:
        for options in ({"mail_params": {"REQUIRETLS": value}}, {"rcpt_params": {"b@y.test": {"NOTIFY": value}}}):
            with pytest.raises(TypeError, match="str, an int or None"):  # before the first octet
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n", **options)
