# Under test: aiosmtpd, on asyncio's own loop or on uvloop.
from __future__ import annotations

import asyncio

from aiosmtpd.smtp import SMTP

from .arguments import listening


class Inbox:
    """Accepts everything. aiosmtpd has read the message before."""

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:  # noqa: N802
        """Accept."""
        return "250 2.0.0 OK: queued as ABC1"


async def serve() -> None:
    """Serve until the process is stopped."""
    arguments = listening()

    def make() -> SMTP:
        return SMTP(
            Inbox(),
            hostname="mx.test.example",
            ident="",
            data_size_limit=None,
            tls_context=arguments.context if arguments.tls == "starttls" else None,
            loop=loop,
        )

    loop = asyncio.get_running_loop()
    context = arguments.context if arguments.tls == "implicit" else None
    server = await loop.create_server(make, "127.0.0.1", arguments.port, ssl=context, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Choose the loop."""
    if listening().variant == "uvloop":
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
