"""Metrics and spans of servers, clients and pools, read by the programs they are for."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
import trio.testing
from cli_process import tool
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support import Recorder, make_server, serving

import trio_smtp
from trio_smtp import ClientConfig, ClientEvent, PoolConfig, Reject, ServerConfig, ServerEvent, TraceEvent
from trio_smtp._client.trace import _REASONS
from trio_smtp.outbox import EventName, OutboxConfig, OutboxEvent, StoreError, open_outbox
from trio_smtp.telemetry import OpenTelemetry, Prometheus
from trio_smtp.telemetry._metrics import METRICS, Kind
from trio_smtp.telemetry._opentelemetry import ATTEMPT, MAX_KEPT, RECEIVE, SEND, TRANSACTION
from trio_smtp.telemetry._words import MAX_HOSTS, Hosts, code_word
from trio_smtp.testing import open_server, open_sink

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "observing.md"
NAMES = {RECEIVE, TRANSACTION, SEND, ATTEMPT}
BOARD = ROOT / "examples" / "grafana" / "trio-smtp.json"


class Picky(trio_smtp.Handler):
    """Refuses some, takes the rest; one sender is a bug."""

    async def on_rcpt(self, session, recipient):
        if recipient.address.startswith("no"):
            raise Reject(550, "no")

    async def on_data(self, session, envelope, body):
        data = await body.read()
        if b"bug" in data:
            raise ZeroDivisionError
        if b"bad" in data:
            raise Reject(554, "bad")


@asynccontextmanager
async def everything(trace: Any, **pool: Any) -> AsyncIterator[trio_smtp.Pool]:
    """A server and a pool of one connection to it, traced by the same object, its client too."""
    async with (
        open_server(Picky(), config=ServerConfig(hostname="mx.test", trace=trace)) as server,
        trio_smtp.open_pool(
            server.host,
            server.port,
            config=PoolConfig(max_connections=1, trace=trace, **pool),
            client_config=ClientConfig(trace=trace),
        ) as opened,
    ):
        yield opened


async def send_all(pool: trio_smtp.Pool) -> None:
    """Two that are taken, one that is not, a bug, and a recipient who is refused."""
    await pool.send("a@x.test", ["b@y.test"], b"good")
    await pool.send("a@x.test", ["b@y.test", "no@y.test"], b"good")
    for content in (b"bad", b"bug"):
        with pytest.raises(trio_smtp.MessageRefusedError):
            await pool.send("a@x.test", ["b@y.test"], content)
    with pytest.raises(trio_smtp.RecipientsRefusedError):
        await pool.send("a@x.test", ["no@y.test"], b"good")


def read(registry: CollectorRegistry) -> Callable[..., float | None]:
    """What Prometheus' own parser makes of a scrape: a sample's value by its name and labels."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }
    return lambda name, **labels: samples.get((name, frozenset(labels.items())))


async def test_what_prometheus_reads() -> None:
    registry = CollectorRegistry()
    async with everything(Prometheus(registry)) as pool:
        await send_all(pool)
        of = read(registry)
        assert of("smtp_pool_connections") == of("smtp_pool_idle") == 1
        assert of("smtp_pool_waiting") == of("smtp_pool_in_flight") == 0
        assert of("smtp_server_connections_open") == of("smtp_client_connections_open") == 1
    of = read(registry)
    assert of("smtp_server_connections_total") == of("smtp_client_connections_total") == 1
    assert of("smtp_server_connections_open") == of("smtp_client_connections_open") == 0
    assert of("smtp_server_connections_closed_total", reason="quit") == 1
    for part in ("server", "client"):
        assert of(f"smtp_{part}_commands_total", verb="RCPT", code="250") == 4
        assert of(f"smtp_{part}_commands_total", verb="RCPT", code="550") == 2
        assert of(f"smtp_{part}_recipients_total", outcome="accepted") == 4
        assert of(f"smtp_{part}_recipients_total", outcome="refused") == 2
        assert of(f"smtp_{part}_messages_total", outcome="accepted", code="250") == 2
        assert of(f"smtp_{part}_messages_total", outcome="refused", code="554") == 1
        assert of(f"smtp_{part}_messages_total", outcome="deferred", code="451") == 1
        assert of(f"smtp_{part}_message_seconds_count", outcome="accepted") == 2
        assert of(f"smtp_{part}_message_seconds_bucket", outcome="accepted", le="+Inf") == 2
        assert of(f"smtp_{part}_message_octets_total") == len("good\r\n" * 2 + "bad\r\n" + "bug\r\n")
    assert of("smtp_client_messages_total", outcome="refused", code="550") == 1
    assert of("smtp_server_hook_seconds_count", hook="on_rcpt") == 6
    assert of("smtp_server_hook_failures_total", hook="on_data") == 1
    assert of("smtp_client_connect_seconds_count", outcome="accepted") == 1
    assert of("smtp_pool_messages_total", delivery="accepted") == 2
    assert of("smtp_pool_messages_total", delivery="refused") == 3
    assert of("smtp_pool_attempts_total", delivery="accepted") == 2
    assert of("smtp_pool_attempts_total", delivery="refused") == 3
    assert of("smtp_pool_connections_retired_total") == 1
    assert of("smtp_pool_message_seconds_count", delivery="accepted") == 2


