"""Full of strangers: addresses that take every slot of a server with connections that say next to nothing.

``python -m benchmarks.strangers [commands|messages|silence ...]``

Twenty addresses (127.0.1.1 and so on) open fifty connections each, as many as a default server takes in all, and let
octets trickle: of a command, or of a message; or say nothing. A connection that is ended is opened again a second
later. Honest clients send messages meanwhile, each over a connection of its own, and a few that have begun before the
attack go on with large messages, slowly. Prints how many honest messages were taken at the first try, and how many of
the slow ones were cut off. Exits with 1 if fewer than 95 % were taken, or any was cut.

Needs about 2,100 descriptors. The server is a process of its own, with the defaults of ServerConfig.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial

import trio

import trio_smtp

ADDRESSES, EACH = 20, 50
HONEST, PAUSE = 200, 0.03  # messages, and seconds between them
SLOW, RATE = 5, 3000  # messages in progress, and octets a second of each
TRICKLE = 3.0  # seconds between two octets of a stranger
SETTLE = 2.0  # seconds in which the strangers have all slots to themselves
ENVELOPE = b"EHLO x.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n"
KINDS = {"commands": b"", "messages": ENVELOPE, "silence": None}


@dataclass
class Tally:
    """What came of an attack."""

    open: int = 0
    ended: int = 0
    octets: int = 0
    slow: list[str] = field(default_factory=list)
    honest: list[str] = field(default_factory=list)
    slow_are_done: trio.Event = field(default_factory=trio.Event)


class Counter(trio_smtp.Handler):
    """Reads messages, and keeps nothing."""

    async def on_data(self, session: object, envelope: object, body: trio_smtp.Body) -> None:
        async for _ in body:
            pass


async def serve() -> None:
    """The server's process."""
    async with trio.open_nursery() as nursery:
        server = trio_smtp.Server(Counter())
        [listener] = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        print(listener.socket.getsockname()[1], flush=True)


async def connect(port: int, address: str) -> trio.SocketStream:
    """A connection from one of this machine's addresses."""
    return await trio.open_tcp_stream("127.0.0.1", port, local_address=address)


async def code(stream: trio.SocketStream) -> str:
    """The code of the next reply, ``""`` at the end of the stream."""
    text = b""
    while not (text.endswith(b"\r\n") and text.rstrip(b"\r\n").rpartition(b"\n")[2][3:4] != b"-"):
        data = await stream.receive_some()
        if not data:
            return ""
        text += data
    return text.rstrip(b"\r\n").rpartition(b"\n")[2][:3].decode()


async def stranger(port: int, address: str, opening: bytes | None, tally: Tally) -> None:
    """Hold a slot, for ever."""
    while True:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await connect(port, address) as stream, trio.open_nursery() as nursery:
                tally.open += 1
                if opening is not None:
                    nursery.start_soon(trickle, stream, opening, tally)
                try:
                    while await stream.receive_some():
                        pass
                finally:
                    tally.open -= 1
                tally.ended += 1
                nursery.cancel_scope.cancel()
        await trio.sleep(1)


async def trickle(stream: trio.SocketStream, opening: bytes, tally: Tally) -> None:
    """Say as little as possible."""
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(opening)
        tally.octets += len(opening)
        while True:
            await stream.send_all(b"x")
            tally.octets += 1
            await trio.sleep(TRICKLE)


async def honest(port: int, tally: Tally) -> None:
    """One message over a connection of its own, once."""
    try:
        with trio.fail_after(30):
            stream = await connect(port, "127.0.0.1")
            async with stream:
                result = await code(stream)
                for line in (*ENVELOPE.splitlines(keepends=True), b"Subject: x\r\n\r\nx\r\n.\r\n"):
                    if result[:1] not in ("2", "3"):
                        break
                    await stream.send_all(line)
                    result = await code(stream)
                tally.honest.append(result)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as exc:
        tally.honest.append(type(exc).__name__)


async def slow(port: int, seconds: float, tally: Tally) -> None:
    """A large message, at a slow and steady pace."""
    result = ""
    with contextlib.suppress(OSError, trio.BrokenResourceError):
        stream = await connect(port, "127.0.0.1")
        async with stream:
            await code(stream)
            for line in ENVELOPE.splitlines(keepends=True):
                await stream.send_all(line)
                await code(stream)
            end = trio.current_time() + seconds
            while trio.current_time() < end:
                await stream.send_all(b"x" * (RATE - 2) + b"\r\n")
                await trio.sleep(1)
            await stream.send_all(b".\r\n")
            result = await code(stream)
    tally.slow.append(result)
    if len(tally.slow) == SLOW:
        tally.slow_are_done.set()


async def attack(port: int, opening: bytes | None) -> Tally:
    """Attack one server, and send through it."""
    tally = Tally()
    async with trio.open_nursery() as nursery:
        for _ in range(SLOW):
            nursery.start_soon(slow, port, 20, tally)
        await trio.sleep(0.5)
        async with trio.open_nursery() as strangers:
            for number in range(ADDRESSES * EACH):
                strangers.start_soon(stranger, port, f"127.0.1.{number % ADDRESSES + 1}", opening, tally)
                await trio.sleep(0.001)
            await trio.sleep(SETTLE)
            async with trio.open_nursery() as clients:
                for _ in range(HONEST):
                    clients.start_soon(honest, port, tally)
                    await trio.sleep(PAUSE)
            await tally.slow_are_done.wait()
            strangers.cancel_scope.cancel()
    return tally


def main(kinds: list[str]) -> int:
    """Run the attacks that are named, or all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    worst = 0
    for kind in kinds or KINDS:
        command = [sys.executable, "-m", "benchmarks.strangers", "--serve"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            try:
                assert server.stdout is not None
                tally = trio.run(attack, int(server.stdout.readline()), KINDS[kind])
            finally:
                server.kill()
        taken, cut = tally.honest.count("250"), SLOW - tally.slow.count("250")
        others = {result: tally.honest.count(result) for result in sorted(set(tally.honest) - {"250"})}
        print(
            f"{kind}: {taken} of {HONEST} honest messages were taken at the first try, {others or 'none'} refused; "
            f"{cut} of {SLOW} messages in progress were cut off; "
            f"the strangers had {tally.ended} connections ended and sent {tally.octets} octets"
        )
        worst |= taken < 0.95 * HONEST or cut > 0
    return worst


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        trio.run(serve)
    else:
        sys.exit(main(sys.argv[1:]))
