"""From connecting to AUTH: the modes of TLS, who gets credentials, and what a hostile server can do on the way."""

import base64
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer, client_and
from tls_support import NAME, client_context

import trio_smtp
from trio_smtp import ClientConfig, Delivery, PoolConfig, Reply
from trio_smtp._client import opening


@asynccontextmanager
async def tls_client(script: Callable[[Peer], Any], **options: Any) -> AsyncIterator[trio_smtp.Client]:
    peer = Peer()
    options = {"local_hostname": "me.test", "ssl_context": client_context(), **options}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        async with trio_smtp.open_client(NAME, stream=peer.far, **options) as client:
            yield client


async def refused(error: type[Exception], script: Callable[[Peer], Any], match: str = "", **options: Any) -> Any:
    """The error that opening a client ends with; it must say that nothing was sent."""
    peer = Peer()
    found = None
    settings: dict[str, Any] = {"local_hostname": "me.test", "ssl_context": client_context(), **options}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        try:
            async with trio_smtp.open_client(NAME, stream=peer.far, **settings):
                raise AssertionError("it opened")
        except error as exc:
            found = exc
    assert isinstance(found, trio_smtp.SMTPError)
    assert re.search(match, str(found))
    assert found.delivery is Delivery.NOT_SENT
    return found


async def starttls(peer: Peer) -> None:
    await peer.greet("STARTTLS", "AUTH PLAIN", "SIZE 5")
    await peer.hear("STARTTLS")
    await peer.say("220 2.0.0 go")
    await peer.start_tls()
    await peer.hear("EHLO me.test")


@asynccontextmanager
async def client_over_tls(verifying: bool, **options: Any) -> AsyncIterator[tuple[Peer, trio_smtp.Client]]:
    """A client that is given an SSLStream, and a server that has shaken hands."""
    peer = Peer()
    context = client_context()
    if not verifying:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    stream = trio.SSLStream(peer.far, context, server_hostname=NAME)

    async def script() -> None:
        await peer.start_tls()
        await peer.greet("STARTTLS", "AUTH PLAIN")
        await peer.hear("AUTH PLAIN AG1lAHNlY3JldA==")
        await peer.say("235 ok")
        await peer.goodbye()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        settings: dict[str, Any] = {"local_hostname": "me.test", "auth": ("me", "secret"), **options}
        async with trio_smtp.open_client(NAME, stream=stream, **settings) as client:
            yield peer, client


@pytest.mark.parametrize("verifying", [True, False])
@pytest.mark.parametrize("tls", ["auto", "implicit", "none"])
async def test_stream_that_is_under_tls_already_counts_as_tls(verifying: bool, tls: str) -> None:
    async with client_over_tls(verifying, tls=tls) as (_, client):
        assert client.tls is not None
        assert client.tls.verified is verifying
        assert client.tls.server_name == NAME


async def test_stream_under_tls_whose_handshake_fails_or_hangs(autojump_clock: trio.testing.MockClock) -> None:
    for words, error in ((b"220 mail.test\r\n", trio_smtp.TLSError), (b"", trio_smtp.SMTPTimeoutError)):
        peer = Peer()
        await peer.send(words)
        stream = trio.SSLStream(peer.far, client_context(), server_hostname=NAME)
        with pytest.raises(error) as caught:
            async with trio_smtp.open_client(NAME, stream=stream):
                raise AssertionError("it opened")
        assert isinstance(caught.value, trio_smtp.SMTPError)
        assert caught.value.delivery is Delivery.NOT_SENT
        await peer.drain()


# -- greeting and hello


async def test_greeting_other_than_220_is_a_connect_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("554 5.7.1 not you")
        await peer.closed()

    error = await refused(trio_smtp.ConnectError, script)
    assert error.reply == Reply(554, "not you", "5.7.1")
    assert error.stage == "greeting"
    assert isinstance(error, OSError)


async def test_421_instead_of_the_greeting() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("421 4.3.2 busy")
        await peer.closed()

    error = await refused(trio_smtp.ConnectError, script)
    assert error.reply.code == 421
    assert error.stage == "greeting"


