"""AUTH by a client at a server, each mechanism over a real session; and the servers that do not keep to theirs."""

from __future__ import annotations

import base64
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from client_peer import Peer, client_and, error_of
from support import Recorder, make_server
from tls_support import NAME, authority, client_context, server_context

import trio_smtp
from trio_smtp import Credentials, External, OAuth, Password, Server, Session
from trio_smtp._client.auth import Login
from trio_smtp._protocol.sasl import SERVER_MECHANISMS

SECRET = "s3cret-of-me"


def credentials_for(mechanism: str, secret: str = SECRET) -> Password | OAuth | External:
    if mechanism in ("OAUTHBEARER", "XOAUTH2"):
        return OAuth("me@a.test", secret)
    if mechanism == "EXTERNAL":
        return External("" if secret == SECRET else "root@a.test")
    return Password("me@a.test", secret, [mechanism])


async def judge(session: Session, credentials: Credentials) -> bool:
    assert credentials.username == "me@a.test"
    if credentials.mechanism == "EXTERNAL":
        return credentials.authorization_id is None
    if credentials.token is not None:
        return credentials.token == SECRET
    return credentials.check_password(SECRET)


def server_of(mechanism: str, handler: Recorder) -> Server:
    context = server_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    authority().configure_trust(context)
    return make_server(
        handler, ssl_context=context, implicit_tls=True, auth="required", auth_mechanisms=[mechanism], error_delay=None
    )


@contextlib.asynccontextmanager
async def logged_in(server: Server, auth: Any) -> AsyncIterator[trio_smtp.Client]:
    context = client_context()
    authority().issue_cert("me@a.test").configure_cert(context)
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        async with trio_smtp.open_client(NAME, stream=near, tls="implicit", ssl_context=context, auth=auth) as client:
            yield client


