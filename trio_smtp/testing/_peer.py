# One end of a session that says what a test tells it to, and hears whether the other end says what it should.
#
# It knows lines, how a reply and a message's text end, and how a session opens and closes. It enforces nothing:
# whatever a peer can do wrong, it can do.
from __future__ import annotations

import textwrap
from typing import Literal

import trio

from ._certificates import Certificates, make_certificates


class ScriptedPeer:
    """The server's end of a stream, or the client's, that follows a script.

    A script is an async function that calls the methods below, or a transcript for :meth:`play`::

        S: 220 mail.test ESMTP
        C: EHLO…
        S: 250-mail.test
        S: 250 PIPELINING
        C: MAIL FROM:<a@example.com>
        S: 451 4.3.0 not now
        C: QUIT
        S: 221 bye
        C: <closed>

    ``S:`` is what the server says, ``C:`` what the client does; lines of this peer that follow each other are sent in
    one piece, those of the other must come just so. An ellipsis at the end, ``…`` or ``...``, stands for the rest of a
    line. Of the other one: ``<text>`` is a message's text up to its final dot, ``<octets 100>`` so many octets,
    ``<closed>`` the end of the stream. Of this one: ``<tls>`` is a TLS handshake, ``<stall>`` says nothing more and
    hears whatever comes until the other one has closed, ``<close>`` closes.

    What is not as it should be raises ``AssertionError``. Cancelling a method loses nothing that has come.

    Args:
        stream: owned from now on.
        side: ``"S"`` to be the server, ``"C"`` to be the client.
        certificates: for ``<tls>``; made when needed, if not given.
        name: as client, the name that the server's certificate must have.

    Attributes:
        heard: all octets that have come.
        texts: the texts of messages that have come, dots and all, without the final one.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        side: Literal["S", "C"] = "S",
        certificates: Certificates | None = None,
        name: str = "localhost",
    ) -> None:
        if side not in ("S", "C"):
            raise ValueError(f"side is 'S' or 'C', not {side!r}")
        self.side: Literal["S", "C"] = side
        self.stream: trio.abc.Stream = stream
        self.heard: bytearray = bytearray()
        self.texts: list[bytes] = []
        self.waits_for: str = "its turn"  # in the words of the script
        self._certificates = certificates
        self._name = name
        self._buffer = bytearray()

    def __repr__(self) -> str:
        side = "server" if self.side == "S" else "client"
        return f"<trio_smtp.testing.ScriptedPeer, {side}: waits for {self.waits_for}, {len(self.heard)} octets heard>"

    # -- one thing at a time

    async def say(self, *lines: str) -> None:
        """Send lines, in one piece."""
        await self.send("".join(f"{line}\r\n" for line in lines).encode())

    async def send(self, data: bytes) -> None:
        """Send octets."""
        await self.stream.send_all(data)

    async def hear(self, *lines: str) -> None:
        """Wait for lines, which must be these; one that ends with an ellipsis tells how a line begins."""
        for wanted in lines:
            self.waits_for = repr(wanted)
            begin = wanted.removesuffix("…") if wanted.endswith("…") else wanted.removesuffix("...")
            got = await self.line()
            if got != wanted and (begin == wanted or not got.startswith(begin)):
                raise AssertionError(f"heard {got!r} instead of {wanted!r}")

    async def line(self) -> str:
        """Wait for the next line, whatever it is; without its CR LF."""
        searched = 0
        while (end := self._buffer.find(b"\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 1)
            await self._more()
        return self._take(end, 2).decode("utf-8", "backslashreplace")

    async def text(self) -> bytes:
        """Wait for a message's text, dots and all; the final one is dropped. Also kept in :attr:`texts`."""
        self.waits_for = "the end of a message's text"
        searched = 0
        while not self._buffer.startswith(b".\r\n") and (end := self._buffer.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self._buffer) - 4)
            await self._more()
        text = self._take(0, 3) if self._buffer.startswith(b".\r\n") else self._take(end + 2, 3)
        self.texts.append(text)
        return text

    async def octets(self, count: int) -> bytes:
        """Wait for so many octets."""
        self.waits_for = f"{count} octets"
        while len(self._buffer) < count:
            await self._more()
        return self._take(count, 0)

    async def closed(self) -> None:
        """Wait until the other one closes, without another word."""
        self.waits_for = "the end of the stream"
        await self.drain()
        if self._buffer:
            raise AssertionError(f"heard {bytes(self._buffer)!r} instead of the end of the stream")

    async def drain(self) -> None:
        """Hear whatever comes, and answer nothing, until the other one has closed."""
        try:
            while data := await self.stream.receive_some():
                self._got(data)
        except trio.BrokenResourceError:  # gone without a word: that is an end, too
            pass

    # -- how sessions usually go: a server's words

    async def greet(self, *offers: str, name: str = "…") -> None:
        """Send a greeting, wait for EHLO, and answer with an offer: ``await peer.greet("PIPELINING", "SIZE 1000")``.

        Args:
            offers: the lines of the reply to EHLO, after the server's name.
            name: the name that the client must give; any by default.
        """
        await self.say("220 mail.test ESMTP")
        await self.hear(f"EHLO {name}")
        await self.offer(*offers)

    async def offer(self, *offers: str) -> None:
        """Send the reply to EHLO, with these lines after the server's name."""
        lines = ["mail.test hello", *offers]
        await self.say(*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")

    async def goodbye(self) -> None:
        """Wait for QUIT, answer it, and wait until the client closes."""
        await self.hear("QUIT")
        await self.say("221 bye")
        await self.closed()

    # -- and a client's

    async def reply(self) -> list[str]:
        """Wait for a whole reply: its lines."""
        self.waits_for = "a reply"
        lines = [await self.line()]
        while lines[-1][3:4] == "-":
            lines.append(await self.line())
        return lines

    async def ask(self, command: str) -> str:
        """Send a command and wait for its reply: its lines, with LF between them."""
        await self.say(command)
        return "\n".join(await self.reply())

    # -- TLS and the end

    async def start_tls(self) -> None:
        """Shake hands; what has come in clear behind the command for it is an error.

        Raises:
            trio.BrokenResourceError: the handshake failed.
        """
        if self._buffer:
            raise AssertionError(f"heard {bytes(self._buffer)!r} in clear instead of a TLS handshake")
        self.waits_for = "a TLS handshake"
        self._certificates = self._certificates or make_certificates()
        if self.side == "S":
            tls = trio.SSLStream(self.stream, self._certificates.peer_context, server_side=True)
        else:
            tls = trio.SSLStream(self.stream, self._certificates.client_context(), server_hostname=self._name)
        await tls.do_handshake()
        self.stream = tls

    async def aclose(self) -> None:
        """Close, without waiting for anybody."""
        await trio.aclose_forcefully(self.stream)

    # -- all of it

    async def play(self, transcript: str) -> None:
        """Follow a transcript to its end; the stream stays open, unless the transcript closes it.

        Raises:
            AssertionError: the other one says something else, with the line's number.
            ValueError: the transcript has a line that is none.
        """
        pending = b""
        for number, (side, line) in read_transcript(transcript):
            if side == self.side and line not in ("<close>", "<stall>", "<tls>"):
                pending += line.encode() + b"\r\n"
                continue
            if pending:
                await self.send(pending)
                pending = b""
            try:
                await (self._act(line) if side == self.side else self._expect(line))
            except (AssertionError, EOFError) as exc:
                raise AssertionError(f"line {number} of the script: {exc}") from None
        if pending:
            await self.send(pending)

    async def _act(self, line: str) -> None:
        match line:
            case "<close>":
                await self.aclose()
            case "<stall>":
                self.waits_for = "the other one to give up"
                await self.drain()
            case _:
                await self.start_tls()

    async def _expect(self, line: str) -> None:
        if line == "<text>":
            await self.text()
        elif line == "<closed>":
            await self.closed()
        elif line.startswith("<octets ") and line.endswith(">"):
            await self.octets(int(line[8:-1]))
        else:
            await self.hear(line)

    async def _more(self) -> None:
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError as exc:
            raise EOFError(f"the stream has broken, while waiting for {self.waits_for}") from exc
        if not data:
            raise EOFError(f"the stream has ended, while waiting for {self.waits_for}")
        self._got(data)

    def _got(self, data: bytes | bytearray) -> None:
        self.heard += data
        self._buffer += data

    def _take(self, count: int, drop: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[: count + drop]
        return data


def read_transcript(transcript: str) -> list[tuple[int, tuple[str, str]]]:
    """Side and words of each line, with its number, counted from the first that says something."""
    lines = [line for line in textwrap.dedent(transcript).splitlines() if line.strip()]
    result = []
    for number, line in enumerate(lines, start=1):
        side, colon, words = line.strip().partition(":")
        if side not in ("S", "C") or not colon or (words and not words.startswith(" ")):
            raise ValueError(f"line {number} of the script begins neither with 'S: ' nor with 'C: ': {line!r}")
        result.append((number, (side, words[1:])))
    return result
