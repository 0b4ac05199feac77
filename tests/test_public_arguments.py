"""Arguments of the wrong type: each is refused where it is given, by an error that names it; nothing is done."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_smtp
from trio_smtp import reports, testing
from trio_smtp.inbox import open_inbox

PARTIES: dict[str, Any] = {"sender": "me@example.com", "recipients": ["you@example.com"]}
STRANGE = object()


def name_of(value: object) -> str:
    """What a test is called by: the same in every process."""
    words = repr(value)
    return type(value).__name__ if " at 0x" in words else words


# What messages call an argument, where that is not its name.
WORDS = {
    "username": "user name",
    "handler": "on_data",
    "code": "code of a reply",
    "enhanced": "enhanced code",
    "source": "address and a port",
    "destination": "address and a port",
    "message": "EmailMessage",
    "task_status": "started",
}
# Results, events and objects that the library makes and applications read.
MADE_BY_THE_LIBRARY = {
    "ClientEvent",
    "Credentials",
    "DeliverBy",
    "Envelope",
    "Extensions",
    "Limits",
    "Outcome",
    "PoolStatistics",
    "PreparedMessage",
    "Recipient",
    "Reject",  # as Reply
    "SendResult",
    "Sender",
    "ServerEvent",
    "ServerStatistics",
    "TLSInfo",
    "TraceEvent",
}
# With these the arguments of each are right.
RIGHT: dict[str, dict[str, Any]] = {
    "ClientConfig": {},
    "External": {},
    "OAuth": {"username": "me", "token": "token"},
    "Password": {"username": "me", "password": "secret"},
    "PoolConfig": {},
    "ProxyHeader": {"source": ("192.0.2.1", 1), "destination": ("192.0.2.2", 25)},
    "Reply": {"code": 250},
    "Server": {"handler": trio_smtp.Discard()},
    "ServerConfig": {},
    "ServerExtension": {"keyword": "XFOO"},
    "XOAuth": {"token": "dG9rZW4="},
    "prepare_message": {**PARTIES, "content": b"text\r\n"},
}
OPENED: dict[str, dict[str, Any]] = {
    "open_client": {"host": "mail.test"},
    "open_pool": {"host": "mail.test"},
    "open_tcp_listeners": {"port": 0, "host": "127.0.0.1"},
    "open_unix_listener": {"path": "/nowhere/at/all"},
    "serve": {"handler": trio_smtp.Discard(), "port": 0, "host": "127.0.0.1"},
    "watch_certificates": {"context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "cert": "/nowhere/at/all"},
}
# A truth is a truth, and the name is no argument that can be wrong.
ANY = {("Reply", "close"), ("serve", "task_status")}


def parameters(function: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def every(table: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    names = [(name, argument) for name in table for argument in parameters(getattr(trio_smtp, name))]
    return [pair for pair in names if pair not in ANY]


def named(argument: str) -> str:
    return f"(?i){WORDS.get(argument, argument)}|{argument.replace('_', ' ')}"


def test_the_tables_have_every_public_function_and_class() -> None:
    public = {name for name in trio_smtp.__all__ if inspect.isfunction(getattr(trio_smtp, name))}
    public |= {
        name
        for name, value in vars(trio_smtp).items()
        if name in trio_smtp.__all__ and dataclasses.is_dataclass(value) and isinstance(value, type)
    }
    without_arguments = {"forward", "inherited_listeners"}  # forward takes a pool, and has a test of its own
    assert public - without_arguments - MADE_BY_THE_LIBRARY <= set(RIGHT) | set(OPENED)


@pytest.mark.parametrize(("name", "argument"), every(RIGHT))
def test_a_value_is_not_made(name: str, argument: str) -> None:
    make = getattr(trio_smtp, name)
    make(**RIGHT[name])
    with pytest.raises((TypeError, ValueError), match=named(argument)):
        make(**{**RIGHT[name], argument: STRANGE})


async def open_it(name: str, given: dict[str, Any]) -> None:
    opening = getattr(trio_smtp, name)(**given)
    if not isinstance(opening, AbstractAsyncContextManager):
        await opening
        return
    async with opening:
        raise AssertionError("it was opened")


@pytest.mark.parametrize(("name", "argument"), every(OPENED))
async def test_nothing_is_opened(name: str, argument: str) -> None:
    with trio.fail_after(5), pytest.raises((TypeError, ValueError), match=named(argument)):
        await open_it(name, {**OPENED[name], argument: STRANGE})


SENDING = ("send", "send_message", "transaction")
CALLS = [
    (call, argument)
    for call in SENDING
    for argument in parameters(getattr(trio_smtp.Client, call))
    if argument not in ("mail_params", "rcpt_params")  # these are below
]


async def use(client: trio_smtp.Client | trio_smtp.Pool, call: str, **given: Any) -> None:
    message = EmailMessage()
    message["From"], message["To"] = "me@example.com", "you@example.com"
    right = {"send": {**PARTIES, "content": b"text\r\n"}, "send_message": {"message": message}, "transaction": PARTIES}
    call_it = getattr(client, call)(**{**right[call], **given})
    if call == "transaction":
        async with call_it as text:
            await text.send_all(b"text\r\n")
    else:
        await call_it


async def on_a_client(attempt: Callable[[trio_smtp.Client], Awaitable[None]]) -> None:
    """Attempt it; it must raise, send nothing, and leave the client as good as new."""
    async with (
        testing.open_sink() as sink,
        trio_smtp.open_client("mail.test", stream=sink.connect(), local_hostname="me.test") as client,
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            await attempt(client)
        await client.send(**PARTIES, content=b"text\r\n")
        assert len(sink.messages) == 1
    raise caught.value


@pytest.mark.parametrize(("call", "argument"), CALLS)
async def test_nothing_is_sent(call: str, argument: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named(argument)):
        await on_a_client(lambda client: use(client, call, **{argument: STRANGE}))


@pytest.mark.parametrize("call", SENDING)
@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("sender", b"me@example.com", "sender must be of type str, not b'me@example.com'"),
        ("recipients", 5, "recipients is an iterable of addresses, not 5"),
        ("recipients", [5], "an address must be a str, not int"),
        ("mail_params", ["SIZE=5"], "mail_params must be of type collections.abc.Mapping"),
        ("mail_params", "", "mail_params must be of type"),
        ("rcpt_params", 5, "rcpt_params must be of type collections.abc.Mapping"),
        ("rcpt_params", {"you@example.com": "NOTIFY=NEVER"}, r"rcpt_params\['you@example.com'\] must be of type"),
    ],
)
async def test_an_envelope_of_the_wrong_type(call: str, argument: str, value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        await on_a_client(lambda client: use(client, call, **{argument: value}))


async def test_what_recipients_raise_while_they_are_read_is_raised() -> None:
    def addresses() -> Any:
        yield "you@example.com"
        raise TypeError("of the application's own")

    with pytest.raises(TypeError, match="of the application's own"):
        await on_a_client(lambda client: use(client, "send", recipients=addresses()))


@pytest.mark.parametrize("jobs", [None, 5, "text", b"text", EmailMessage()], ids=name_of)
async def test_jobs_that_are_none(jobs: Any) -> None:
    async with trio_smtp.open_pool("mail.test") as pool:
        with pytest.raises(TypeError, match="jobs must be an iterable or async iterable of jobs, not"):
            async with pool.send_many(jobs):
                raise AssertionError("it was begun")


@pytest.mark.parametrize("falsy", [0, "", {}, False], ids=repr)
def test_a_falsy_configuration_is_not_the_default(falsy: Any) -> None:
    with pytest.raises(TypeError, match=r"config must be of type trio_smtp\.ServerConfig or None"):
        trio_smtp.Server(trio_smtp.Discard(), config=falsy)


@pytest.mark.parametrize("value", ["no", 1, None], ids=repr)
def test_a_switch_is_true_or_false(value: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(TypeError, match="implicit_tls must be True or False"):
        trio_smtp.Server(trio_smtp.Discard(), ssl_context=context, implicit_tls=value)


@pytest.mark.parametrize("text", [b"text", [b"text"], [1], 5, None], ids=repr)
def test_the_text_of_a_reply(text: Any) -> None:
    for make in (trio_smtp.Reply, trio_smtp.Reject):
        with pytest.raises(TypeError, match=r"a reply.*not (b'text'|1|5|None)"):
            make(550, text)


def test_a_number_that_is_too_large() -> None:
    """The clock counts in floats, SIZE has twenty digits (RFC 1870 section 4)."""
    for config in (trio_smtp.ServerConfig, trio_smtp.ClientConfig):
        with pytest.raises(ValueError, match="command_timeout must be at most"):
            config(command_timeout=10**400)
    with pytest.raises(ValueError, match="retry_delay must be at most"):
        trio_smtp.PoolConfig(retry_delay=10**400)
    assert trio_smtp.ServerConfig(max_message_size=10**20 - 1)
    with pytest.raises(ValueError, match="max_message_size must be at most 99999999999999999999"):
        trio_smtp.ServerConfig(max_message_size=10**20)


@pytest.mark.parametrize("value", [None, math.inf])
@pytest.mark.parametrize("name", ["end_grace", "quit_timeout"])
def test_what_bounds_a_cancellation_is_finite(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{name} .*it bounds what happens under cancellation"):
        trio_smtp.ClientConfig(**{name: value})


@pytest.mark.parametrize("name", ["proxy_protocol_from", "xclient_from"])
@pytest.mark.parametrize("value", [b"\x0a", [10], [b"\x0a\x00\x00\x01"], [True]], ids=repr)
def test_a_network_is_no_number(name: str, value: Any) -> None:
    """``ipaddress`` takes 10 for 0.0.0.10, whose clients would be trusted."""
    with pytest.raises(TypeError, match=name):
        trio_smtp.ServerConfig(**{name: value})


@pytest.mark.parametrize("address", ["", "a b", "\0", "é", "a..b", "x" * 64], ids=ascii)
def test_a_local_address_that_cannot_be_one(address: str) -> None:
    with pytest.raises(ValueError, match="local_address"):
        trio_smtp.ClientConfig(local_address=address)


async def test_a_server_without_listeners_says_so() -> None:
    """``inherited_listeners()`` is empty where no service manager has started the program."""
    server = trio_smtp.Server(trio_smtp.Discard())
    with pytest.raises(ValueError, match="listeners is empty: there is nothing to listen on"):
        await server.serve_listeners([])
    for wrong in (5, [5]):
        with pytest.raises(TypeError, match="listeners must be"):
            await server.serve_listeners(wrong)  # type: ignore[arg-type]


async def test_a_stream_that_is_none() -> None:
    server = trio_smtp.Server(trio_smtp.Discard())
    with pytest.raises(TypeError, match=r"stream must be of type trio\.abc\.Stream, not 5"):
        await server.serve_stream(5)  # type: ignore[arg-type]
    assert server.statistics().total_connections == 0


@pytest.mark.parametrize("grace", [None, "30", -1, math.nan, 10**400], ids=repr)
async def test_a_grace_that_is_none(grace: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="grace must be"):
        await trio_smtp.Server(trio_smtp.Discard()).shutdown(grace=grace)


@pytest.mark.parametrize("path", ["", "a\0b"], ids=repr)
async def test_a_path_that_cannot_be_one(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path cannot be a path"):
        await trio_smtp.open_unix_listener(path)
    for mode in (-1, 0o10000, 10**40):
        with pytest.raises(ValueError, match="mode must be"):
            await trio_smtp.open_unix_listener(tmp_path / "smtp", mode=mode)


@pytest.mark.parametrize("interval", [0, -1, None, math.nan], ids=repr)
async def test_an_interval_that_is_none(interval: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises((TypeError, ValueError), match="interval must be"):
        await trio_smtp.watch_certificates(context, "/nowhere/at/all", interval=interval)


POINTS: list[tuple[str, Any]] = [
    ("stage", 5),
    ("stage", "connect"),
    ("share", "half"),
    ("share", None),
    ("rate", 5),
    ("rate", ("a", "b")),
    ("rate", ""),
    ("times", 1.5),
    ("times", "twice"),
]


@pytest.mark.parametrize(("argument", "value"), [*POINTS, ("seconds", "5"), ("seconds", None)], ids=repr)
async def test_a_fault_point_that_could_not_be(argument: str, value: object) -> None:
    async with testing.open_sink() as sink:
        with pytest.raises((TypeError, ValueError), match=argument):
            sink.stall(**{"stage": "rcpt", argument: value})  # type: ignore[arg-type]
        assert not sink.points


@pytest.mark.parametrize("count", ["x", None, 1.5, True], ids=repr)
async def test_a_number_of_messages_that_is_none(count: Any) -> None:
    async with testing.open_sink() as sink:
        with pytest.raises(TypeError, match="count must be a whole number, not"):
            await sink.wait_for(count)


@pytest.mark.parametrize("argument", ["to", "sender", "subject"])
@pytest.mark.parametrize("value", [5, None, b"x"], ids=repr)
async def test_a_message_that_cannot_be_waited_for(argument: str, value: Any) -> None:
    async with open_inbox() as inbox:
        with pytest.raises(TypeError, match=f"{argument} must be a str, not {value!r}"):
            await inbox.wait_for(**{argument: value})


@pytest.mark.parametrize("timeout", ["x", True], ids=repr)
def test_a_timeout_that_is_none(timeout: Any) -> None:
    with testing.run_sink() as sink, pytest.raises(TypeError, match="timeout must be a number of seconds or None, not"):
        sink.wait_for(0, timeout=timeout)


@pytest.mark.parametrize("opening", [testing.open_sink, partial(testing.open_server, trio_smtp.Discard()), open_inbox])
@pytest.mark.parametrize("config", [5, "", {}], ids=repr)
async def test_a_test_server_with_a_configuration_that_is_none(opening: Any, config: object) -> None:
    with pytest.raises(TypeError, match=r"config (must be of type|is a) trio_smtp\.ServerConfig or None"):
        async with opening(config=config):
            raise AssertionError("it was opened")


@pytest.mark.parametrize("offered", [5, 0, "SIZE", ["SIZE"], {1: "x"}, {"SIZE": 5}, {"X": None}], ids=repr)
def test_extensions_that_are_none(offered: Any) -> None:
    with pytest.raises(TypeError, match=r"offered must be a mapping (or None|of str to str), not"):
        trio_smtp.Extensions(offered)


@pytest.mark.parametrize("argument", ["stage", "delivery"])
@pytest.mark.parametrize("value", [0, "", "somewhere", [], STRANGE], ids=name_of)
def test_an_error_at_no_stage(argument: str, value: Any) -> None:
    for error in (trio_smtp.SMTPError, trio_smtp.ConnectError):
        with pytest.raises(ValueError, match=f"{argument} must be one of '"):
            error("no", **{argument: value})


def test_an_error_with_the_words_of_its_stage_and_its_delivery() -> None:
    error = trio_smtp.SMTPError("no", stage="mail", delivery="unknown")  # type: ignore[arg-type]
    assert (error.stage, error.delivery) == (trio_smtp.Stage.MAIL, trio_smtp.Delivery.UNKNOWN)
    assert repr(error) == "SMTPError('no', stage='mail', delivery='unknown')"
    with pytest.raises(TypeError, match=r"reply must be a trio_smtp\.Reply or None, not 550"):
        trio_smtp.SMTPError("no", reply=550)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [None, 1.5, "1", 0, True], ids=repr)
def test_a_size_that_is_none(size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="size"):
        testing.Split(size)


@pytest.mark.parametrize("argument", ["outcome", "envelope", "reporting_mta", "content", "arrived", "retry_until"])
def test_a_report_of_the_wrong_type(argument: str) -> None:
    right: dict[str, Any] = {
        "outcome": trio_smtp.RecipientsRefusedError("no"),
        "envelope": trio_smtp.Envelope(trio_smtp.Sender("me@example.com")),
        "reporting_mta": "mail.test",
    }
    with pytest.raises((TypeError, ValueError), match=argument):
        reports.make_report(**{**right, argument: STRANGE})


@pytest.mark.parametrize(
    "call",
    [
        lambda: trio_smtp.Server(trio_smtp.Discard()).serve_stream(STRANGE),  # type: ignore[arg-type]
        lambda: trio_smtp.Server(trio_smtp.Discard()).serve_listeners([]),
        lambda: trio_smtp.open_unix_listener("/nowhere/at/all"),
        lambda: trio_smtp.open_tcp_listeners(0),
    ],
    ids=["serve_stream", "serve_listeners", "open_unix_listener", "open_tcp_listeners"],
)
def test_without_trio_it_says_so(call: Callable[[], Awaitable[object]]) -> None:
    async def main() -> None:
        await call()

    with pytest.raises(RuntimeError, match=r"needs Trio: start the program with trio\.run"):
        asyncio.run(main())