async def late(*args: Any) -> None:
    await trio.sleep_forever()


async def failing_late(*args: Any) -> None:
    """Takes too long, and fails as it is cancelled."""

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError

    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (for the group that it makes)
        nursery.start_soon(fails)
        await trio.sleep_forever()


async def reads_in_a_nursery(session: Any, envelope: Any, body: Any) -> None:
    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (for the group that it makes)
        nursery.start_soon(body.read)


async def fails_for_a_lost_client(session: Any, envelope: Any, body: Any) -> None:
    try:
        await body.read()
    except trio_smtp.ConnectionLostError as exc:
        raise OSError from exc


MAIL = b"MAIL FROM:<a@x.test>\r\n"
MESSAGE = MAIL + b"RCPT TO:<b@y.test>\r\nDATA\r\n"
CHUNK = MAIL + b"RCPT TO:<b@y.test>\r\nBDAT 3\r\nxyz"
WHOLE = MESSAGE + b"x\r\n.\r\n"
VERIFY = b"VRFY x\r\n"
STORM: list[
    tuple[str, Any, bytes, int]
] = [  # a hook, what it does, what the client says, and how many failures that is
    ("on_connect", ValueError(), b"", 1),
    ("on_connect", Reject(554, "no"), b"", 0),
    ("on_connect", "hello", b"", 1),
    ("on_hello", late, b"", 1),
    ("on_mail", ValueError(), MAIL, 1),
    ("on_mail", Reject(550, "no"), MAIL, 0),
    ("on_mail", "Q1", MAIL, 1),
    ("on_mail", failing_late, MAIL, 1),
    ("on_vrfy", ExceptionGroup("", [Reject(550, "no"), ValueError()]), VERIFY, 1),
    ("on_vrfy", late, VERIFY, 1),
    ("on_reset", Reject(550, "no"), MAIL, 1),
    ("on_reset", late, MAIL, 1),
    ("on_close", ValueError(), b"", 1),
    ("on_data", ValueError(), MESSAGE, 1),
    ("on_data", Reject(554, "no"), MESSAGE, 0),
    ("on_data", 17, WHOLE, 1),
    ("on_data", late, MESSAGE, 1),
    ("on_data", reads_in_a_nursery, WHOLE, 0),
    ("on_data", reads_in_a_nursery, MESSAGE + b"x", 0),
    ("on_data", reads_in_a_nursery, CHUNK + b"RSET\r\n", 0),
    ("on_data", reads_in_a_nursery, MESSAGE + 500 * b"x\r\n" + b".\r\n", 0),
    ("on_data", reads_in_a_nursery, MESSAGE + b"a\rb\r\n.\r\n", 0),
    ("on_data", fails_for_a_lost_client, MESSAGE + b"x", 1),
]


def storm_server(handler: object, registry: CollectorRegistry) -> trio_smtp.Server:
    return make_server(handler, trace=Prometheus(registry), handler_timeout=30, data_timeout=20, max_message_size=1000)


def failures_in(registry: CollectorRegistry) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "smtp_server_hook_failures_total"
    )


@pytest.mark.parametrize(
    ("hook", "does", "says", "failures"), STORM, ids=[f"{n}-{each[0]}" for n, each in enumerate(STORM)]
)
async def test_what_is_a_failure_of_a_hook(
    autojump_clock: trio.testing.MockClock, hook: str, does: Any, says: bytes, failures: int
) -> None:
    registry = CollectorRegistry()
    server = storm_server(Recorder(**{hook: does}), registry)
    async with serving(server) as connect:
        await connect().send(b"EHLO x.test\r\n" + says)
        await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().failed_hooks == failures_in(registry) == failures


