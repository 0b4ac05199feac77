"""A token endpoint for tests: a little HTTP on 127.0.0.1 that remembers what it was asked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import trio


class TokenServer:
    """A running endpoint.

    Attributes:
        url: of the endpoint.
        forms: the forms it was sent, in order; a login by HTTP Basic is in ``"basic"``.
        answers: the next answers, as (status, JSON or octets); when there are none, a new token each time.
        life: ``expires_in`` of such a token.
        gate: no answer before it is set.
        waiting: requests that have come and are not answered.
        most: the most there were of these.
    """

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, str]] = []
        self.answers: list[tuple[int, Any]] = []
        self.life: Any = 3600
        self.gate = trio.Event()
        self.gate.set()
        self.asked = trio.Event()
        self.waiting = 0
        self.most = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        async with stream:
            try:
                while b"\r\n\r\n" not in data:
                    data += await self._more(stream)
                head, _, body = data.partition(b"\r\n\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head.decode().split("\r\n")[1:])
                }
                while len(body) < int(headers["content-length"]):
                    body += await self._more(stream)
                form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
                if "authorization" in headers:
                    form["basic"] = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
                self.forms.append(form)
                self.waiting += 1
                self.most = max(self.most, self.waiting)
                self.asked.set()
                try:
                    await self.gate.wait()
                    status, answer = self.answers.pop(0) if self.answers else (200, self._token())
                    octets = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                    await stream.send_all(
                        b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nLocation: %s\r\nContent-Length: %d\r\n"
                        b"Connection: close\r\n\r\n" % (status, self.url.encode(), len(octets)) + octets
                    )
                finally:
                    self.waiting -= 1
            except (EOFError, trio.BrokenResourceError):
                pass

    def _token(self) -> dict[str, Any]:
        return {"access_token": f"token{len(self.forms)}", "token_type": "Bearer", "expires_in": self.life}

    async def _more(self, stream: trio.SocketStream) -> bytes:
        data = await stream.receive_some()
        if not data:
            raise EOFError
        return bytes(data)


@asynccontextmanager
async def open_token_server() -> AsyncIterator[TokenServer]:
    """Run an endpoint until the end of the block."""
    server = TokenServer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/token"
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()
