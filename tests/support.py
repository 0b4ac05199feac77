# What the server's tests share: the kit's scripted peer as a client, and handlers that remember what they were asked.
from __future__ import annotations

import contextlib
from typing import Any

import trio
from trio.testing import memory_stream_pair

from trio_smtp import Server, ServerConfig
from trio_smtp.testing import ScriptedPeer

HOSTNAME = "mx.test"
GREETING = f"220 {HOSTNAME} ESMTP trio_smtp"


class Peer(ScriptedPeer):
    """The client's end of a session, which checks every line it gets; the end of the stream is a line, too."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream, side="C")

    async def send(self, data: str | bytes) -> None:
        await super().send(data.encode() if isinstance(data, str) else data)

    async def send_line(self, line: str) -> None:
        await self.say(line)

    async def line(self) -> str:
        """The next line without CR LF, ``"<closed>"`` at the end of the stream."""
        try:
            return await super().line()
        except EOFError as exc:
            if exc.__cause__ is not None:  # reset, not closed
                raise exc.__cause__ from None
            await self.closed()
            return "<closed>"

    async def code(self) -> str:
        return (await self.reply())[-1][:3]

    async def expect(self, wanted: str) -> None:
        await self.hear(wanted)

    async def speak(self, transcript: str) -> None:
        await self.play(transcript)

    async def hello(self) -> None:
        await self.reply()
        await self.ask("EHLO client.test")

    async def rest(self) -> str:
        """All that still comes, to the end of the stream."""
        rest = bytearray(self._buffer)
        while data := await self.stream.receive_some():
            rest += data
        self._buffer.clear()
        return rest.decode()


class Recorder:
    """A handler that remembers; each hook's answer is a value, an exception to raise, or an async function.

    ``on_auth`` is there only if an answer is given for it.
    """

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.calls: list[str] = []
        self.seen: list[tuple[str, Any]] = []
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.sessions: list[Any] = []
        if "on_auth" in answers:
            self.on_auth = self._on_auth

    async def _take(self, name, session, *args):
        self.calls.append(name)
        self.seen.append((name, args[0] if args else None))
        answer = self.answers.get(name)
        if callable(answer):
            answer = await answer(session, *args)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def on_connect(self, session):
        self.sessions.append(session)
        return await self._take("on_connect", session)

    async def on_hello(self, session, name):
        return await self._take("on_hello", session, name)

    async def on_tls(self, session):
        return await self._take("on_tls", session)

    async def _on_auth(self, session, credentials):
        return await self._take("on_auth", session, credentials)

    async def on_mail(self, session, sender):
        return await self._take("on_mail", session, sender)

    async def on_rcpt(self, session, recipient):
        return await self._take("on_rcpt", session, recipient)

    async def on_data(self, session, envelope, body):
        if "on_data" in self.answers:
            return await self._take("on_data", session, envelope, body)
        self.calls.append("on_data")
        content = await body.read()
        self.messages.append((envelope.sender.address, [each.address for each in envelope.recipients], content))
        return None

    async def on_reset(self, session):
        return await self._take("on_reset", session)

    async def on_vrfy(self, session, argument):
        return await self._take("on_vrfy", session, argument)

    async def on_close(self, session):
        return await self._take("on_close", session)

    def count(self, name: str) -> int:
        return self.calls.count(name)


def make_server(handler: object = None, *, ssl_context=None, implicit_tls=False, **config: Any) -> Server:
    handler = Recorder() if handler is None else handler
    return Server(
        handler, config=ServerConfig(hostname=HOSTNAME, **config), ssl_context=ssl_context, implicit_tls=implicit_tls
    )


@contextlib.asynccontextmanager
async def serving(server: Server):
    """Connect to a server through memory, any number of times: ``async with serving(server) as connect``.

    At the end the clients go away, and all sessions must end by themselves.
    """
    peers: list[Peer] = []
    async with trio.open_nursery() as nursery:

        def connect() -> Peer:
            near, far = memory_stream_pair()
            nursery.start_soon(server.serve_stream, far)
            peers.append(Peer(near))
            return peers[-1]

        yield connect
        for peer in peers:
            await peer.aclose()


@contextlib.asynccontextmanager
async def session(handler: object = None, *, hello: bool = True, **options: Any):
    """One session, after EHLO: ``async with session(Recorder(), max_errors=3) as peer``."""
    async with serving(make_server(handler, **options)) as connect:
        peer = connect()
        if hello:
            await peer.hello()
        yield peer


MAIL = """
    C: MAIL FROM:<a@a.test>
    S: 250 2.1.0 OK
    C: RCPT TO:<b@b.test>
    S: 250 2.1.5 OK
"""
DATA = (
    MAIL
    + """
    C: DATA
    S: 354 end data with <CR><LF>.<CR><LF>
"""
)
