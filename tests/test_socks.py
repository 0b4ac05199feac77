"""Connections through a SOCKS proxy: ours and curl's through the same one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
from cli_process import LIMIT, tool
from socks_server import open_socks
from tls_support import client_context

import trio_smtp
from trio_smtp import ConnectError, Delivery, Stage
from trio_smtp.socks import connect_through
from trio_smtp.testing import make_certificates, open_sink

USER = ("me", "p@ss:w/ord")
LOGIN = "me:p%40ss%3Aw%2Ford"
TEXT = b"From: me@x.test\r\nSubject: hi\r\n\r\nhello\r\n"


def client(connect: Any, host: str = "mail.test", port: int = 25, **options: Any) -> Any:
    return trio_smtp.open_client(host, port, connect=connect, local_hostname="client.test", **options)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4a"])
async def test_the_proxy_looks_the_name_up(scheme: str) -> None:
    async with open_sink() as sink, open_socks() as proxy:
        proxy.routes["mail.test", 25] = (sink.host, sink.port)
        async with client(connect_through(f"{scheme}://127.0.0.1:{proxy.port}")) as connection:
            await connection.send("me@x.test", ["you@y.test"], TEXT)
    assert proxy.wanted == [("mail.test", 25)]
    assert sink.messages[0].content == TEXT


@pytest.mark.parametrize("scheme", ["socks5", "socks4"])
async def test_an_address(scheme: str) -> None:
    async with (
        open_sink() as sink,
        open_socks() as proxy,
        client(connect_through(f"{scheme}://127.0.0.1:{proxy.port}"), sink.host, sink.port) as connection,
    ):
        await connection.send("me@x.test", ["you@y.test"], TEXT)
    assert proxy.wanted == [(sink.host, sink.port)]
    assert len(sink.messages) == 1


async def test_a_pool_with_tls_and_a_login_at_the_proxy() -> None:
    """The certificate's name is that of the server, not of the proxy; and the messages are many."""
    certificates = make_certificates("mail.test")
    async with open_sink(tls="starttls", certificates=certificates) as sink, open_socks(USER) as proxy:
        proxy.routes["mail.test", 25] = (sink.host, sink.port)
        options: dict[str, Any] = {"tls": "starttls", "ssl_context": certificates.client_context()}
        url = f"socks5://{LOGIN}@127.0.0.1:{proxy.port}"
        async with (
            trio_smtp.open_pool("mail.test", connect=connect_through(url), max_connections=2, **options) as pool,
            pool.send_many(("me@x.test", ["you@y.test"], TEXT) for _ in range(20)) as outcomes,
        ):
            assert [outcome.error async for outcome in outcomes] == [None] * 20
    assert len(sink.messages) == 20
    assert sink.messages[0].tls is not None
    assert set(proxy.wanted) == {("mail.test", 25)}


async def test_a_certificate_is_checked_behind_a_proxy() -> None:
    async with open_sink(tls="starttls", certificates=make_certificates("mail.test")) as sink, open_socks() as proxy:
        proxy.routes["mail.test", 25] = (sink.host, sink.port)
        connect = connect_through(f"socks5://127.0.0.1:{proxy.port}")
        with pytest.raises(trio_smtp.TLSError):
            async with client(connect, tls="starttls", ssl_context=client_context()):
                raise AssertionError("a stranger's certificate was taken")


