# A relay that delays octets by half a round trip each way. Arguments: PORT TO ROUND-TRIP.
from __future__ import annotations

import math
import sys
from functools import partial

import trio

LARGEST = 65536  # octets read at once


async def carry(source: trio.SocketStream, target: trio.SocketStream, delay: float) -> None:
    """Relay one direction until its end."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](math.inf)

    async def read() -> None:
        with send:
            while data := await source.receive_some(LARGEST):
                send.send_nowait((trio.current_time() + delay, bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async for when, data in receive:
            await trio.sleep_until(when)
            await target.send_all(data)
        await target.send_eof()


async def relay(near: trio.SocketStream, port: int, delay: float) -> None:
    """Relay one connection."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
            nursery.start_soon(carry, near, far, delay)
            nursery.start_soon(carry, far, near, delay)
    except* (OSError, trio.BrokenResourceError):
        pass  # one end has disconnected


def main() -> None:
    """Relay until the process is stopped."""
    port, target, round_trip = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    handler = partial(relay, port=target, delay=round_trip / 2)
    trio.run(partial(trio.serve_tcp, handler, port, host="127.0.0.1"))


if __name__ == "__main__":
    main()