@pytest.mark.parametrize("end", ["lost", "stalled", "shutdown", "cancelled"])
async def test_failed_hooks_are_counted_alike(autojump_clock: trio.testing.MockClock, end: str) -> None:
    """What a server's statistics and Prometheus count after a storm of errors, slow hooks and lost clients."""
    chance = random.Random(end)
    does: dict[str, list[Any]] = {hook: [None, None] for hook, *_ in STORM}
    for hook, answer, *_ in STORM:
        does[hook].append(answer)

    def at_random(hook: str) -> Callable[..., Any]:
        async def answer(*args: Any) -> Any:
            chosen = chance.choice(does[hook])
            return await chosen(*args) if callable(chosen) else chosen

        return answer

    registry = CollectorRegistry()
    server = storm_server(Recorder(**{hook: at_random(hook) for hook in does}), registry)
    async with trio.open_nursery() as nursery:
        peers = []
        for _ in range(100):
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(server.serve_stream, far)
            peers.append(near)
            said = b"".join(chance.choice(STORM)[2] for _ in range(3))
            await near.send_all(b"EHLO x.test\r\n" + said)
        await trio.testing.wait_all_tasks_blocked()
        if end == "shutdown":
            await server.shutdown(grace=1)
        elif end == "cancelled":
            nursery.cancel_scope.cancel()
        elif end == "lost":
            for peer in peers:
                await peer.aclose()
    failed = server.statistics().failed_hooks
    assert failed == failures_in(registry)
    assert failed > 20


async def test_what_prometheus_reads_of_an_outbox(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    trace = Prometheus(registry)
    config = OutboxConfig(retry_delays=(0.01,), trace=trace)
    async with (
        open_sink() as sink,
        open_outbox(f"sqlite:{tmp_path}/outbox.db", config=config) as outbox,
        trio_smtp.open_pool(sink.host, sink.port, tls="none") as pool,
        trio.open_nursery() as nursery,
    ):
        sink.refuse("rcpt", 550, "no such user", address="no@y.test")
        sink.refuse("rcpt", 451, "later", address="later@y.test", times=1)
        nursery.start_soon(outbox.work, pool)
        ticket = await outbox.put("a@x.test", ["b@y.test", "no@y.test", "later@y.test"], b"good")
        await outbox.wait(ticket.id)
        sink.cut(trio_smtp.Stage.END, keep=True, times=1)
        ticket = await outbox.put("a@x.test", ["b@y.test"], b"good")
        await outbox.wait(ticket.id)
        assert read(registry)("smtp_outbox_recipients_total", state="in_doubt") == 1
        await outbox.resolve(ticket.id, "sent")
        nursery.cancel_scope.cancel()
    of = read(registry)
    assert of("smtp_outbox_entries_total") == 2
    assert of("smtp_outbox_attempts_total", state="queued") == 1
    assert of("smtp_outbox_attempts_total", state="refused") == of("smtp_outbox_attempts_total", state="in_doubt") == 1
    assert of("smtp_outbox_attempt_seconds_count", state="queued") == 1
    assert of("smtp_outbox_recipients_total", state="sent") == 3
    assert of("smtp_outbox_recipients_total", state="refused") == 1
    assert of("smtp_outbox_recipients_total", state="queued") is None
    assert of("smtp_outbox_entry_seconds_count", state="refused") == 1
    assert of("smtp_outbox_entry_seconds_bucket", state="sent", le="432000.0") == 1
    assert of("smtp_outbox_claims_lost_total") == of("smtp_outbox_store_failures_total") == 0
    trace(OutboxEvent("lost"))
    trace(OutboxEvent("store", error=StoreError("away")))
    trace(OutboxEvent("settle", state="expired", states={"expired": 1}, age=432000.0))  # without a try
    of = read(registry)
    assert of("smtp_outbox_claims_lost_total") == of("smtp_outbox_store_failures_total") == 1
    assert of("smtp_outbox_attempts_total", state="expired") is None
    assert of("smtp_outbox_recipients_total", state="expired") == 1


async def test_states_of_a_pool_are_read_while_it_works() -> None:
    registry = CollectorRegistry()
    async with everything(Prometheus(registry)) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"good")
        seen: list[tuple[float | None, ...]] = []

        async def look() -> None:
            of = read(registry)
            seen.append((of("smtp_pool_waiting"), of("smtp_pool_in_flight"), of("smtp_pool_idle")))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: pool.send("a@x.test", ["b@y.test"], b"good", before_end=look))
    assert seen[0] == (2, 1, 0)


