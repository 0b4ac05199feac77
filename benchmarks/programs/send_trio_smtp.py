# Under test: our client and our pool, with the limit on messages per connection lifted.
#
# Variants: "client" is one connection, used by one task; "pool" has as many tasks as connections, each sending one
# message after the other; "bulk" is the pool's send_many.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import trio

import trio_smtp

from .sending import SENDER, Pieces, Sending, done, ready, sending

Send = Callable[[int], Awaitable[None]]
HOST = "127.0.0.1"


def content(options: Sending) -> bytes | Pieces:
    """The message, whole or in pieces."""
    return Pieces(options.size) if options.streamed else options.content


# The servers of the benchmarks are known to swallow a chunk that they refuse.
EARLY = trio_smtp.ClientConfig(early_text=True)


async def open_client(stack: AsyncExitStack, options: Sending) -> Send:
    """One connection."""
    client = await stack.enter_async_context(trio_smtp.open_client(HOST, options.port, config=EARLY, tls="none"))
    text = content(options)

    async def send(messages: int) -> None:
        for _ in range(messages):
            await client.send(SENDER, options.recipients, text)

    return send


async def open_pool(stack: AsyncExitStack, options: Sending) -> Send:
    """The pool, with a task for each connection, or for each message in flight."""
    config = trio_smtp.PoolConfig(max_connections=options.connections, max_messages=None, pipeline_depth=options.depth)
    pool = await stack.enter_async_context(
        trio_smtp.open_pool(HOST, options.port, config=config, client_config=EARLY, tls="none")
    )
    text = content(options)
    tasks = options.connections * (2 * options.depth if options.depth > 1 else 1)

    async def send(messages: int) -> None:
        left = iter(range(messages))

        async def work() -> None:
            for _ in left:
                await pool.send(SENDER, options.recipients, text)

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)

    async def send_many(messages: int) -> None:
        jobs = ((SENDER, options.recipients, text) for _ in range(messages))
        async with pool.send_many(jobs) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error

    return send_many if options.variant == "bulk" else send


async def run(ready: Callable[[], float], done: Callable[[float], None]) -> None:
    """Warm up, send, wait."""
    options = sending()
    async with AsyncExitStack() as stack:
        opener = open_client if options.variant == "client" else open_pool
        send = await opener(stack, options)
        await send(options.warm_up)
        began = ready()
        await send(options.messages)
        done(began)


def main(ready: Callable[[], float] = ready, done: Callable[[float], None] = done) -> None:
    """Run it; what is called before and after the messages that count may be given."""
    trio.run(run, ready, done)


if __name__ == "__main__":
    main()
