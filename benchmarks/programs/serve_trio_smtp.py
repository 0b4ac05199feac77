# Under test: our server. Its hook reads the message and discards it.
from __future__ import annotations

from functools import partial

import trio

import trio_smtp

from .arguments import listening


class Inbox(trio_smtp.Handler):
    """Accepts everything."""

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        """Read the message to its end."""
        async for _ in body:
            pass
        return "ABC1"


UNLIMITED = trio_smtp.ServerConfig(
    hostname="mx.test.example",
    max_connections=None,
    max_connections_per_host=None,
    max_messages=None,
    max_junk_commands=None,
    max_message_size=None,
)


def main() -> None:
    """Serve until the process is stopped."""
    arguments = listening()
    server = trio_smtp.Server(
        Inbox(), config=UNLIMITED, ssl_context=arguments.context, implicit_tls=arguments.tls == "implicit"
    )
    trio.run(partial(server.serve, arguments.port, host="127.0.0.1"))


if __name__ == "__main__":
    main()
