# Under test: smtpproto's asynchronous sessions, on Trio. It accepts only an EmailMessage, and serialises it each time.
from __future__ import annotations

import email
import email.policy
from contextlib import AsyncExitStack
from email.message import EmailMessage

import trio
from smtpproto.client import AsyncSMTPClient, AsyncSMTPSession

from .sending import SENDER, done, ready, sending


async def run() -> None:
    """Warm up, send, wait."""
    options = sending()
    content = email.message_from_bytes(options.content, EmailMessage, policy=email.policy.SMTP)
    client = AsyncSMTPClient(
        "127.0.0.1", options.port, domain="client.test.example", max_concurrent_connections=options.connections
    )
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(client.connect()) for _ in range(options.connections)]

        async def work(session: AsyncSMTPSession, messages: int) -> None:
            for _ in range(messages):
                await session.send_message(content, sender=SENDER, recipients=options.recipients)

        async def send(messages: int) -> None:
            async with trio.open_nursery() as nursery:
                for session, share in zip(sessions, options.shares(messages), strict=True):
                    nursery.start_soon(work, session, share)

        await send(options.warm_up)
        began = ready()
        await send(options.messages)
        done(began)


def main() -> None:
    """Run it."""
    trio.run(run)


if __name__ == "__main__":
    main()
