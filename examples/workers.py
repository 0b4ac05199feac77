"""Four processes that accept from one port: for more than one processor.

    python workers.py

The parent binds the port, forks, and waits. SIGTERM or Ctrl-C ends all gracefully.
"""

import os
import signal
import socket

import trio

import trio_smtp


class Inbox(trio_smtp.Handler):
    async def on_data(self, session, envelope, body):
        print(f"process {os.getpid()}: {len(await body.read())} octets", flush=True)


async def serve(listening: socket.socket) -> None:
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    server = trio_smtp.Server(Inbox())
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_listeners, [listener])
            await anext(signals)
            await server.shutdown(grace=30)


def main(port: int = 2525, processes: int = 4) -> None:
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    print(f"listening on port {port}", flush=True)
    workers = []
    for _ in range(processes):
        worker = os.fork()  # before Trio runs in this process
        if worker == 0:
            trio.run(serve, listening)
            return
        workers.append(worker)

    def end(*args: object) -> None:
        for worker in workers:
            os.kill(worker, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    for worker in workers:
        os.waitpid(worker, 0)


if __name__ == "__main__":
    main()
