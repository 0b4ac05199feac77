# Our own HTTP interface: waiting for a message, events, faults, the dialogue, and what the page needs to know.
from __future__ import annotations

import math
from importlib.resources import files
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from trio_smtp.testing import Sink

from ._answers import find, parse_json, read_body
from ._box import Box, matcher
from ._events import Events, TooManyError
from ._facts import codes, links, warnings
from ._guard import PAGE
from ._reading import Reading
from ._rules import Rules
from ._store import Kept

MAX_WAITERS: Final = 100
MAX_TIMEOUT: Final = 600.0  # seconds of one request that waits
TIMEOUT: Final = 30.0  # seconds, by default
SIGN_OF_LIFE: Final = 15.0  # seconds between those of a connection with events

_FILES: Final = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class OwnAPI:
    """The routes of our own.

    Args:
        box: the messages.
        sink: where they come from.
        rules: its faults.
        about: what the page says of the inbox.
    """

    def __init__(self, box: Box, sink: Sink, rules: Rules, about: dict[str, Any]) -> None:
        self._box = box
        self._sink = sink
        self._rules = rules
        self._about = about
        self._waiting = trio.CapacityLimiter(MAX_WAITERS)
        folder = files(__package__) / "page"
        self._files = {name: (folder / name).read_bytes() for name in _FILES}

    def routes(self) -> list[BaseRoute]:
        """For Starlette."""
        return [
            Route("/api/wait", self.wait, methods=["GET"]),
            Route("/api/events", self.events, methods=["GET"]),
            WebSocketRoute("/api/events", self.events_for_mailpit),
            Route("/api/faults", self.show_faults, methods=["GET"]),
            Route("/api/faults", self.set_faults, methods=["PUT"]),
            Route("/api/faults", self.forget_faults, methods=["DELETE"]),
            Route("/api/v1/message/{id}/transcript", self.show_transcript, methods=["GET"]),
            Route("/api/v1/message/{id}/facts", self.show_facts, methods=["GET"]),
            Route("/api/about", self.show_about, methods=["GET"]),
            Route("/", self.show_file, methods=["GET"]),
            Route("/static/{file}", self.show_file, methods=["GET"]),
        ]

    # ---- waiting

    async def wait(self, request: Request) -> Response:
        """``GET /api/wait``: 200 with the newest message that fits, as soon as there is one; else 408."""
        query = request.query_params
        matches = matcher(to=query.get("to", ""), sender=query.get("from", ""), subject=query.get("subject", ""))
        try:
            self._waiting.acquire_on_behalf_of_nowait(request)
        except trio.WouldBlock:
            raise HTTPException(503, f"{MAX_WAITERS} others are waiting") from None
        try:
            kept = self._box.store.newest_that(matches)  # also where there is no time to wait
            with trio.move_on_after(_timeout(query.get("timeout", ""))):
                kept = kept or await self._box.wait_for(matches)
            if kept is None:
                return PlainTextResponse("no such message came in time", 408)
            reading, _ = await self._box.read(kept)
        except LookupError:
            return PlainTextResponse("the message came, and was deleted", 408)
        finally:
            self._waiting.release_on_behalf_of(request)
        return JSONResponse({"Message": kept.summary, "Links": links(reading), "Codes": codes(reading)})

    async def events(self, request: Request) -> Response:
        """``GET /api/events``: server-sent events."""
        return _EventStream(self._box.events)

    async def events_for_mailpit(self, socket: WebSocket) -> None:
        """The same by WebSocket, as Mailpit has it."""
        try:
            listener = self._box.events.listen()
        except TooManyError:
            await socket.close(1013)
            return
        with listener:
            await socket.accept()
            try:
                async with trio.open_nursery() as nursery:

                    async def watch() -> None:
                        while (await socket.receive())["type"] != "websocket.disconnect":
                            pass
                        nursery.cancel_scope.cancel(reason="the client has gone")

                    nursery.start_soon(watch)
                    while True:
                        await socket.send_text(await listener.next())
            except* (WebSocketDisconnect, RuntimeError):  # gone while something was sent
                pass

    # ---- faults

    async def show_faults(self, request: Request) -> Response:
        """``GET /api/faults``"""
        return JSONResponse({"rules": self._rules.to_json()})

    async def set_faults(self, request: Request) -> Response:
        """``PUT /api/faults``: these rules instead of those before."""
        data = parse_json(await read_body(request))
        if not isinstance(data, dict) or data.keys() != {"rules"}:
            raise HTTPException(400, 'the body is {"rules": […]}')
        try:
            self._rules.replace(data["rules"])
        except ValueError as exc:
            raise HTTPException(400, str(exc)) from exc
        return await self.show_faults(request)

    async def forget_faults(self, request: Request) -> Response:
        """``DELETE /api/faults``"""
        self._rules.replace([])
        return await self.show_faults(request)

    # ---- one message

    async def show_transcript(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}/transcript``: the SMTP dialogue, secrets masked."""
        return PlainTextResponse(self._box.store.transcript(find(self._box, request).number))

    async def show_facts(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}/facts``: the envelope, the connection, warnings, links and codes."""
        kept = find(self._box, request)
        try:
            reading, content = await self._box.read(kept)
        except LookupError as exc:
            raise HTTPException(404, "Message not found") from exc
        return JSONResponse(await trio.to_thread.run_sync(_facts_json, kept, reading, content))

    # ---- the page

    async def show_about(self, request: Request) -> Response:
        """``GET /api/about``: where mail is to be sent to."""
        return JSONResponse(self._about)

    async def show_file(self, request: Request) -> Response:
        """The page and its files."""
        name = str(request.path_params.get("file", "index.html"))
        if name not in self._files:
            raise HTTPException(404, "there is no such file")
        headers = {"content-type": _FILES[name], "content-security-policy": PAGE}
        return Response(self._files[name], headers=headers)


class _EventStream(Response):
    """Server-sent events until the client goes. A response of its own: Starlette's would want a generator."""

    def __init__(self, events: Events) -> None:
        super().__init__(media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            listener = self._events.listen()
        except TooManyError:
            await PlainTextResponse("there are too many listeners", 503)(scope, receive, send)
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        with listener:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    nursery.cancel_scope.cancel(reason="the client has gone")

                nursery.start_soon(watch)
                while scope["method"] != "HEAD":
                    line = ": still here"
                    with trio.move_on_after(SIGN_OF_LIFE):
                        line = f"data: {await listener.next()}"
                    await send({"type": "http.response.body", "body": f"{line}\n\n".encode(), "more_body": True})
                nursery.cancel_scope.cancel(reason="HEAD has no content")
            await send({"type": "http.response.body", "body": b""})


def _facts_json(kept: Kept, reading: Reading, content: bytes) -> dict[str, Any]:
    facts = kept.facts
    smtputf8 = "SMTPUTF8" in facts["Sender"]["Params"]
    return {
        **facts,
        "HasText": reading.has_text,
        "Warnings": warnings(reading, content, recipients=len(facts["Recipients"]), smtputf8=smtputf8),
        "Links": links(reading),
        "Codes": codes(reading),
        "Headers": [list(field) for field in reading.headers],
    }


def _timeout(text: str) -> float:
    try:
        seconds = float(text) if text else TIMEOUT
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_TIMEOUT:
        raise HTTPException(400, f"timeout is a number of seconds, 0 to {MAX_TIMEOUT:.0f}")
    return seconds