def test_pools_may_come_and_go_while_another_thread_reads() -> None:
    class Idle:
        """A pool in which nothing happens."""

        def statistics(self) -> trio_smtp.PoolStatistics:
            return trio_smtp.PoolStatistics(
                connections=0, idle=0, limit=1, waiting=0, in_flight=0, sent=0, failed=0, retried=0, opened=0
            )

    trace = Prometheus(CollectorRegistry())
    failures: list[Exception] = []
    is_over = threading.Event()

    def read_again_and_again() -> None:
        while not is_over.is_set():
            try:
                trace._tally.values()
            except Exception as exc:
                failures.append(exc)

    reader = threading.Thread(target=read_again_and_again)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader.start()
    try:
        some: deque[Idle] = deque(maxlen=50)
        for _ in range(5000):
            some.append(Idle())
            trace(TraceEvent("connect", 0.1, 1, pool=some[-1]))
    finally:
        is_over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert len(trace._tally._pool._pools) == 50


async def test_promtool_has_nothing_to_say() -> None:
    promtool = tool("promtool")
    registry = CollectorRegistry()
    async with everything(Prometheus(registry)) as pool:
        await send_all(pool)
    done = await trio.run_process(
        [promtool, "check", "metrics"], stdin=generate_latest(registry), capture_stdout=True, capture_stderr=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_openmetrics_is_read_too() -> None:
    registry = CollectorRegistry()
    async with everything(Prometheus(registry)) as pool:
        await send_all(pool)
    names = {family.name for family in parse_openmetrics(generate_openmetrics(registry).decode())}
    assert names == {metric.name.removesuffix("_total") for metric in METRICS}


async def test_each_metric_is_made_of_something() -> None:
    registry = CollectorRegistry()
    trace = Prometheus(registry)
    async with everything(trace) as pool:
        await send_all(pool)
    for part in (ServerEvent, ClientEvent):
        trace(part("tls", seconds=0.2))
        trace(part("auth", verb="AUTH", code=235, detail="PLAIN"))
    trace(ServerEvent("refuse", code=421, detail="full"))
    trace(TraceEvent("wait", 1.0))
    trace(TraceEvent("retry", 1.0))
    trace(OutboxEvent("settle", state="sent", seconds=0.1, states={"sent": 1}, age=1.0))
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.samples, family.name
    of = read(registry)
    assert of("smtp_server_connections_refused_total", reason="full") == 1
    assert of("smtp_server_logins_total", mechanism="PLAIN", code="235") == 1
    assert of("smtp_client_handshake_seconds_bucket", outcome="ok", le="0.1") == 0
    assert of("smtp_client_handshake_seconds_bucket", outcome="ok", le="0.25") == 1
    assert of("smtp_client_handshake_seconds_sum", outcome="ok") == 0.2


def test_labels_have_few_values_whatever_peers_say() -> None:
    registry = CollectorRegistry()
    trace = Prometheus(registry)
    for code in range(200, 600):
        trace(ClientEvent("command", verb="", code=code))
        trace(ClientEvent("message", verb="DATA", code=code))
    text = generate_latest(registry).decode()
    series = [line for line in text.splitlines() if line.startswith("smtp_client_commands_total{")]
    assert len(series) < 60
    assert 'smtp_client_commands_total{code="5xx",verb="other"}' in text
    assert code_word(299) == "2xx"
    hosts = Hosts()
    words = {hosts.word(f"host{number}.test") for number in range(MAX_HOSTS + 10)}
    assert len(words) == MAX_HOSTS + 1
    assert "other" in words
    assert hosts.word("host0.test") == "host0.test"


def test_connections_that_were_never_greeted_are_not_open() -> None:
    registry = CollectorRegistry()
    trace = Prometheus(registry)
    for event in (ClientEvent("connect", error=OSError()), ClientEvent("close", detail="lost")):
        trace(event)
    assert read(registry)("smtp_client_connections_open") == 0
    assert read(registry)("smtp_client_connect_seconds_count", outcome="failed") == 1


def test_one_registry_takes_them_once() -> None:
    registry = CollectorRegistry()
    Prometheus(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Prometheus(registry)


@pytest.mark.parametrize("make", [lambda: Prometheus(CollectorRegistry()), OpenTelemetry])
def test_what_is_no_event_is_an_error(make: Callable[[], Any]) -> None:
    with pytest.raises(KeyError):
        make()(("nothing",))
    assert repr(make()).startswith("<trio_smtp.telemetry.")


# -- OpenTelemetry


class Collected:
    """An OpenTelemetry object whose spans and metrics stay in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        self.trace = OpenTelemetry(self.tracers, MeterProvider([self._reader]))

    def spans(self, name: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        data: Any = self._reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], float]]] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                value = point.value if hasattr(point, "value") else point.count
                if value:
                    found.setdefault(metric.name, []).append((dict(point.attributes), value))
        return found


async def test_a_span_for_each_message_with_a_child_for_each_try() -> None:
    collected = Collected()
    with collected.tracers.get_tracer("test").start_as_current_span("the caller's"):
        async with everything(collected.trace) as pool:
            await send_all(pool)
    [caller] = collected.spans("the caller's")
    sent, tries = collected.spans("smtp.send"), collected.spans("smtp.attempt")
    assert len(sent) == len(tries) == 5
    for parent, child in zip(sent, tries, strict=True):
        assert parent.parent is not None
        assert parent.parent.span_id == caller.context.span_id
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id
        assert parent.start_time <= child.start_time <= child.end_time <= parent.end_time
    facts = [(span.attributes["smtp.delivery"], span.attributes["smtp.reply.code"]) for span in sent]
    assert facts == [("accepted", 250), ("accepted", 250), ("refused", 554), ("refused", 451), ("refused", 550)]
    assert [span.status.status_code for span in sent] == [StatusCode.UNSET] * 2 + [StatusCode.ERROR] * 3
    assert sent[2].attributes["error.type"] == "554"
    assert tries[0].attributes["server.address"] == "127.0.0.1"
    assert isinstance(tries[0].attributes["server.port"], int)
    assert tries[0].kind is SpanKind.CLIENT
    received = collected.spans("smtp.receive")
    assert [span.attributes["smtp.reply.code"] for span in received] == [250, 250, 554, 451]
    assert {span.kind for span in received} == {SpanKind.SERVER}
    assert received[0].attributes["network.peer.address"] == "127.0.0.1"
    assert received[0].attributes["smtp.message.size"] == 6
    assert len(collected.spans("smtp.transaction")) == 5


async def test_a_message_that_is_tried_again_has_two_children(autojump_clock: trio.testing.MockClock) -> None:
    collected = Collected()
    trace, pool = collected.trace, object()
    lost = trio_smtp.ConnectionLostError("gone")
    not_sent = trio_smtp.Delivery.NOT_SENT
    trace(TraceEvent("connect", 0.1, 1, detail="mx.test:25"))
    trace(TraceEvent("send", 1, 1, error=lost, message=7, delivery=not_sent))
    trace(TraceEvent("retire", 1, 1))
    trace(TraceEvent("connect", 0.1, 2, detail="::1"))
    trace(TraceEvent("send", 1, 2, message=7, code=250))
    trace(TraceEvent("message", 3, message=7, code=250))
    trace(TraceEvent("message", 3, message=8, pool=pool, delivery=not_sent, error=trio_smtp.PoolFullError("full")))
    first, second = collected.spans("smtp.attempt")
    assert (first.attributes["smtp.delivery"], first.attributes["error.type"]) == ("not_sent", "ConnectionLostError")
    assert (first.attributes["server.address"], first.attributes["server.port"]) == ("mx.test", 25)
    assert second.attributes["server.address"] == "::1"
    assert "server.port" not in second.attributes
    message, full = collected.spans("smtp.send")
    assert message.attributes["smtp.attempts"] == 2
    assert {span.parent.span_id for span in (first, second)} == {message.context.span_id}
    assert full.attributes["smtp.attempts"] == 0
    assert full.status.description == "full"


def parents(collected: Collected, name: str) -> list[Any]:
    """Of each span of this name its parent, ``None`` for a root."""
    by_id = {span.context.span_id: span for span in collected.exporter.get_finished_spans()}
    return [None if span.parent is None else by_id[span.parent.span_id] for span in collected.spans(name)]


def kept(trace: OpenTelemetry) -> list[Any]:
    """What is kept until something else ends."""
    spans = trace._spans
    return [*spans._tries._lists, *spans._transactions._lists, *spans._hosts]


@pytest.mark.parametrize("depth", [1, 4])
async def test_a_pools_transaction_is_the_child_of_its_try(depth: int) -> None:
    collected = Collected()
    async with everything(collected.trace, pipeline_depth=depth) as pool:
        await send_all(pool)
        async with pool.send_many([("a@x.test", ["b@y.test"], b"x" * number) for number in range(1, 8)]) as outcomes:
            assert [outcome.error async for outcome in outcomes] == [None] * 7
    tries, transactions = parents(collected, TRANSACTION), collected.spans(TRANSACTION)
    assert len({each.context.span_id for each in tries}) == len(tries) == 12
    for parent, child in zip(tries, transactions, strict=True):
        assert parent.name == ATTEMPT
        assert child.context.trace_id == parent.context.trace_id
        assert child.attributes["smtp.reply.code"] == parent.attributes["smtp.reply.code"]
        assert parent.start_time <= child.start_time <= child.end_time <= parent.end_time
    sizes = {span.attributes["smtp.message.size"] for span in transactions[5:]}
    assert sizes == {number + 2 for number in range(1, 8)}
    assert kept(collected.trace) == []


async def test_a_list_that_is_split_makes_several_transactions_of_one_try() -> None:
    class Few(Picky):
        async def on_rcpt(self, session, recipient):
            if len(session.envelope.recipients) == 2:
                raise Reject(452, "too many recipients", "4.5.3")

    collected = Collected()
    config = PoolConfig(max_connections=1, trace=collected.trace)
    async with (
        open_server(Few()) as server,
        trio_smtp.open_pool(
            server.host, server.port, config=config, client_config=ClientConfig(trace=collected.trace)
        ) as pool,
    ):
        await pool.send("a@x.test", [f"{number}@y.test" for number in range(5)], b"good")
    [attempt] = collected.spans(ATTEMPT)
    assert parents(collected, TRANSACTION) == [attempt] * 3
    assert kept(collected.trace) == []


async def test_a_transaction_without_a_try_is_a_span_of_its_own() -> None:
    """A client's that has no pool; that of a pool which tells nobody, or somebody else."""
    clients, pools = Collected(), Collected()
    async with open_server(Picky()) as server:
        config = ClientConfig(trace=clients.trace)
        async with trio_smtp.open_client(server.host, server.port, config=config) as client:
            await client.send("a@x.test", ["b@y.test"], b"good")
        for trace in (None, pools.trace):
            async with trio_smtp.open_pool(
                server.host, server.port, config=PoolConfig(trace=trace), client_config=config
            ) as pool:
                await pool.send("a@x.test", ["b@y.test"], b"good")
    assert parents(clients, TRANSACTION) == [None] * 3
    assert len(pools.spans(ATTEMPT)) == 1
    assert kept(clients.trace) == kept(pools.trace) == []


async def test_a_message_in_steps_has_its_transaction_below_it_too() -> None:
    """As of a relay. One whose text never came was no try, and its transaction stands alone."""
    collected = Collected()
    async with (
        everything(collected.trace) as upstream,
        open_server(trio_smtp.forward(upstream)) as relay,
        trio_smtp.open_client(relay.host, relay.port) as client,
    ):
        await client.send("a@x.test", ["b@y.test"], b"good")
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await client.send("a@x.test", ["no@y.test"], b"good")
    assert parents(collected, TRANSACTION) == [*collected.spans(ATTEMPT), None]
    assert kept(collected.trace) == []


async def test_a_send_that_is_cancelled_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    class Stuck(Picky):
        async def on_data(self, session, envelope, body):
            await trio.sleep_forever()

    collected = Collected()
    async with (
        open_server(Stuck(), config=ServerConfig(handler_timeout=None)) as server,
        trio_smtp.open_pool(
            server.host,
            server.port,
            config=PoolConfig(trace=collected.trace),
            client_config=ClientConfig(trace=collected.trace),
        ) as pool,
    ):
        with trio.move_on_after(5):
            await pool.send("a@x.test", ["b@y.test"], b"good")
    [attempt] = collected.spans(ATTEMPT)
    assert parents(collected, TRANSACTION) == [attempt]
    assert kept(collected.trace) == []


def test_what_never_ends_is_kept_within_bounds() -> None:
    class Silent:
        """A pool that is not asked for anything."""

    trace, pool = Collected().trace, Silent()
    trace(TraceEvent("connect", 0.1, 1, detail="mx.test", pool=pool))
    for number in range(MAX_KEPT + 10):
        trace(TraceEvent("send", 1, 1, message=number, pool=pool, code=250))
        trace(ClientEvent("message", code=250, pool_message=(pool, number)))
    assert len(trace._spans._tries._lists) == len(trace._spans._transactions._lists) == MAX_KEPT


@pytest.mark.parametrize("name", get_args(EventName))
def test_opentelemetry_takes_each_event_of_an_outbox(name: EventName) -> None:
    collected = Collected()
    collected.trace(OutboxEvent(name, state="sent", seconds=1.0, states={"sent": 2}, age=3.0))
    assert collected.exporter.get_finished_spans() == ()
    if name == "settle":
        metrics = collected.metrics()
        assert metrics["smtp.outbox.recipients"] == [({"state": "sent"}, 2)]
        assert metrics["smtp.outbox.entry.duration"] == [({"state": "sent"}, 1)]


async def test_what_opentelemetry_counts() -> None:
    collected = Collected()
    async with everything(collected.trace) as pool:
        await send_all(pool)
        assert collected.metrics()["smtp.pool.idle"] == [({}, 1)]
    metrics = collected.metrics()
    assert ({"verb": "RCPT", "code": "250"}, 4) in metrics["smtp.server.commands"]
    assert metrics["smtp.pool.messages"] == [({"delivery": "accepted"}, 2), ({"delivery": "refused"}, 3)]
    assert ({"hook": "on_data"}, 4) in metrics["smtp.server.hook.duration"]
    assert ({"outcome": "accepted"}, 2) in metrics["smtp.client.message.duration"]
    assert set(metrics) <= {metric.otel for metric in METRICS}
    assert len(metrics) > 20


# -- what is written about them


def drawn() -> str:
    """The table of metrics."""
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.text} |")
    return "\n".join(rows)


def test_the_page_lists_the_metrics_and_spans() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert found(page) == drawn()
    for name in (RECEIVE, TRANSACTION, SEND, ATTEMPT):
        assert f"| `{name}` |" in page


async def test_the_page_lists_each_attribute_of_a_span() -> None:
    collected = Collected()
    async with everything(collected.trace) as pool:
        await send_all(pool)
    page = PAGE.read_text(encoding="utf-8").partition("## Spans")[2]
    made = {name for span in collected.exporter.get_finished_spans() for name in span.attributes or {}}
    assert made == set(re.findall(r"`((?:network|server|error|smtp)\.[a-z.]+)`", page)) - NAMES


def test_the_page_lists_a_clients_events() -> None:
    page = PAGE.read_text(encoding="utf-8").partition("### A client's")[2].partition("## Metrics")[0]
    assert re.findall(r"^\| `(\w+)` \| each", page, re.MULTILINE) == list(get_args(trio_smtp.ClientEventName))
    for reason in (*(why for _, why in _REASONS), "quit", "given up", "error"):
        assert f"`{reason}`" in page


def found(page: str) -> str:
    match = re.search(r"<!-- drawn: metrics -->\n(.*?)\n?<!-- end: metrics -->", page, re.DOTALL)
    assert match is not None
    return match[1]


def test_the_board_asks_for_metrics_that_there_are() -> None:
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    names = {name for expression in asked for name in re.findall(r"smtp_\w+", expression)}
    known = {metric.name for metric in METRICS if metric.kind is not Kind.HISTOGRAM}
    known |= {f"{metric.name}_{part}" for metric in METRICS for part in ("bucket", "sum", "count")}
    assert names <= known
    assert len(names) > 20
    by_name = {metric.name: set(metric.labels) for metric in METRICS}
    for expression in asked:
        for name, grouping in re.findall(r"by \(([^)]*)\) \(rate\((smtp_\w+)", expression):
            base = re.sub(r"_(bucket|sum|count)$", "", grouping)
            labels = by_name.get(base, by_name.get(grouping))
            assert labels is not None
            assert set(re.split(r",\s*", name)) <= labels | {"le"}, expression


def test_promtool_understands_what_the_board_asks(tmp_path: Path) -> None:
    promtool = tool("promtool")
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"board:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run([promtool, "check", "rules", path], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