async def test_421_at_hello() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        await peer.hear("EHLO me.test")
        await peer.say("421 4.3.2 busy")
        await peer.closed()

    error = await refused(trio_smtp.ConnectError, script)
    assert error.reply.code == 421
    assert error.stage == "hello"


async def test_no_greeting_names_the_likely_mistake(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    error = await refused(trio_smtp.SMTPTimeoutError, script, "no greeting.*tls='implicit'")
    assert error.stage == "greeting"


async def test_connection_closed_instead_of_the_greeting() -> None:
    async def script(peer: Peer) -> None:
        await peer.aclose()

    error = await refused(trio_smtp.ConnectionLostError, script)
    assert error.stage == "greeting"


async def test_garbage_instead_of_the_greeting() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"\x15\x03\x01\x00\x02\x02\n")
        await peer.closed()

    await refused(trio_smtp.RemoteProtocolError, script, "tls='implicit'")


async def test_helo_where_ehlo_is_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        await peer.hear("EHLO me.test")
        await peer.say("502 what?")
        await peer.hear("HELO me.test")
        await peer.say("250 hi")
        for line, answer in (("MAIL FROM:<a@x.test>", "250 ok"), ("RCPT TO:<b@y.test>", "250 ok"), ("DATA", "354 go")):
            await peer.hear(line)
            await peer.say(answer)
        assert await peer.text() == b"x\r\n"
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        assert len(client.extensions) == 0
        await client.send("a@x.test", ["b@y.test"], b"x")


async def test_helo_refused_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        await peer.hear("EHLO me.test")
        await peer.say("502 what?")
        await peer.hear("HELO me.test")
        await peer.say("550 no")
        await peer.goodbye()

    error = await refused(trio_smtp.ConnectError, script)
    assert error.stage == "hello"


async def test_own_name_is_a_name_or_an_address_literal() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        word, name = (await peer.line()).split()
        assert word == "EHLO"
        assert "." in name or name.startswith("[")
        await peer.offer()
        await peer.goodbye()

    async with client_and(script, local_hostname=None):
        pass


async def test_own_name_a_resolver_that_hangs_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def hang(*arguments: object, **options: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(opening, "_full_names", {})
    monkeypatch.setattr(socket, "gethostname", lambda: "short")
    monkeypatch.setattr(trio.to_thread, "run_sync", hang)
    transport: Any = SimpleNamespace(local=("192.0.2.1", 12345))
    started = trio.current_time()
    for _ in range(3):
        assert await opening._own_name(transport) == "[192.0.2.1]"
    assert trio.current_time() - started == pytest.approx(5)
    opening._full_names["short"] = "short.example.test"  # the resolver's answer, late
    assert await opening._own_name(transport) == "short.example.test"


@pytest.mark.parametrize("name", ["a b", "a\r\nb", "", "bücher.test", "a\0b"])
async def test_local_hostname_that_cannot_be_sent_is_a_local_protocol_error(name: str) -> None:
    with pytest.raises(trio_smtp.LocalProtocolError, match="local_hostname") as caught:
        async with trio_smtp.open_client("mail.test", local_hostname=name):
            pass
    assert caught.value.delivery is trio_smtp.Delivery.NOT_SENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tls", "yes"),
        ("local_hostname", "a b"),
        ("local_hostname", "a\r\nb"),
        ("ssl_context", 1),
        ("auth", "me"),
        ("auth", ("a\nb", "c")),
        ("config", 1),
        ("lmtp", "no"),
        ("port", 70000),
    ],
)
async def test_wrong_argument_is_an_error_before_connecting(name: str, value: object) -> None:
    arguments: Any = {name: value}
    with pytest.raises((TypeError, ValueError)):
        async with trio_smtp.open_client("mail.test", **arguments):
            pass


