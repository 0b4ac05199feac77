"""A server on a UNIX socket, for programs of the same machine; and a client of it."""

import trio

import trio_smtp


class Inbox(trio_smtp.Handler):
    async def on_data(self, session, envelope, body):
        print(f"{len(await body.read())} octets")


async def main(path: str = "mail.sock") -> None:
    # Its owner and its group may connect.
    listener = await trio_smtp.open_unix_listener(path, mode=0o660)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_smtp.Server(Inbox()).serve_listeners, [listener])
        async with trio_smtp.open_client(f"unix:{path}") as client:
            await client.send(
                "me@example.com", ["you@example.com"], b"Subject: hi\r\n\r\nHello!\r\n"
            )
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
