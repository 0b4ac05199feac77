# Under test: aiosmtplib, one object per connection, a task for each.
from __future__ import annotations

import asyncio

import aiosmtplib

from .sending import SENDER, done, ready, sending


async def run() -> None:
    """Warm up, send, wait."""
    options = sending()
    content = options.content
    clients = [
        aiosmtplib.SMTP(hostname="127.0.0.1", port=options.port, start_tls=False, local_hostname="client.test.example")
        for _ in range(options.connections)
    ]
    for client in clients:
        await client.connect()

    async def work(client: aiosmtplib.SMTP, messages: int) -> None:
        for _ in range(messages):
            await client.sendmail(SENDER, options.recipients, content)

    async def send(messages: int) -> None:
        await asyncio.gather(*map(work, clients, options.shares(messages)))

    await send(options.warm_up)
    began = ready()
    await send(options.messages)
    done(began)
    for client in clients:
        await client.quit()


def main() -> None:
    """Run it."""
    asyncio.run(run())


if __name__ == "__main__":
    main()
