# What the two HTTP interfaces share: reading requests within limits, and errors that become answers.
from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse

from ._box import Box
from ._query import Condition, QueryError, parse_query
from ._store import Kept

MAX_BODY: Final = 1024 * 1024  # octets of a request, but for one that sends a message
BODY_TIMEOUT: Final = 60.0  # seconds that a request's body may take
MAX_ID: Final = 64  # characters


def ok() -> PlainTextResponse:
    """Mailpit's answer to a change."""
    return PlainTextResponse("ok")


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: 413 if it is too large, 408 if it takes too long, 400 if the client goes in between.
    """
    body = bytearray()
    try:
        with trio.move_on_after(BODY_TIMEOUT) as scope:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > limit:
                        raise HTTPException(413, f"a body of at most {limit} octets")
    except ClientDisconnect as exc:
        raise HTTPException(400, "the body has no end") from exc
    if scope.cancelled_caught:
        raise HTTPException(408, "the body took too long")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """A body as JSON.

    Raises:
        HTTPException: 400, it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise HTTPException(400, f"the body is no JSON: {exc}") from exc


def conditions(request: Request, query: str | None = None) -> list[Condition]:
    """Those of a query, by default of the request's.

    Raises:
        HTTPException: 400, it cannot be understood.
    """
    text = request.query_params.get("query", "") if query is None else query
    try:
        return parse_query(text.strip(), request.query_params.get("tz", ""))
    except QueryError as exc:
        raise HTTPException(400, str(exc)) from exc


def number(request: Request, name: str, default: int) -> int:
    """A whole number of the request's query, from 0 on; what is none counts as not given, as with Mailpit."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def find(box: Box, request: Request) -> Kept:
    """The message that the path names.

    Raises:
        HTTPException: 404, it is not there.
    """
    name = str(request.path_params["id"])
    kept = box.find(name, conditions(request) if name == "latest" else ()) if len(name) <= MAX_ID else None
    if kept is None:
        raise HTTPException(404, "Message not found")
    return kept
