# Asking hooks, by itself: a HookCaller over a channel that a memory stream ends, and rows of the tests' own.
from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_smtp import Discard, MessageTooLargeError, Reject, RemoteProtocolError, Reply, ServerConfig
from trio_smtp._protocol.server.events import Data, Hello
from trio_smtp._protocol.server.fixed_replies import NUL_IN_TEXT
from trio_smtp._protocol.server.protocol import ServerProtocol
from trio_smtp._server.channel import Channel
from trio_smtp._server.context import ServerContext
from trio_smtp._server.event_rows import EVENTS, EventRow, rows_of
from trio_smtp._server.handler_check import HOOKS, Hooks
from trio_smtp._server.hooks import HOLD_LIMIT, HookCaller, HookState
from trio_smtp._server.session import Session
from trio_smtp._wire.timekeeper import Timekeeper

EVENT = Hello("EHLO", "x.test")


@asynccontextmanager
async def calling(handler=None, **options):
    """A caller, and what is told to the protocol, in a list."""
    hooks = Hooks(handler or Discard())
    context = ServerContext(
        hooks, rows_of(hooks), ServerConfig(hostname="mx.test", **options), None, implicit_tls=False
    )
    near, far = memory_stream_pair()
    keeper = Timekeeper()
    async with trio.open_nursery() as nursery, near:
        nursery.start_soon(keeper.run)
        caller: Any = None
        timer = keeper.timer(lambda: caller.expire() or channel.expire())  # type: ignore[func-returns-value]
        protocol = ServerProtocol(context.profile)
        channel = Channel(context.config, protocol, far, timer, stress=context.stress)
        caller = HookCaller(context, channel, Session._create(protocol, None, None))
        yield caller
        await channel.aclose(cancelled=True)
        nursery.cancel_scope.cancel()


def row_of(hook, told, **options):
    """A row that notes the outcome."""
    return EventRow(
        "on_test",
        lambda caller, event: (event.name,),
        lambda caller, result: result,
        lambda *args: told.append(args[1:]),
        hook,
        **options,
    )


# ---- the table


def test_each_hook_about_a_command_has_one_row():
    names = [row.name for row in EVENTS.values()]
    assert sorted(names) == sorted(set(HOOKS) - {"on_connect", "on_tls", "on_reset", "on_close"})


def test_an_event_without_a_hook_is_accepted_at_once():
    rows = rows_of(Hooks(Discard()))
    assert {row.name for row in rows.values() if row is not None} == {"on_data"}  # the message is read all the same


# ---- asking


async def test_a_hook_gets_the_session_and_the_rows_arguments():
    told: list[Any] = []

    async def hook(session, name):
        assert caller.state is HookState.ASKED
        return session, name

    async with calling() as caller:
        with caller.open_scope():
            await caller.ask(row_of(hook, told), EVENT)
        assert told == [(EVENT, (caller.session, "x.test"))]
        assert caller.state is HookState.NONE
        assert not caller.has_outcome


@pytest.mark.parametrize(
    ("error", "outcome", "failed"),
    [
        (Reject(550, "no"), Reply(550, "no"), 0),
        (ExceptionGroup("", [Reject(450, "later"), Reject(550, "no")]), Reply(550, "no"), 0),
        (ExceptionGroup("", [Reject(550, "no"), ValueError()]), Reply(451, "local error in processing", "4.3.0"), 1),
        (ValueError(), Reply(451, "local error in processing", "4.3.0"), 1),
    ],
)
async def test_what_a_failure_means(error, outcome, failed, caplog):
    told: list[Any] = []

    async def hook(session, name):
        raise error

    async with calling() as caller:
        with caller.open_scope():
            await caller.ask(row_of(hook, told), EVENT)
        assert told == [(EVENT, outcome)]
        assert caller.context.counters.read(connections=0).failed_hooks == failed
    assert ("on_test failed" in caplog.text) == bool(failed)


@pytest.mark.parametrize(
    ("error", "code"),
    [(MessageTooLargeError("x"), 552), (RemoteProtocolError("x", reply=NUL_IN_TEXT), 550), (ValueError(), 451)],
)
async def test_a_faulty_body_takes_precedence_over_451(error, code):
    told: list[Any] = []

    async def hook(session, name):
        raise body._spoil(error)

    async with calling() as caller:
        _, body = caller.announce_message(None)
        with caller.open_scope():
            await caller.ask(row_of(hook, told), EVENT)
        assert told[0][1].code == code


async def test_a_refusal_makes_asking_needless():
    async def hook(session, name):
        raise AssertionError

    async with calling() as caller:
        protocol = caller.channel.protocol
        protocol.greet()
        protocol.receive_data(b"EHLO x.test\r\n")
        while not isinstance(protocol.next_event(), Hello):
            pass
        refusal = Reply(450, "not now", "4.7.0")
        await caller.ask(row_of(hook, [], refusal=lambda caller: refusal), EVENT)
        assert protocol.replies[-1] == b"450 4.7.0 not now\r\n"


