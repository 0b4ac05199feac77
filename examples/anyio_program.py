"""An AnyIO program on Trio: trio_smtp inside AnyIO's task groups and cancel scopes."""

import anyio

import trio_smtp


async def notify(host: str, port: int, address: str) -> None:
    async with trio_smtp.open_client(host, port) as client:
        await client.send(
            "us@example.com",
            [address],
            f"To: {address}\r\nSubject: Hello\r\n\r\nHi!\r\n",
        )


async def main(host: str = "localhost", port: int = 2525) -> None:
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for address in ("a@example.com", "b@example.com"):
                group.start_soon(notify, host, port, address)


if __name__ == "__main__":
    anyio.run(main, backend="trio")