async def test_curl_goes_the_same_way(tmp_path: Path) -> None:
    curl = tool("curl")
    (tmp_path / "message").write_bytes(TEXT)
    async with open_sink() as sink, open_socks(USER) as proxy:
        proxy.routes["mail.test", 25] = (sink.host, sink.port)
        command = [curl, "--silent", "--show-error", "--proxy", f"socks5h://{LOGIN}@127.0.0.1:{proxy.port}"]
        command += ["smtp://mail.test:25", "--mail-from", "me@x.test", "--mail-rcpt", "you@y.test"]
        command += ["--upload-file", str(tmp_path / "message")]
        with trio.fail_after(LIMIT):
            done = await trio.run_process(command, capture_stderr=True, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        async with client(connect_through(f"socks5://{LOGIN}@127.0.0.1:{proxy.port}")) as connection:
            await connection.send("me@x.test", ["you@y.test"], TEXT)
    assert proxy.wanted == [("mail.test", 25)] * 2
    assert [message.content for message in sink.messages] == [TEXT] * 2


@pytest.mark.parametrize("cut", ["method", "login", "request"])
async def test_a_proxy_that_hangs_up(cut: str) -> None:
    async with open_socks(USER) as proxy:
        proxy.cut = cut
        with pytest.raises(ConnectError, match=r"through socks5://127\.0\.0\.1") as caught:
            async with client(connect_through(f"socks5://{LOGIN}@127.0.0.1:{proxy.port}")):
                raise AssertionError("it opened")
    assert (caught.value.stage, caught.value.delivery) == (Stage.CONNECT, Delivery.NOT_SENT)
    assert "p@ss" not in str(caught.value)


@pytest.mark.parametrize(("url", "failure"), [("socks5", 2), ("socks5", 5), ("socks4a", 91), ("socks4a", 93)])
async def test_a_proxy_that_refuses(url: str, failure: int) -> None:
    async with open_socks() as proxy:
        proxy.failure = failure
        with pytest.raises(ConnectError):
            async with client(connect_through(f"{url}://127.0.0.1:{proxy.port}")):
                raise AssertionError("it opened")


@pytest.mark.parametrize("login", ["", "me:wrong@"])
async def test_a_wrong_login_at_the_proxy(login: str) -> None:
    async with open_socks(USER) as proxy:
        with pytest.raises(ConnectError) as caught:
            async with client(connect_through(f"socks5://{login}127.0.0.1:{proxy.port}")):
                raise AssertionError("it opened")
    assert "wrong" not in str(caught.value)
    assert not proxy.wanted


async def test_no_proxy_and_nothing_behind_it() -> None:
    async with open_socks() as proxy:
        nowhere = proxy.port
    with pytest.raises(ConnectError, match="through socks5"):
        async with client(connect_through(f"socks5://127.0.0.1:{nowhere}")):
            raise AssertionError("it opened")
    async with open_socks() as proxy:
        with pytest.raises(ConnectError):
            async with client(connect_through(f"socks5://127.0.0.1:{proxy.port}"), "127.0.0.1", nowhere):
                raise AssertionError("it opened")


async def test_a_proxy_that_says_nothing_has_the_time_to_connect() -> None:
    async with open_socks() as proxy:
        proxy.stall = True
        config = trio_smtp.ClientConfig(connect_timeout=0.1)
        with pytest.raises(trio_smtp.SMTPTimeoutError, match=r"within 0\.1 seconds"):
            async with client(connect_through(f"socks5://127.0.0.1:{proxy.port}"), config=config):
                raise AssertionError("it opened")
        with trio.fail_after(LIMIT):
            await proxy.gone.wait()  # nothing is left open


async def test_cancelled_nothing_is_left_open() -> None:
    async with open_socks() as proxy:
        proxy.stall = True
        with trio.CancelScope() as scope:

            async def give_up() -> None:
                while not proxy.wanted:
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(give_up)
                async with client(connect_through(f"socks5://127.0.0.1:{proxy.port}")):
                    raise AssertionError("it opened")
        with trio.fail_after(LIMIT):
            await proxy.gone.wait()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1080",
        "http://secret:secret@127.0.0.1:8080",
        "socks5://",
        "socks5://:1080",
        "socks5://secret:secret@host:port",
        "socks5://secret:secret@host:99999",
        "socks5://secret:secret@host:0",
        "socks5://secret@host",
        "socks4a://me:secret@host",
        "socks5://host/secret",
        "socks5://host?secret",
        "socks5://[secret",
    ],
)
def test_what_is_no_url_of_a_proxy(url: str) -> None:
    with pytest.raises(ValueError, match="proxy's URL|SOCKS 4") as caught:  # noqa: RUF043
        connect_through(url)
    assert "secret" not in str(caught.value)
    with pytest.raises(TypeError):
        connect_through(None)  # type: ignore[arg-type]


def test_the_password_is_not_shown() -> None:
    through = connect_through(f"socks5://{LOGIN}@[::1]")
    assert repr(through) == "<trio_smtp.socks.connect_through socks5://[::1]:1080>"