@pytest.mark.parametrize(("sends_first", "seconds", "left"), [(True, 0, 0), (False, HOLD_LIMIT, 1), (False, 5.5, 0)])
async def test_when_replies_are_sent_before_a_hook_runs(sends_first, seconds, left, autojump_clock):
    left_then = []

    async def hook(session, name):
        left_then.append(len(caller.channel.protocol.replies))

    async with calling() as caller:
        caller.channel.hold_from(trio.current_time())
        caller.channel.protocol.greet()
        await trio.sleep(seconds)
        with caller.open_scope():
            await caller.ask(row_of(hook, [], sends_first=sends_first), EVENT)
    assert left_then == [left]


# ---- time


async def test_a_hook_that_takes_too_long_is_cancelled_and_has_an_outcome(autojump_clock, caplog):
    told: list[Any] = []

    async def hook(session, name):
        await trio.sleep_forever()

    async with calling(handler_timeout=5) as caller:
        with caller.open_scope() as scope:
            await caller.ask(row_of(hook, told), EVENT)
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        assert not caller.has_outcome
        caller.time_out()
        assert caller.has_outcome
        caller.conclude()
        assert [(event, outcome.code) for event, outcome in told] == [(EVENT, 451)]
    assert "on_test took too long" in caplog.text


async def test_a_hook_that_returns_although_it_was_cancelled_is_in_time(autojump_clock):
    told: list[Any] = []

    async def hook(session, name):
        with trio.CancelScope(shield=True):
            await trio.sleep(7)
        return "late"

    async with calling(handler_timeout=5) as caller:
        with caller.open_scope() as scope:
            await caller.ask(row_of(hook, told), EVENT)
        assert scope.cancelled_caught  # the loop is entered again
        caller.time_out()
        caller.conclude()
        assert told == [(EVENT, "late")]
        assert caller.context.counters.read(connections=0).failed_hooks == 0


async def test_a_hooks_time_stands_still_while_it_waits_for_the_peer(autojump_clock):
    async def hook(session, name):
        await trio.sleep(3)
        caller.suspend(trio.current_time())
        assert caller.state is HookState.SUSPENDED
        await trio.sleep(100)
        assert not caller.expire()
        caller.resume(trio.current_time())
        await trio.sleep_forever()

    async with calling(handler_timeout=5) as caller:
        with caller.open_scope():
            await caller.ask(row_of(hook, []), EVENT)
        assert trio.current_time() == 105


async def test_a_wait_that_outlives_its_hook_starts_no_clock(autojump_clock):
    async with calling(handler_timeout=5) as caller:
        caller.suspend(0)
        caller.resume(1)
        assert caller.state is HookState.NONE
        assert caller.channel.timer.deadline == math.inf


async def test_cancellation_keeps_the_event_for_a_message_that_was_taken():
    async def hook(session, envelope, body):
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        caller.cancel("shutdown")
        return "ABC1"

    async with calling() as caller:
        row = EventRow("on_data", HookCaller.announce_message, lambda *args: None, lambda *args: None, hook)
        with caller.open_scope():
            await caller.ask(row, Data())
        assert caller.has_taken_message


# ---- hooks that no command is about


@pytest.mark.parametrize(
    ("answer", "code"),
    [(None, None), (Reply(220, "hello"), 220), (Reject(554, "no"), 554), (ValueError(), 421), (7, 421)],
)
async def test_on_connect(answer, code):
    class Inbox(Discard):
        async def on_connect(self, session):
            assert caller.state is HookState.TOLD
            if isinstance(answer, Exception):
                raise answer
            return answer

    async with calling(Inbox()) as caller:
        reply = await caller.ask_on_connect()
        assert reply is None if code is None else reply.code == code
        assert caller.state is HookState.NONE


async def test_on_connect_that_takes_too_long_refuses(autojump_clock):
    class Inbox(Discard):
        async def on_connect(self, session):
            await trio.sleep_forever()

    async with calling(Inbox(), handler_timeout=5) as caller:
        assert (await caller.ask_on_connect()).code == 421
        assert trio.current_time() == 5


@pytest.mark.parametrize("connected", [True, False])
async def test_on_close_is_due_once_on_connect_was_reached(connected):
    calls = []

    class Inbox(Discard):
        async def on_close(self, session):
            calls.append(session)

    async with calling(Inbox()) as caller:
        if connected:
            await caller.ask_on_connect()
        await caller.tell_on_close()
        assert calls == [caller.session] * connected


async def test_on_reset_is_shielded_and_bounded(autojump_clock):
    class Inbox(Discard):
        async def on_reset(self, session):
            await trio.sleep_forever()

    async with calling(Inbox()) as caller:
        with trio.CancelScope() as scope:
            scope.cancel()
            await caller.end_transaction()
        assert trio.current_time() == 10
        assert caller.context.counters.read(connections=0).failed_hooks == 1


async def test_what_else_goes_wrong_in_a_cancelled_hook_is_logged_and_does_not_get_past(caplog):
    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("while cancelled")

    async def hook(session, name):
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (for the group that it makes)
            nursery.start_soon(child)

    async with calling() as caller, trio.open_nursery() as nursery:
        nursery.start_soon(caller.ask, row_of(hook, []), EVENT)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert "while cancelled" in caplog.text


async def test_repr():
    async with calling() as caller:
        assert repr(caller).endswith("NONE>")
