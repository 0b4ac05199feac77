"""A relay: mail goes on to the next server while it comes in.

The client hears what that server says.

The command line does the same: ``trio-smtp relay --to mail.example.com:587``.
"""

import trio

import trio_smtp


async def main(
    port: int = 2525, host: str = "mail.example.com", next_port: int = 25, *, task_status=trio.TASK_STATUS_IGNORED
) -> None:
    config = trio_smtp.ServerConfig(enabled_extensions=("DSN",), handler_timeout=900)
    async with trio_smtp.open_pool(host, next_port, max_connections=50) as pool:
        await trio_smtp.serve(trio_smtp.forward(pool), port, config=config, task_status=task_status)


if __name__ == "__main__":
    trio.run(main)