@pytest.mark.parametrize(
    ("options", "port"),
    [
        ({}, 25),
        ({"tls": "implicit"}, 465),
        ({"lmtp": True}, 24),
        ({"lmtp": True, "tls": "implicit"}, 24),
        ({"lmtp": True, "port": 2525}, 2525),
        ({"port": 587}, 587),
    ],
)
async def test_port_if_none_is_named(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], port: int) -> None:
    asked: list[int] = []

    async def connect(host: str, port: int, **_: object) -> trio.abc.Stream:
        asked.append(port)
        raise OSError("not today")

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    with pytest.raises(trio_smtp.ConnectError):
        async with trio_smtp.open_client("mail.test", **options):
            pass
    async with trio_smtp.open_pool("mail.test", **options, config=PoolConfig(connect_retries=0)) as pool:
        with pytest.raises(trio_smtp.ConnectError):
            await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert asked == [port, port]


async def test_lmtp_is_not_spoken_on_port_25() -> None:
    """RFC 2033 section 5."""
    for opener in (trio_smtp.open_client, trio_smtp.open_pool):
        with pytest.raises(ValueError, match="port 25"):
            async with opener("mail.test", 25, lmtp=True):
                pass
    async with trio_smtp.open_pool([("mail.test", 25)], lmtp=True) as pool:
        with pytest.raises(ValueError, match="port 25"):
            await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")


async def test_refused_tcp_connection() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(trio_smtp.ConnectError, match=f"127.0.0.1:{port}: Connection refused") as caught:
        async with trio_smtp.open_client("127.0.0.1", port):
            pass
    assert caught.value.stage == "connect"
    assert caught.value.delivery is Delivery.NOT_SENT


