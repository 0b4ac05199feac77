"""A user's program, in types: what must pass ``mypy --strict`` and pyright's strict mode. See tests/test_typing.py."""

from collections.abc import AsyncIterator, Mapping
from email.message import EmailMessage
from functools import partial

import trio
import trio.testing

import trio_smtp
from trio_smtp import Reply, inbox, testing

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


async def by_another_way(host: str, port: int) -> trio.abc.Stream:
    return await trio.open_tcp_stream(host, port)


class Stamp:
    def sign(self, message: bytes, /) -> bytes:
        return b"X-Size: %d\r\n" % len(message)


async def relay(port: int) -> None:
    connect: trio_smtp.Connect = by_another_way
    signer: trio_smtp.MessageSigner = Stamp()
    async with trio_smtp.open_pool("mail.example.com", connect=connect, sign=signer) as pool:
        handler: trio_smtp.Handler = trio_smtp.forward(pool, unknown="refuse")
        await trio_smtp.serve(handler, port)


def describe(error: trio_smtp.SMTPError) -> str:
    code: int | None = error.reply.code if error.reply is not None else None
    again = error.delivery is trio_smtp.Delivery.NOT_SENT
    return f"{error.stage}: {code} {'try again' if again else error.delivery}"


async def pieces() -> AsyncIterator[bytes]:
    yield b"Subject: hello\r\n\r\n"
    yield b"hello\r\n"


def login(token: trio_smtp.TokenSource | None = None) -> trio_smtp.Auth:
    return trio_smtp.Password("me", USERS["me"]) if token is None else trio_smtp.OAuth("me", token)


async def send_one(port: int, message: EmailMessage, *, tls: trio_smtp.TLSMode = "auto") -> dict[str, Reply]:
    params: trio_smtp.Params = {"BODY": "8BITMIME"}
    content: trio_smtp.ContentLike = pieces()
    async with trio_smtp.open_client("127.0.0.1", port, tls=tls, auth=login(), allow_insecure_auth=True) as client:
        result: trio_smtp.SendResult = await client.send(
            "me@example.com", ["you@example.com"], content, mail_params=params
        )
        await client.send_message(message)
        async with client.transaction("me@example.com", ["a@example.com", "b@example.com"]) as sending:
            await sending.send_all(b"Subject: pushed\r\n\r\n")
        limit: int | None = client.extensions.size
        print(result.accepted, sending.result, limit, client.tls.version if client.tls else "in clear")
        return dict(result.refused)


def trace(event: trio_smtp.TraceEvent) -> None:
    name: trio_smtp.TraceName = event.name
    print(f"{name} {event.detail} {event.seconds:.3f}")


async def failures(outcomes: trio_smtp.Outcomes[EmailMessage]) -> list[EmailMessage]:
    failed: list[EmailMessage] = []
    async for outcome in outcomes:
        if outcome.error is not None:
            failed.append(outcome.job)
        elif outcome.result is not None:
            print(outcome.result.reply, outcome.job["Subject"])
    return failed


async def send_all(hosts: trio_smtp.HostsLike, messages: list[EmailMessage]) -> int:
    config = trio_smtp.PoolConfig(max_connections=2, retry_temporary=1, trace=trace)
    async with trio_smtp.open_pool(hosts, config=config, tls="none", auth=login(), allow_insecure_auth=True) as pool:
        try:
            await pool.send_message(messages[0], sender="", rcpt_params={"you@example.com": {"NOTIFY": "NEVER"}})
        except (trio_smtp.PoolFullError, trio_smtp.PoolClosedError, trio_smtp.ExtensionNotSupportedError) as error:
            print(describe(error))
        async with pool.send_many(messages) as outcomes:
            failed = await failures(outcomes)
        await pool.drain()
        print(pool.statistics().sent)
    return len(failed)


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
        print(await send_all([("127.0.0.1", port)], [message, message]))
        nursery.cancel_scope.cancel()


async def in_memory() -> None:
    server = trio_smtp.Server(Inbox(), config=trio_smtp.ServerConfig(hostname="mx.example.com"))
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        async with trio_smtp.open_client("mx.example.com", stream=near, local_hostname="me.example.com") as client:
            reply: Reply = await client.verify("postmaster")
            peers = [session.peer for session in server.sessions]
            print(reply.code, reply.enhanced, peers, server.statistics().connections, client.extensions.limits.rcptmax)
        await server.shutdown(grace=1)


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
    transcript: testing.Script = "S: 220 mail.test\nC: QUIT"
    async with testing.open_script(transcript) as script:
        peer = testing.ScriptedPeer(script.connect(), side="C")
        await peer.play("S: 220…\nC: QUIT")


async def catch() -> None:
    async with inbox.open_inbox(keep=10, auth="any") as box:
        async with trio_smtp.open_client(box.host, box.smtp_port, tls="none") as client:
            await client.send("me@example.com", ["you@example.com"], b"Subject: code 1234\r\n\r\nhello\r\n")
        message: testing.ReceivedMessage = await box.wait_for(to="you@example.com")
        box.faults = [{"recipient": "*", "reply": "450 later", "times": 1}]
        codes: list[str] = inbox.find_codes(message)
        print(codes, inbox.find_links(message), box.url, len(box.faults))
        box.clear()
    await trio.to_thread.run_sync(without_async)


def without_async() -> None:
    with testing.run_sink() as sink, inbox.run_inbox(keep=10) as box:
        sink.refuse("rcpt", 450)
        kept: list[testing.ReceivedMessage] = [*sink.messages, *box.messages]
        print(len(kept), sink.port, box.url)


if __name__ == "__main__":
    trio.run(main)
