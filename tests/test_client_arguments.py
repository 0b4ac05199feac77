"""Every argument that can reach the wire: what cannot be sent is a LocalProtocolError, and nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import trio_smtp
from trio_smtp import testing

NOT_IN_A_LINE = ["\r", "\n", "\r\n", "\0", "\ud800"]
PARTIES = ("me@example.com", ["you@example.com"])
TEXT = b"Subject: x\r\n\r\n"


def in_the_middle(word: str, bad: str) -> str:
    return f"{word[:3]}{bad}{word[3:]}"


# What a value is made for: with a bad character in the middle it must not come into being.
VALUES: dict[str, Callable[[str], object]] = {
    "password": lambda text: trio_smtp.Password("me", text),
    "user name": lambda text: trio_smtp.Password(text, "secret"),
    "user of a token": lambda text: trio_smtp.OAuth(text, "token"),
    "token": lambda text: trio_smtp.OAuth("me", text),
    "ready token": lambda text: trio_smtp.XOAuth(text),
    "authorization identity": lambda text: trio_smtp.External(text),
    "source of a PROXY header": lambda text: trio_smtp.ProxyHeader((text, 1), ("192.0.2.1", 25)),
    "source of a PROXY line": lambda text: trio_smtp.ProxyHeader((text, 1), ("192.0.2.1", 25), 1),
    "destination of a PROXY header": lambda text: trio_smtp.ProxyHeader(("192.0.2.1", 1), (text, 25)),
    "hostname of a server": lambda text: trio_smtp.ServerConfig(hostname=text),
    "banner": lambda text: trio_smtp.ServerConfig(banner=text),
    "keyword of an extension": lambda text: trio_smtp.ServerExtension(text),
    "text of an extension": lambda text: trio_smtp.ServerExtension("XFOO", text),
    "parameter of an extension": lambda text: trio_smtp.ServerExtension("XFOO", mail_parameters=[text]),
    "verb of an extension": lambda text: trio_smtp.ServerExtension("XFOO", commands=[text]),
}


@pytest.mark.parametrize("bad", NOT_IN_A_LINE, ids=ascii)
@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_cannot_be_sent_is_refused(name: str, bad: str) -> None:
    with pytest.raises(trio_smtp.LocalProtocolError) as caught:
        VALUES[name](in_the_middle("secret", bad))
    assert caught.value.delivery == "not_sent"
    if name in ("password", "token", "ready token"):
        assert "ret" not in str(caught.value)  # the message does not quote a secret


# What a client is asked to send.
CALLS: dict[str, Callable[[trio_smtp.Client, str], Awaitable[object]]] = {
    "sender": lambda client, text: client.send(f"{text}@example.com", PARTIES[1], TEXT),
    "sender's domain": lambda client, text: client.send(f"me@{text}", PARTIES[1], TEXT),
    "recipient": lambda client, text: client.send("me@example.com", [f"{text}@example.com"], TEXT),
    "quoted recipient": lambda client, text: client.send("me@example.com", [f'"{text}"@example.com'], TEXT),
    "keyword": lambda client, text: client.send(*PARTIES, TEXT, mail_params={text: "1"}),
    "value": lambda client, text: client.send(*PARTIES, TEXT, mail_params={"ENVID": text}),
    "keyword of a recipient": lambda client, text: client.send(*PARTIES, TEXT, rcpt_params={PARTIES[1][0]: {text: ""}}),
    "value of a recipient": lambda client, text: client.send(
        *PARTIES, TEXT, rcpt_params={PARTIES[1][0]: {"ORCPT": text}}
    ),
    "address to verify": lambda client, text: client.verify(text),
    "line": lambda client, text: client.command(f"HELP {text}"),
    "verb": lambda client, text: client.command(text),
}


@asynccontextmanager
async def client_of_a_sink() -> AsyncIterator[tuple[trio_smtp.Client, testing.Sink]]:
    async with (
        testing.open_sink() as sink,
        trio_smtp.open_client("mail.test", stream=sink.connect(), local_hostname="me.test") as client,
    ):
        yield client, sink


@pytest.mark.parametrize("bad", NOT_IN_A_LINE, ids=ascii)
@pytest.mark.parametrize("name", CALLS)
async def test_a_call_with_what_cannot_be_sent_sends_nothing(name: str, bad: str) -> None:
    transcript = "S: 220 mail.test\nC: EHLO…\nS: 250-mail.test\nS: 250 SMTPUTF8\nC: QUIT"
    async with (
        testing.open_script(transcript) as script,
        trio_smtp.open_client("mail.test", stream=script.connect(), local_hostname="me.test") as client,
    ):
        with pytest.raises(trio_smtp.LocalProtocolError) as caught:
            await CALLS[name](client, in_the_middle("secret", bad))
        assert caught.value.delivery == "not_sent"


@pytest.mark.parametrize("bad", NOT_IN_A_LINE, ids=ascii)
@pytest.mark.parametrize("opening", [trio_smtp.open_client, trio_smtp.open_pool], ids=lambda opening: opening.__name__)
@pytest.mark.parametrize("name", ["local_hostname", "auth"])
async def test_an_opening_with_what_cannot_be_sent(name: str, opening: Any, bad: str) -> None:
    text = in_the_middle("secret", bad)
    with pytest.raises(trio_smtp.LocalProtocolError) as caught:
        async with opening("mail.test", **{name: ("me", text) if name == "auth" else text}):
            raise AssertionError("it was opened")
    assert caught.value.delivery == "not_sent"


async def test_content_that_is_no_unicode() -> None:
    async with client_of_a_sink() as (client, sink):
        with pytest.raises(trio_smtp.LocalProtocolError, match="UTF-8"):
            await client.send(*PARTIES, "Subject: x\r\n\r\n\ud800\r\n")
        await client.send(*PARTIES, TEXT)
    assert len(sink.messages) == 1


@pytest.mark.parametrize("value", [b"1", 1.5, True, ["a"]], ids=repr)
async def test_a_parameter_of_another_type_is_a_type_error(value: Any) -> None:
    """``str()`` of it would reach the wire."""
    async with client_of_a_sink() as (client, _):
        with pytest.raises(TypeError, match="parameter"):
            await client.send(*PARTIES, TEXT, mail_params={"SIZE": value})
        with pytest.raises(TypeError, match="parameter"):
            await client.send(*PARTIES, TEXT, mail_params={value: "1"} if value.__hash__ else {1: "1"})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="a str, not"):
            await client.command(value)
        with pytest.raises(TypeError, match="a str, not"):
            await client.verify(value)
        with pytest.raises(trio_smtp.LocalProtocolError, match="nothing to verify"):
            await client.verify(" ")