async def test_connect_timeout(monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock) -> None:
    async def never(*args: object, **kwargs: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    started = trio.current_time()
    with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
        async with trio_smtp.open_client("mail.test", config=ClientConfig(connect_timeout=7)):
            pass
    assert trio.current_time() - started == pytest.approx(7)
    assert caught.value.stage == "connect"


# -- TLS


async def test_auto_uses_starttls_where_offered_and_only_what_is_said_inside_counts() -> None:
    async def script(peer: Peer) -> None:
        await starttls(peer)
        await peer.offer("PIPELINING")
        await peer.goodbye()

    async with tls_client(script) as client:
        assert client.tls is not None
        assert client.tls.verified
        assert client.tls.version.startswith("TLS")
        assert dict(client.extensions) == {"PIPELINING": ""}


async def test_auto_goes_in_clear_where_starttls_is_not_offered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.goodbye()

    async with tls_client(script) as client:
        assert client.tls is None


async def test_none_never_starts_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.goodbye()

    async with tls_client(script, tls="none") as client:
        assert client.tls is None


async def test_implicit() -> None:
    async def script(peer: Peer) -> None:
        await peer.start_tls()
        await peer.greet("PIPELINING")
        await peer.goodbye()

    async with tls_client(script, tls="implicit") as client:
        assert client.tls is not None
    async with tls_client(script, port=465) as client:
        assert client.tls is not None


@pytest.mark.parametrize("tls", ["auto", "starttls"])
async def test_starttls_refused_is_an_error_and_nothing_goes_in_clear(tls: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS", "AUTH PLAIN")
        await peer.hear("STARTTLS")
        await peer.say("454 4.7.0 not now")
        await peer.goodbye()

    error = await refused(trio_smtp.TLSError, script, tls=tls, auth=("me", "secret"))
    assert error.reply == Reply(454, "not now", "4.7.0")
    assert error.stage == "starttls"


async def test_starttls_required_and_not_offered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH PLAIN")
        await peer.goodbye()

    error = await refused(trio_smtp.TLSError, script, "does not offer STARTTLS", tls="starttls", auth=("me", "secret"))
    assert error.stage == "starttls"


@pytest.mark.parametrize("injected", [b"250-evil\r\n250 AUTH PLAIN\r\n", b"2"])
@pytest.mark.parametrize("tls", ["auto", "opportunistic"])
async def test_words_in_clear_behind_the_answer_to_starttls(injected: bytes, tls: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.send(b"220 go\r\n" + injected)
        await peer.closed()

    await refused(trio_smtp.TLSError, script, "spoke before the TLS handshake", tls=tls)


async def test_certificate_for_another_name() -> None:
    async def script(peer: Peer) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await starttls(peer)

    peer = Peer()
    with pytest.raises(trio_smtp.TLSError, match="certificate is not valid") as caught:  # noqa: PT012
        async with trio.open_nursery() as nursery:
            nursery.start_soon(script, peer)
            try:
                async with trio_smtp.open_client(
                    "other.test", stream=peer.far, ssl_context=client_context(), local_hostname="me.test"
                ):
                    pass
            except trio_smtp.TLSError as exc:
                error = exc
        raise error
    assert caught.value.stage == "starttls"
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_server_in_clear_where_tls_was_expected() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        await peer.aclose()

    await refused(trio_smtp.TLSError, script, "does not speak TLS from the start", tls="implicit")


async def test_handshake_that_hangs_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        with pytest.raises(EOFError):
            await peer.line()

    started = trio.current_time()
    error = await refused(trio_smtp.SMTPTimeoutError, script)
    assert trio.current_time() - started == pytest.approx(60)
    assert error.stage == "starttls"


async def test_opportunistic_takes_any_certificate_but_no_credentials_with_it() -> None:
    async def script(peer: Peer) -> None:
        await starttls(peer)
        await peer.offer("AUTH PLAIN")
        await peer.goodbye()

    async with tls_client(script, tls="opportunistic", ssl_context=None) as client:
        assert client.tls is not None
        assert not client.tls.verified
    await refused(trio_smtp.UnsupportedAuthError, script, tls="opportunistic", ssl_context=None, auth=("me", "secret"))


async def test_opportunistic_goes_on_in_clear_after_a_refusal() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS", "AUTH PLAIN")
        await peer.hear("STARTTLS")
        await peer.say("454 not now")
        await peer.goodbye()

    async with tls_client(script, tls="opportunistic") as client:
        assert client.tls is None
    await refused(trio_smtp.UnsupportedAuthError, script, tls="opportunistic", auth=("me", "secret"))


async def test_opportunistic_after_a_failed_handshake_connects_again_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [Peer(), Peer()]
    streams = iter(peers)

    async def connect(host: str, port: int, **options: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return next(streams).far

    async def first(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.send(b"no TLS here, sorry\r\n")
        await peer.aclose()

    async def second(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.goodbye()

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first, peers[0])
        nursery.start_soon(second, peers[1])
        async with trio_smtp.open_client("mail.test", tls="opportunistic", local_hostname="me.test") as client:
            assert client.tls is None


async def test_opportunistic_with_a_stream_cannot_connect_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(b"no TLS here, sorry\r\n")
        await peer.aclose()

    await refused(trio_smtp.TLSError, script, tls="opportunistic")


async def test_tls_closed_without_close_notify_after_quit() -> None:
    async def script(peer: Peer) -> None:
        await starttls(peer)
        await peer.offer()
        await peer.hear("QUIT")
        await trio.aclose_forcefully(peer.stream)

    async with tls_client(script):
        pass


async def test_requiretls_needs_a_verified_certificate() -> None:
    async def script(peer: Peer) -> None:
        await starttls(peer)
        await peer.offer("REQUIRETLS")
        await peer.goodbye()

    async with tls_client(script, tls="opportunistic", ssl_context=None) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="verified"):
            await client.send("a@x.test", ["b@y.test"], b"x", mail_params={"REQUIRETLS": None})


# -- AUTH


def plain(username: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode()


async def test_auth_plain_under_tls() -> None:
    async def script(peer: Peer) -> None:
        await starttls(peer)
        await peer.offer("AUTH PLAIN LOGIN")
        await peer.hear(plain("me", "secret"))
        await peer.say("235 2.7.0 ok")
        await peer.goodbye()

    async with tls_client(script, auth=("me", "secret")):
        pass


async def test_no_credentials_in_clear() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH PLAIN LOGIN")
        await peer.goodbye()

    error = await refused(trio_smtp.UnsupportedAuthError, script, auth=("me", "secret"))
    assert error.stage == "auth"


async def test_credentials_in_clear_where_allowed() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH PLAIN")
        await peer.hear(plain("me", "secret"))
        await peer.say("235 ok")
        await peer.goodbye()

    async with tls_client(script, auth=("me", "secret"), allow_insecure_auth=True):
        pass


async def test_refused_credentials() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH PLAIN")
        await peer.hear(plain("me", "secret"))
        await peer.say("535 5.7.8 no")
        await peer.goodbye()

    error = await refused(trio_smtp.AuthenticationError, script, auth=("me", "secret"), allow_insecure_auth=True)
    assert error.reply == Reply(535, "no", "5.7.8")
    assert error.stage == "auth"
    assert "secret" not in str(error)


async def test_235_before_scram_is_complete_is_no_success() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH SCRAM-SHA-256")
        assert (await peer.line()).startswith("AUTH SCRAM-SHA-256 ")
        await peer.say("235 welcome")
        await peer.goodbye()

    await refused(trio_smtp.AuthenticationError, script, auth=("me", "secret"), allow_insecure_auth=True)


async def test_token_provider_is_asked_once_more_after_a_535() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH XOAUTH2")
        for token, answer in (("old", "535 5.7.8 expired"), ("new", "235 ok")):
            word, mechanism, response = (await peer.line()).split()
            assert (word, mechanism) == ("AUTH", "XOAUTH2")
            assert f"Bearer {token}".encode() in base64.b64decode(response)
            if token == "old":
                await peer.say("334 " + base64.b64encode(b'{"status":"401"}').decode())
                await peer.hear("")
            await peer.say(answer)
        await peer.goodbye()

    tokens = iter(["old", "new"])

    async def provider() -> str:
        await trio.lowlevel.checkpoint()
        return next(tokens)

    async with tls_client(script, auth=trio_smtp.OAuth("me@x.test", provider), allow_insecure_auth=True):
        pass
    assert list(tokens) == []


async def test_second_refusal_is_final_and_says_what_the_server_said() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH XOAUTH2")
        for _ in range(2):
            await peer.line()
            await peer.say("334 " + base64.b64encode(b'{"status":"401"}').decode())
            await peer.hear("")
            await peer.say("535 5.7.8 no")
        await peer.goodbye()

    asked = 0

    async def provider() -> str:
        nonlocal asked
        await trio.lowlevel.checkpoint()
        asked += 1
        return f"token{asked}"

    error = await refused(
        trio_smtp.AuthenticationError,
        script,
        auth=trio_smtp.OAuth("me@x.test", provider),
        allow_insecure_auth=True,
    )
    assert asked == 2
    assert '{"status":"401"}' in str(error)


async def test_xoauth_token_is_sent_as_it_is() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH XOAUTH")
        await peer.hear("AUTH XOAUTH R0VUIGh0dHBz")
        await peer.say("235 ok")
        await peer.goodbye()

    async with tls_client(script, auth=trio_smtp.XOAuth("R0VUIGh0dHBz"), allow_insecure_auth=True):
        pass


async def test_no_mechanism_in_common() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("AUTH GSSAPI")
        await peer.goodbye()

    await refused(trio_smtp.UnsupportedAuthError, script, auth=("me", "secret"), allow_insecure_auth=True)


@pytest.mark.parametrize("tls", ["opportunistic", "starttls"])
async def test_stalled_handshake_and_what_an_opportunist_does_then(tls: str) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    sessions = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal sessions
        sessions += 1
        await stream.send_all(b"220 mail.test\r\n")
        while data := await stream.receive_some():
            if data.startswith(b"EHLO"):
                await stream.send_all(b"250-mail.test\r\n250 STARTTLS\r\n")
            elif data.startswith(b"STARTTLS"):
                await stream.send_all(b"220 go\r\n")
            elif data.startswith(b"QUIT"):
                await stream.send_all(b"221 bye\r\n")

    config = trio_smtp.ClientConfig(tls_handshake_timeout=0.1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        opened = trio_smtp.open_client("127.0.0.1", port, tls=tls, config=config, local_hostname="me.test")  # type: ignore[arg-type]
        if tls == "opportunistic":
            async with opened as client:
                assert client.tls is None
            assert sessions == 2
        else:
            with pytest.raises(trio_smtp.SMTPTimeoutError, match=r"127\.0\.0\.1:\d+ within 0\.1 seconds") as caught:
                await opened.__aenter__()
            assert caught.value.stage == "starttls"
        nursery.cancel_scope.cancel()


async def test_impossible_host_names() -> None:
    with pytest.raises(trio_smtp.ConnectError, match="cannot be looked up") as caught:
        await trio_smtp.open_client("a..b").__aenter__()
    assert (caught.value.stage, caught.value.delivery) == ("connect", Delivery.NOT_SENT)

    near, far = trio.testing.memory_stream_pair()
    with pytest.raises(trio_smtp.TLSError, match="no name for a certificate"):
        await trio_smtp.open_client(".b", stream=near, tls="implicit").__aenter__()
    assert await far.receive_some() == b""


@pytest.mark.parametrize(
    ("own", "hello"),
    [
        ("shop_web_1.shop_default", "[192.0.2.1]"),
        ("a..b", "[192.0.2.1]"),
        (".example.test", "[192.0.2.1]"),
        ("-a.example.test", "[192.0.2.1]"),
        ("müller.test", "[192.0.2.1]"),
        ("a" * 64 + ".test", "[192.0.2.1]"),
        ("a." * 128 + "test", "[192.0.2.1]"),
        ("192.0.2.9", "[192.0.2.1]"),
        ("mail.123", "[192.0.2.1]"),
        ("mail.1a", "mail.1a"),
        ("mail.example.test.", "mail.example.test"),
        ("mail-1.example.test", "mail-1.example.test"),
    ],
)
async def test_own_name_that_is_no_domain_gives_the_address_literal(
    monkeypatch: pytest.MonkeyPatch, own: str, hello: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: own)
    transport: Any = SimpleNamespace(local=("192.0.2.1", 12345))
    assert await opening._own_name(transport) == hello


async def test_starttls_is_seen_in_lines_that_end_in_cr_cr_lf_and_the_final_dot_is_no_part_of_the_certificate() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"220 hi\r\n\r\n")
        await peer.line()
        await peer.send(b"250-mail.test\r\r\n250-8BITMIME\r\r\n250 STARTTLS\r\r\n\r\n")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.start_tls()
        await peer.line()
        await peer.offer("8BITMIME")
        await peer.goodbye()

    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        async with trio_smtp.open_client(
            f"{NAME}.", stream=peer.far, ssl_context=client_context(), local_hostname="me.test"
        ) as client:
            assert client.tls is not None
            assert "8BITMIME" in client.extensions


async def test_blank_lines_between_replies_are_borne() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"220 hi\r\n")
        await peer.line()
        await peer.send(b"\r\n250-mail.test\r\n250 PIPELINING\r\n\n")
        for _ in range(2):
            await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
            await peer.send(b"250 ok\r\n\r\n250 ok\r\n\r\n\r\n354 go\r\n\r\n")
            await peer.text()
            await peer.send(b"\r\n250 taken\r\n\r\n")
        await peer.goodbye()

    async with client_and(script) as client:
        for _ in range(2):
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")


async def test_a_421_behind_the_answer_to_hello_is_the_end_of_the_session_and_no_breach() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 mail.test")
        await peer.hear("EHLO me.test")
        await peer.say("250-mail.test", "250 AUTH PLAIN", "421 4.3.2 going down")
        await peer.drain()

    options = {"auth": ("me", "secret"), "allow_insecure_auth": True, "tls": "none"}
    error = await refused(trio_smtp.ConnectionLostError, script, "going down", **options)
    assert error.reply == Reply(421, "going down", "4.3.2")
    assert error.stage == "auth"