@pytest.mark.parametrize("mechanism", SERVER_MECHANISMS)
async def test_each_mechanism_logs_in_and_no_log_shows_the_secret(
    mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder(on_auth=judge)
    with caplog.at_level(logging.DEBUG, "trio_smtp"):
        async with logged_in(server_of(mechanism, handler), credentials_for(mechanism)) as client:
            assert client.extensions.auth == (mechanism,)
            result = await client.send("me@a.test", ["b@b.test"], b"hi\r\n")
    assert result.accepted == ["b@b.test"]
    assert handler.count("on_auth") == 1
    [session] = handler.sessions
    assert session.transaction_count == 1
    # Whole, and in base64 however the octets before it shift it.
    encoded = {base64.b64encode(b"x" * shift + SECRET.encode())[4:-4].decode() for shift in range(3)}
    for secret in (SECRET, *encoded):
        assert secret not in caplog.text
    assert f"AUTH {mechanism} ***" in caplog.text


@pytest.mark.parametrize("mechanism", SERVER_MECHANISMS)
async def test_each_mechanism_is_refused_by_the_same_words(mechanism: str) -> None:
    server = server_of(mechanism, Recorder(on_auth=judge))
    error = await error_of(logged_in(server, credentials_for(mechanism, "wrong")))
    assert isinstance(error, trio_smtp.AuthenticationError)
    assert error.reply == trio_smtp.Reply(535, "authentication failed", "5.7.8")
    assert (error.stage, error.delivery) == ("auth", "not_sent")
    assert "wrong" not in str(error)


async def opening_error(script: Any, auth: Any) -> trio_smtp.SMTPError:
    return await error_of(client_and(script, auth=auth, allow_insecure_auth=True))


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("server_first", "match"),
    [
        (b"r=%b,s=c2FsdHNhbHQ=,i=1", "iterations"),
        (b"r=%b,s=c2FsdHNhbHQ=,i=4095", "iterations"),
        (b"r=%b,s=c2FsdHNhbHQ=,i=1000001", "iterations"),
        (b"r=%b,s=c2FsdHNhbHQ=,i=1000000000", "cannot parse"),
        (b"r=other,s=c2FsdHNhbHQ=,i=4096", "does not extend"),
        (b"e=other-error", "cannot parse"),
    ],
)
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_server_that_wants_too_much_or_too_little_is_cancelled(
    mechanism: str, server_first: bytes, match: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(f"AUTH {mechanism}")
        response = (await peer.line()).split(" ")[2]
        nonce = base64.b64decode(response).partition(b",r=")[2] + b"more"
        await peer.say("334 " + encode(server_first.replace(b"%b", nonce)))
        await peer.hear("*")
        await peer.say("501 5.7.0 cancelled")
        await peer.goodbye()

    error = await opening_error(script, Password("me", SECRET))
    assert isinstance(error, trio_smtp.AuthenticationError)
    assert match in str(error)


async def test_wrong_signature_is_no_success_whatever_follows() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH SCRAM-SHA-256")
        response = (await peer.line()).split(" ")[2]
        nonce = base64.b64decode(response).partition(b",r=")[2] + b"more"
        await peer.say("334 " + encode(b"r=%b,s=c2FsdHNhbHQ=,i=4096" % nonce))
        await peer.line()
        await peer.say("334 " + encode(b"v=" + base64.b64encode(bytes(32))))
        await peer.hear("*")
        await peer.say("235 2.7.0 welcome all the same")
        await peer.goodbye()

    error = await opening_error(script, Password("me", SECRET))
    assert isinstance(error, trio_smtp.AuthenticationError)
    assert "signature is wrong" in str(error)


@pytest.mark.parametrize(
    "challenge", [("334-", "334 "), ("334 !",), ("334 YQ",), ("334 YQ== YQ==",)], ids=["lines", "!", "padding", "two"]
)
async def test_challenge_that_is_no_base64_or_has_lines_is_cancelled(challenge: tuple[str, ...]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH CRAM-MD5")
        await peer.hear("AUTH CRAM-MD5")
        await peer.say(*challenge)
        await peer.hear("*")
        await peer.say("501 5.7.0 cancelled")
        await peer.goodbye()

    assert isinstance(await opening_error(script, ("me", SECRET)), trio_smtp.AuthenticationError)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"])
async def test_server_that_asks_on_and_on_is_cancelled(mechanism: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(f"AUTH {mechanism}")
        line, asked = await peer.line(), 0
        while line != "*":
            await peer.say("334 YQ==")
            line, asked = await peer.line(), asked + 1
        assert asked <= 4
        await peer.say("501 5.7.0 cancelled")
        await peer.goodbye()

    assert isinstance(await opening_error(script, credentials_for(mechanism)), trio_smtp.AuthenticationError)


@pytest.mark.parametrize(("mechanism", "acknowledgement"), [("XOAUTH2", ""), ("OAUTHBEARER", "AQ==")])
async def test_what_the_server_said_of_a_token_is_in_the_error(mechanism: str, acknowledgement: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(f"AUTH {mechanism}")
        await peer.line()
        await peer.say("334 " + encode(b'{"status":"invalid_token"}'))
        await peer.hear(acknowledgement)
        await peer.say("535 5.7.8 no")
        await peer.goodbye()

    error = await opening_error(script, OAuth("me", SECRET))
    assert isinstance(error, trio_smtp.AuthenticationError)
    assert '{"status":"invalid_token"}' in str(error)
    assert error.reply == trio_smtp.Reply(535, "no", "5.7.8")
    assert SECRET not in str(error)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_235_behind_a_refused_token_is_no_success(mechanism: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(f"AUTH {mechanism}")
        await peer.line()
        await peer.say("334 " + encode(b"{}"))
        await peer.line()
        await peer.say("235 2.7.0 welcome all the same")
        await peer.goodbye()

    assert isinstance(await opening_error(script, OAuth("me", SECRET)), trio_smtp.AuthenticationError)


async def test_long_token_waits_to_be_asked_for() -> None:
    """RFC 4954 section 4: with the initial response the AUTH command would be longer than a command may be."""
    token = "t" * 2000

    async def script(peer: Peer) -> None:
        await peer.greet("AUTH OAUTHBEARER")
        await peer.hear("AUTH OAUTHBEARER")
        await peer.say("334 ")
        assert f"Bearer {token}".encode() in base64.b64decode(await peer.line())
        await peer.say("235 ok")
        await peer.goodbye()

    async with client_and(script, auth=OAuth("me", token), allow_insecure_auth=True):
        pass


@pytest.mark.parametrize(
    ("bad", "kind"),
    [("tok\r\nen", trio_smtp.LocalProtocolError), ("", trio_smtp.LocalProtocolError), (b"t", TypeError)],
)
async def test_token_that_cannot_be_sent_is_not_kept(bad: Any, kind: type[Exception]) -> None:
    answers = [bad, ("token", 60)]

    async def provide() -> Any:
        return answers.pop(0)

    login = Login(OAuth("me@a.test", provide))
    with pytest.raises(kind):
        await login.token()
    assert [await login.token() for _ in range(2)] == ["token", "token"]


async def test_xoauth_token_that_is_no_base64_is_not_kept() -> None:
    answers = ["no base64!", "dG9rZW4="]

    async def provide() -> str:
        return answers.pop(0)

    login = Login(trio_smtp.XOAuth(provide))
    with pytest.raises(trio_smtp.LocalProtocolError):
        await login.token()
    assert await login.token() == "dG9rZW4="


async def test_login_prompts_need_not_be_base64() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH LOGIN")
        await peer.hear("AUTH LOGIN")
        await peer.say("334 Username:")
        await peer.hear(encode(b"me"))
        await peer.say("334-Password,", "334 please:")
        await peer.hear(encode(SECRET.encode()))
        await peer.say("235 ok")
        await peer.goodbye()

    async with client_and(script, auth=("me", SECRET), allow_insecure_auth=True):
        pass


async def test_provider_is_asked_once_for_all_who_wait_and_again_when_a_token_is_wanted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asked: list[float] = []
    lasts: list[float] = []

    async def provider() -> str | tuple[str, float]:
        await trio.sleep(1)
        asked.append(trio.current_time())
        token = f"token{len(asked)}"
        return (token, lasts[0]) if lasts else token

    login = Login(trio_smtp.OAuth("me", provider))
    tokens: list[str | None] = []

    async def want(but_not: str | None = None) -> None:
        tokens.append(await login.token(but_not=but_not))

    async def want_four(but_not: str | None = None) -> list[str | None]:
        tokens.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(want, but_not)
        return tokens

    assert await want_four() == ["token1"] * 4
    assert await want_four("token1") == ["token2"] * 4  # expired, and refused on four connections
    assert await want_four("token1") == ["token2"] * 4  # a late one
    lasts.append(60)
    assert await want_four() == ["token3"] * 4
    await trio.sleep(50)
    assert await want_four() == ["token3"] * 4
    await trio.sleep(11)
    assert await want_four() == ["token4"] * 4


@pytest.mark.parametrize("answer", [("x",), ("x", "60"), ("x", True), ("x", 1, 2)])
async def test_what_a_provider_returns_beside_a_token_is_seconds(answer: object) -> None:
    async def provider() -> object:
        await trio.lowlevel.checkpoint()
        return answer

    with pytest.raises(TypeError, match="seconds it lasts"):
        await Login(trio_smtp.OAuth("me", provider)).token()  # type: ignore[arg-type]
