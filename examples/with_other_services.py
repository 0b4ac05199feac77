"""A mail server as one service among others, with a graceful end.

SIGTERM or Ctrl-C: no new connections; idle sessions get a 421; messages in progress
finish; then all else ends.
"""

import signal

import trio

import trio_smtp


class Inbox(trio_smtp.Handler):
    def __init__(self, messages: trio.MemorySendChannel[bytes]) -> None:
        self.messages = messages

    async def on_data(self, session, envelope, body):
        message = await body.read()
        await self.messages.send(message)  # a full channel slows the sender down


async def process(messages: trio.MemoryReceiveChannel[bytes]) -> None:
    async for message in messages:
        print(f"processing {len(message)} octets")


async def main(port: int = 2525, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
    send, receive = trio.open_memory_channel[bytes](100)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process, receive)
            async with send:
                server = trio_smtp.Server(Inbox(send))
                listeners = await nursery.start(server.serve, port)
                task_status.started(listeners)
                await anext(signals)
                await server.shutdown(grace=30)
            # The channel is closed: process() takes what is left, and ends.


if __name__ == "__main__":
    trio.run(main)
