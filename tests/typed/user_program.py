"""A user's program, in types: what must pass ``mypy --strict`` and pyright's strict mode. See tests/test_typing.py."""

from collections.abc import AsyncIterator, Mapping
from email.message import EmailMessage
from functools import partial

import trio

import trio_smtp
from trio_smtp import Reply, testing

USERS: Mapping[str, str] = {"me": "secret"}


class Inbox(trio_smtp.Handler):
    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []

    async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
        return credentials.check_password(USERS.get(credentials.username))

    async def on_rcpt(self, session: trio_smtp.Session, recipient: trio_smtp.Recipient) -> Reply | None:
        if recipient.domain != "example.com":
            raise trio_smtp.Reject(550, "relaying denied", "5.7.1")
        return Reply(450, "later", "4.2.0") if recipient.params.get("NOTIFY") == "NEVER" else None

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        chunks = [chunk async for chunk in body]
        sender: str = envelope.sender.address
        self.messages.append((sender, [each.address for each in envelope.recipients], b"".join(chunks)))
        return f"{session.id}-{session.transaction_count}"


def describe(error: trio_smtp.SMTPError) -> str:
    code: int | None = error.reply.code if error.reply is not None else None
    again = error.delivery is trio_smtp.Delivery.NOT_SENT
    return f"{error.stage}: {code} {'try again' if again else error.delivery}"


async def pieces() -> AsyncIterator[bytes]:
    yield b"Subject: hello\r\n\r\n"
    yield b"hello\r\n"


async def send_one(port: int, message: EmailMessage) -> dict[str, Reply]:
    async with trio_smtp.open_client("127.0.0.1", port, auth=("me", "secret"), allow_insecure_auth=True) as client:
        result: trio_smtp.SendResult = await client.send("me@example.com", ["you@example.com"], pieces())
        await client.send_message(message)
        async with client.transaction("me@example.com", ["a@example.com", "b@example.com"]) as sending:
            await sending.send_all(b"Subject: pushed\r\n\r\n")
        limit: int | None = client.extensions.size
        print(result.accepted, sending.result, limit, client.tls.version if client.tls else "in clear")
        return dict(result.refused)


async def send_all(port: int, messages: list[EmailMessage]) -> int:
    config = trio_smtp.PoolConfig(max_connections=2, retry_temporary=1)
    failed = 0
    async with trio_smtp.open_pool("127.0.0.1", port, config=config, tls="none") as pool:
        async with pool.send_many(messages) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    failed += isinstance(outcome.error, trio_smtp.SMTPError)
                elif outcome.result is not None:
                    print(outcome.result.reply, outcome.job)
        print(pool.statistics())
    return failed


async def main() -> None:
    message = EmailMessage()
    message["From"], message["To"] = "me@example.com", "you@example.com"
    config = trio_smtp.ServerConfig(allow_insecure_auth=True, max_message_size=1_000_000)
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio_smtp.serve, Inbox(), 0, host="127.0.0.1", config=config)
        )
        port: int = listeners[0].socket.getsockname()[1]
        try:
            await send_one(port, message)
        except trio_smtp.RecipientsRefusedError as error:
            print({address: reply.code for address, reply in error.refused.items()}, describe(error))
        print(await send_all(port, [message, message]))
        nursery.cancel_scope.cancel()


async def kit() -> None:
    with testing.virtual_network() as network:
        async with testing.open_sink(host="mail.example.com", port=25, tls="starttls") as sink:
            point: testing.FaultPoint = sink.refuse("mail", 451, "later", times=1)
            stream = testing.FaultyStream(sink.connect(), send=testing.Split(100))
            async with trio_smtp.open_client("mail.example.com", stream=stream, **sink.client_options) as client:
                try:
                    await client.send("me@example.com", ["you@example.com"], b"Subject: refused\r\n\r\n")
                except trio_smtp.SenderRefusedError as error:
                    print(describe(error))
                await client.send("me@example.com", ["you@example.com"], b"Subject: taken\r\n\r\n")
            received: testing.ReceivedMessage = (await sink.wait_for())[0]
            print(received.message["Subject"], point.count, network.connections)
    async with testing.open_script("S: 220 mail.test\nC: QUIT") as script:
        peer = testing.ScriptedPeer(script.connect(), side="C")
        await peer.play("S: 220…\nC: QUIT")


if __name__ == "__main__":
    trio.run(main)
