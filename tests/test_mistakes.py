"""The mistakes of people who begin, made one by one: each has a message that says what is wrong and what to do.

docs/mistakes.md has them as tables; here is how each is made.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from cli_process import run
from test_cli_send import script

import trio_smtp
from trio_smtp import ClientConfig, Discard, Reject, ServerConfig, open_client, open_pool, serve
from trio_smtp.testing import open_sink

DOCS = Path(__file__).parent.parent / "docs" / "mistakes.md"
TABLE = dict(re.findall(r"^\| (.+?) \| `(.+)` \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
LETTER = b"Subject: x\r\n\r\nx\r\n"
MISTAKES: dict[str, Callable[[], Any]] = {}


def mistake(name: str):
    """Note how a mistake of the page is made: by an async function under Trio, or by a plain one."""

    def decorate(function: Callable[[], Any]) -> Callable[[], Any]:
        MISTAKES[f"{name}"] = function
        return function

    return decorate


def under_trio(name: str):
    def decorate(function: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        MISTAKES[name] = partial(trio.run, function)
        return function

    return decorate


def words_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", TABLE)
def test_the_message_is_that_of_the_page(name: str) -> None:
    make = MISTAKES[name]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        try:
            said = make() or ""
        except Exception as exc:
            said = words_of(exc)
        for warning in warned:
            if warning.category is UserWarning:
                assert warning.filename == __file__  # it points to the caller
                said = f"UserWarning: {warning.message}"
    pattern = ".*".join(re.escape(part) for part in TABLE[name].split("…"))
    assert re.fullmatch(pattern, said.strip()), said


def test_the_page_has_all_of_them() -> None:
    assert MISTAKES.keys() == TABLE.keys()


# --- in a program ---


@mistake("`open_client()` under asyncio")
def _():
    async def main():
        async with open_client("localhost", 25):
            pass

    asyncio.run(main())


@mistake("`open_pool()` under asyncio")
def _():
    async def main():
        async with open_pool("localhost", 25):
            pass

    asyncio.run(main())


@mistake("`serve()` under asyncio")
def _():
    asyncio.run(serve(Discard(), 0))


@under_trio("`open_client()` without `async with`")
async def _():
    client: Any = open_client("localhost", 25)
    await client.send("a@example.com", ["b@example.com"], LETTER)


@under_trio("`open_pool()` without `async with`")
async def _():
    pool: Any = open_pool("localhost", 25)
    await pool.send("a@example.com", ["b@example.com"], LETTER)


@under_trio("`await open_client()`")
async def _():
    client: Any = open_client("localhost", 25)
    await client


@under_trio("`async for ... in open_client()`")
async def _():
    client: Any = open_client("localhost", 25)
    async for _ in client:
        pass


@under_trio("`with open_client()`")
async def _():
    client: Any = open_client("localhost", 25)
    with client:
        pass


async def with_client(use, server_config=None, **options):
    async with open_sink(config=server_config) as sink, open_client(sink.host, sink.port, **options) as client:
        await use(client)


@under_trio('`send_message("text")`')
async def _():
    await with_client(lambda client: client.send_message("text"))


@mistake('`Reject("550 no")`')
def _():
    wrong: Any = "550 no"
    raise Reject(wrong)


def to(recipients: Any):
    return with_client(lambda client: client.send("me@example.com", recipients, LETTER))


MISTAKES["a display name in an address"] = partial(trio.run, to, ["Me <a@example.com>"])
MISTAKES["several addresses in one"] = partial(trio.run, to, ["a@example.com,b@example.com"])
MISTAKES["`mailto:` in an address"] = partial(trio.run, to, ["mailto:a@example.com"])
MISTAKES["one address as `recipients`"] = partial(trio.run, to, "a@example.com")


@mistake("an extra that is not installed")
def import_without_its_library() -> str:
    code = "import sys; sys.modules['dkim'] = None\nimport trio_smtp.dkim"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stderr.splitlines()[-1]


@under_trio("a mapping as a sink's login")
async def mapping_as_a_login():
    async with open_sink(auth={"me": "secret"}):  # type: ignore[arg-type]
        pass


async def client_of(host: str):
    async with open_client(host):
        pass


async def pool_of(host: str):
    async with open_pool(host) as pool:
        await pool.send("a@example.com", ["b@example.com"], LETTER)


MISTAKES["host and port in one"] = partial(trio.run, client_of, "mail.example.com:25")
MISTAKES["host and port in one, for a pool"] = partial(trio.run, pool_of, "mail.example.com:25")
MISTAKES["a URL as the host"] = partial(trio.run, client_of, "smtp://mail.example.com")
MISTAKES["an address in brackets as the host"] = partial(trio.run, client_of, "[::1]")


@under_trio("a file's name as the content")
async def _():
    async with open_sink() as sink, open_client(sink.host, sink.port) as client:
        await client.send("a@example.com", ["b@example.com"], "letter.eml")


@contextmanager
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@under_trio("a port in use")
async def _():
    with taken_port() as port:
        await serve(Discard(), port, host="127.0.0.1")


async def serve_on(port: Any):
    with trio.move_on_after(1):
        await serve(Discard(), port, host="127.0.0.1")


MISTAKES["a port as text"] = partial(trio.run, serve_on, "2525")
MISTAKES["a port that is none"] = partial(trio.run, serve_on, 70000)


# --- what the server says ---


@under_trio("a self-signed certificate")
async def _():
    async with open_sink(tls="implicit") as sink, open_client("127.0.0.1", sink.port, tls="implicit"):
        pass


@under_trio("another name than the certificate's")
async def _():
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("mail.example.com").configure_cert(server)
    authority.configure_trust(client)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve, Discard(), 0, host="127.0.0.1", ssl_context=server, implicit_tls=True)
        )
        port = listeners[0].socket.getsockname()[1]
        async with open_client("127.0.0.1", port, tls="implicit", ssl_context=client):
            pass


@under_trio("AUTH where it is not offered")
async def _():
    await with_client(lambda client: client.noop(), auth=("me", "secret"), allow_insecure_auth=True)


@under_trio("AUTH where it is offered after STARTTLS only")
async def _():
    async with (
        open_sink(tls="starttls", auth=("me", "secret")) as sink,
        open_client(sink.host, sink.port, tls="none", auth=("me", "secret")),
    ):
        pass


def sending(port):
    trio.run(send_to, port)


def in_a_dialogue(main, **answers):
    """With a server that gives these answers, in a thread."""

    def make():
        with script(**answers) as server:
            return main(server.port)

    return make


async def send_to(port):
    async with open_client("127.0.0.1", port, local_hostname="client.example.com") as client:
        await client.send("a@example.com", ["b@example.com"], LETTER)


NO_MAIL = b"530 5.7.0 Authentication required"
MISTAKES["no login where one is wanted"] = in_a_dialogue(sending, MAIL=NO_MAIL)
MISTAKES["a name that EHLO is refused for"] = in_a_dialogue(sending, EHLO=b"501 no such name", HELO=b"501 no such name")


@under_trio("no TLS to a port that wants it at once")
async def _():
    config = ClientConfig(greeting_timeout=0.05)
    async with open_sink(tls="implicit") as sink, open_client(sink.host, sink.port, config=config):
        pass


@under_trio("TLS to a port that does not want it at once")
async def _():
    async with open_sink() as sink, open_client(sink.host, sink.port, tls="implicit"):
        pass


@under_trio("STARTTLS where it is not offered")
async def _():
    await with_client(lambda client: client.noop(), tls="starttls")


@under_trio("8-bit octets to a server without 8BITMIME")
async def _():
    config = ServerConfig(disabled_extensions=["8BITMIME", "SMTPUTF8"])
    content = "Subject: x\r\n\r\ncafé\r\n".encode()
    await with_client(lambda client: client.send("a@example.com", ["b@example.com"], content), config)


# --- on the command line ---


@mistake("`serve` on a port in use")
def _():
    with taken_port() as port:
        return run("serve", "--port", port, "--discard").stderr


@mistake("`serve` on a forbidden port")
def _():
    # Root may listen anywhere, so the system's answer is put in its place.
    import errno

    from trio_smtp._wire import listening

    error = listening._named(PermissionError(errno.EACCES, "Permission denied"), "127.0.0.1", 25)
    assert isinstance(error, PermissionError)
    from trio_smtp._cli import sockets

    return f"trio-smtp: {sockets._why(error)}"


@mistake("`send` to a self-signed certificate")
def _():
    async def main():
        async with open_sink(tls="implicit") as sink:
            return await trio.to_thread.run_sync(
                partial(send, sink.port, "--from", "a@example.com", "--to", "b@example.com", "--tls", "implicit")
            )

    return trio.run(main)


def send(port, *args, stdin=LETTER):
    return run("send", "--server", f"127.0.0.1:{port}", "--hostname", "client.example.com", *args, stdin=stdin).stderr


ENVELOPE = ("--from", "a@example.com", "--to", "b@example.com")


def send_with_envelope(port):
    return send(port, *ENVELOPE)


MISTAKES["`send` without a login where one is wanted"] = in_a_dialogue(send_with_envelope, MAIL=NO_MAIL)
MISTAKES["`send --auth` where it is not offered"] = in_a_dialogue(
    lambda port: send(port, *ENVELOPE, "--auth", "me:secret")
)


@mistake("`send` to a server that is not there")
def _():
    with taken_port() as port:
        pass
    return send(port, *ENVELOPE)


@mistake("`send` of text without a header")
def _():
    return send(9, stdin=b"Hello\n")


# --- the limit for the greeting ---


@pytest.mark.parametrize(
    ("port", "config", "seconds"),
    [
        (25, {}, 300),
        (587, {}, 30),
        (587, {"submission_greeting_timeout": None}, 300),
        (587, {"greeting_timeout": 5}, 5),
        (2525, {"submission_greeting_timeout": 1}, 300),
    ],
)
async def test_the_greeting_on_submission_ports_has_a_limit_of_its_own(autojump_clock, port, config, seconds):
    ours, theirs = trio.testing.memory_stream_pair()
    began = trio.current_time()
    with pytest.raises(trio_smtp.SMTPTimeoutError, match=f"within {seconds} seconds; if port {port} speaks TLS"):
        async with open_client("mx.example.com", port, stream=ours, config=ClientConfig(**config)):
            pass
    assert trio.current_time() - began == pytest.approx(seconds)
    with suppress(trio.BrokenResourceError):
        await theirs.aclose()


@pytest.mark.parametrize("text", ["Subject: x", "one\r\n", "one\ntwo", "", "X-Y : z"])
async def test_text_that_may_be_a_message_is_no_cause_for_a_warning(text):
    async with open_sink() as sink, open_client(sink.host, sink.port) as client:
        await client.send("a@example.com", ["b@example.com"], text)


@pytest.mark.parametrize(
    "host", ["::1", "fe80::1%eth0", "mail.example.com", "127.0.0.1", "2001:db8::25", "unix:/run/smtp", "unix:25"]
)
def test_hosts_that_are_hosts(host):
    from trio_smtp._client.opening import check_host

    check_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1:25", "localhost:587", "[::1]:25"])
def test_hosts_with_a_port_in_them(host):
    from trio_smtp._client.opening import check_host

    with pytest.raises(ValueError, match="give host"):
        check_host(host)
