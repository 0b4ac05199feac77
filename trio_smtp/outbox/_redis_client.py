# The client of Redis that an outbox has: its patience, its end, and what is said of a server that would forget.
from __future__ import annotations

import warnings
from typing import Any, Final

import coredis
import coredis.exceptions
import coredis.retry
import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

_PATIENCE: Final = 5.0  # seconds for a connection, and for an answer


def make_client(url: str) -> coredis.Redis[bytes]:
    """A client that asks a second time, once.

    Raises:
        ValueError: the address is none of a Redis database.
    """
    retry = coredis.retry.ConstantRetryPolicy((coredis.exceptions.ConnectionError, TimeoutError), retries=1, delay=0.05)
    client: coredis.Redis[bytes] = coredis.Redis.from_url(
        url, decode_responses=False, retry_policy=retry, stream_timeout=_PATIENCE, connect_timeout=_PATIENCE
    )
    connections = client.connection_pool
    connections.connection_class = _tidy(connections.connection_class)
    return client


def _tidy(connection_class: Any) -> Any:
    """The same, but for a connection that cannot be made closing what it has: coredis 6.9 leaves that for a warning."""

    class Tidy(connection_class):  # type: ignore[misc]
        async def run(self, **options: Any) -> None:
            try:
                await super().run(**options)
            finally:
                for thing in vars(self).values():
                    if isinstance(thing, MemoryObjectSendStream | MemoryObjectReceiveStream):
                        thing.close()

    return Tidy


async def run_client(  # noqa: ASYNC114 - it is no context manager's
    client: Any, ended: trio.Event, task_status: trio.TaskStatus[None]
) -> None:
    """Keep the client's own tasks running until the block has been left: what is said last is said when cancelled."""
    with trio.CancelScope(shield=True):
        async with client:
            task_status.started()
            await ended.wait()


async def warn_if_forgetful(client: Any) -> None:
    """Warn of a server that would forget in a crash what it has answered."""
    try:
        said: Any = await client.config_get(["appendonly", "appendfsync", "maxmemory-policy", "maxmemory"])
    except Exception:  # a hosted server may forbid it
        warnings.warn(
            "this Redis does not say how durable it is: an outbox needs appendonly yes, appendfsync always,"
            " and no eviction",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    settings = {text_of(name): text_of(value) for name, value in said.items()}
    faults = []
    if settings.get("appendonly") != "yes":
        faults.append("it has no append-only file (appendonly yes)")
    elif settings.get("appendfsync") != "always":
        faults.append(f"its append-only file is synced {settings.get('appendfsync')} (appendfsync always)")
    if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy") != "noeviction":
        faults.append("it evicts keys when memory is short (maxmemory-policy noeviction)")
    if faults:
        warnings.warn(f"this Redis would forget messages in a crash: {'; '.join(faults)}", RuntimeWarning, stacklevel=2)


def text_of(value: Any) -> str:
    """What Redis has said, as text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
