"""A relay: mail goes on to the next server while it comes in.

The client hears what that server says.

    python relay.py localhost 2526

The command line does the same: ``trio-smtp relay --to localhost:2526``.
"""

import sys

import trio

import trio_smtp


async def main(
    next_host: str,
    next_port: int,
    port: int = 2525,
    *,
    task_status=trio.TASK_STATUS_IGNORED,
) -> None:
    config = trio_smtp.ServerConfig(handler_timeout=900)
    async with trio_smtp.open_pool(next_host, next_port, max_connections=50) as pool:
        await trio_smtp.serve(
            trio_smtp.forward(pool),
            port,
            host="127.0.0.1",  # it relays for every client that can connect
            config=config,
            task_status=task_status,
        )


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
