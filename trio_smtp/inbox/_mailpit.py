# Mailpit's HTTP interface, version 1, as far as the inbox has what it speaks of.
#
# Routes, names and shapes are Mailpit's, so that its clients work unchanged. Where Mailpit has tags, there are none
# here; checks of HTML and links, releasing to a real server, and thumbnails are not there.
from __future__ import annotations

import base64
import hashlib
import re
import resource
import sys
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

import trio_smtp
from trio_smtp.testing import Sink

from ._answers import conditions, find, number, ok, parse_json, read_body
from ._box import Box, find_part
from ._compose import compose
from ._guard import MAIL, NOTHING
from ._html import link_images, make_safe
from ._reading import Part, Reading
from ._store import Kept

MAX_LIST: Final = 10_000  # messages in one answer
LIMIT: Final = 50  # messages, by default
MAX_IMAGES: Final = 32 * 1024 * 1024  # octets of pictures that are put into a page

# What a browser may show by itself: neither scripts nor requests come out of these.
_SHOWN: Final = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif", "text/plain", "application/pdf"}
)
_IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/avif"})


class MailpitAPI:
    """The routes below ``/api/v1`` and ``/view``.

    Args:
        box: the messages.
        sink: takes what is to be sent.
    """

    def __init__(self, box: Box, sink: Sink) -> None:
        self._box = box
        self._sink = sink
        self._started = time.monotonic()

    def routes(self) -> list[BaseRoute]:
        """For Starlette."""
        message = "/api/v1/message/{id}"
        return [
            Route("/api/v1/messages", self.list_messages, methods=["GET"]),
            Route("/api/v1/messages", self.set_read, methods=["PUT"]),
            Route("/api/v1/messages", self.delete_messages, methods=["DELETE"]),
            Route("/api/v1/search", self.search, methods=["GET"]),
            Route("/api/v1/search", self.delete_found, methods=["DELETE"]),
            Route(message, self.show_message, methods=["GET"]),
            Route(f"{message}/headers", self.show_headers, methods=["GET"]),
            Route(f"{message}/raw", self.show_source, methods=["GET"]),
            Route(f"{message}/part/{{part}}", self.show_part, methods=["GET"]),
            Route("/api/v1/send", self.send, methods=["POST"]),
            Route("/api/v1/info", self.show_info, methods=["GET"]),
            Route("/api/v1/webui", self.show_configuration, methods=["GET"]),
            Route("/api/v1/tags", self.list_tags, methods=["GET"]),
            Route("/api/v1/chaos", self.refuse_chaos, methods=["GET", "PUT"]),
            Route("/view/{id}.html", self.show_html, methods=["GET"]),
            Route("/view/{id}.txt", self.show_text, methods=["GET"]),
            Route("/livez", self.is_alive, methods=["GET"]),
            Route("/readyz", self.is_alive, methods=["GET"]),
        ]

    # ---- lists

    async def list_messages(self, request: Request) -> Response:
        """``GET /api/v1/messages``"""
        return self._page(request, [])

    async def search(self, request: Request) -> Response:
        """``GET /api/v1/search``"""
        return self._page(request, self._query(request))

    def _page(self, request: Request, wanted: list[Any]) -> Response:
        start, limit = number(request, "start", 0), number(request, "limit", LIMIT)
        page = self._box.store.page(wanted, start=start, limit=min(limit or MAX_LIST, MAX_LIST))
        return JSONResponse(
            {
                "total": len(self._box.store),
                "unread": self._box.store.unread,
                "count": len(page.summaries),
                "messages_count": page.count,
                "messages_unread": page.unread,
                "start": start,
                "tags": [],
                "messages": page.summaries,
            }
        )

    def _query(self, request: Request) -> list[Any]:
        if not request.query_params.get("query", "").strip():
            raise HTTPException(400, "Error: no search query")
        return conditions(request)

    async def set_read(self, request: Request) -> Response:
        """``PUT /api/v1/messages``"""
        data = _change(await read_body(request), request)
        ids, search, read = data.get("IDs") or [], data.get("Search") or "", data.get("Read") or False
        if not isinstance(search, str) or not isinstance(read, bool):
            raise HTTPException(400, "Search is a text, and Read is true or false")
        if ids and search:
            raise HTTPException(400, "You may specify either IDs or a search query, not both")
        self._box.mark(_ids(ids) or self._box.store.ids(conditions(request, search)), read=read)
        return ok()

    async def delete_messages(self, request: Request) -> Response:
        """``DELETE /api/v1/messages``: without any ids, all."""
        body = await read_body(request)
        ids = _ids(_change(body, request).get("IDs") or []) if body.strip() else []
        self._box.delete(ids or self._box.store.ids())
        return ok()

    async def delete_found(self, request: Request) -> Response:
        """``DELETE /api/v1/search``"""
        self._box.delete(self._box.store.ids(self._query(request)))
        return ok()

    # ---- one message

    async def show_message(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}``; marks it as read."""
        kept = find(self._box, request)
        reading, _ = await self._read(kept)
        self._box.mark([kept.id], read=True)
        return JSONResponse(await trio.to_thread.run_sync(message_json, kept, reading))  # checksums of attachments

    async def show_headers(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}/headers``: names as Go writes them, values unfolded."""
        reading, _ = await self._read(find(self._box, request))
        fields: dict[str, list[str]] = {}
        for name, value in reading.headers:
            fields.setdefault(_canonical(name), []).append(value)
        return JSONResponse(dict(sorted(fields.items())))

    async def show_source(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}/raw``: the octets as they came."""
        kept = find(self._box, request)
        headers = {"content-type": "text/plain; charset=utf-8"}
        if request.query_params.get("dl") == "1":
            headers["content-disposition"] = f'attachment; filename="{kept.id}.eml"'
        return Response(self._content(kept), headers=headers)

    async def show_part(self, request: Request) -> Response:
        """``GET /api/v1/message/{id}/part/{part}``: an attachment, decoded."""
        reading, _ = await self._read(find(self._box, request))
        part = find_part(reading, str(request.path_params["part"]))
        if part is None:
            raise HTTPException(404, "there is no such part")
        kind = f"{part.content_type}; charset=utf-8" if part.content_type == "text/plain" else part.content_type
        how = "inline" if part.content_type in _SHOWN and request.query_params.get("dl") != "1" else "attachment"
        name = quote(part.file_name, safe="")
        headers = {"content-type": kind, "content-disposition": f"{how}; filename=\"{name}\"; filename*=UTF-8''{name}"}
        if part.content_type == "application/pdf":  # Chromium shows none in a sandbox; its viewer runs no script of it
            headers["content-security-policy"] = NOTHING.removesuffix("; sandbox")
        return Response(part.content, headers=headers)

    async def show_html(self, request: Request) -> Response:
        """``GET /view/{id}.html``: the HTML; made safe for a browser that is to show it, else as it came."""
        kept = find(self._box, request)
        reading, _ = await self._read(kept)
        if not reading.html:
            raise HTTPException(404, "This message does not contain a HTML part")
        headers = {"content-security-policy": MAIL}
        if request.query_params.get("embed") == "1" or "text/html" in request.headers.get("accept", ""):
            # In a thread: the parser of the standard library takes long for some markup that is made for that.
            page = await trio.to_thread.run_sync(make_safe, reading.html, _images(reading))
        else:
            page = link_images(
                reading.html,
                {
                    part.content_id.lower(): f"/api/v1/message/{kept.id}/part/{part.part_id}"
                    for part in reading.parts
                    if part.content_id
                },
            )
        return Response(page, headers=headers, media_type="text/html")

    async def show_text(self, request: Request) -> Response:
        """``GET /view/{id}.txt``"""
        reading, _ = await self._read(find(self._box, request))
        return PlainTextResponse(reading.text)

    async def _read(self, kept: Kept) -> tuple[Reading, bytes]:
        try:
            return await self._box.read(kept)
        except LookupError as exc:
            raise HTTPException(404, "Message not found") from exc

    def _content(self, kept: Kept) -> bytes:
        try:
            return self._box.store.content(kept.number)
        except LookupError as exc:
            raise HTTPException(404, "Message not found") from exc

    # ---- in

    async def send(self, request: Request) -> Response:
        """``POST /api/v1/send``: goes to the sink by SMTP, as any other message does."""
        limit = (self._sink.server.config.max_message_size or 32 * 1024 * 1024) * 3 // 2 + 65536
        try:
            composed = compose(parse_json(await read_body(request, limit)))
            options = {**self._sink.client_options, "stream": self._sink.connect()}
            async with trio_smtp.open_client("localhost", **options) as client:
                result = await client.send_message(
                    composed.message, sender=composed.sender, recipients=composed.recipients
                )
        except HTTPException as exc:
            return JSONResponse({"Error": exc.detail}, exc.status_code)
        except (ValueError, trio_smtp.SMTPError) as exc:
            return JSONResponse({"Error": str(exc)}, 400)
        return JSONResponse({"ID": result.reply.text.rpartition(" ")[2]})

    # ---- about the inbox

    async def show_info(self, request: Request) -> Response:
        """``GET /api/v1/info``"""
        box = self._box
        return JSONResponse(
            {
                "Version": f"trio_smtp {trio_smtp.__version__}",
                "LatestVersion": "disabled",
                "Database": box.store.path or "",
                "DatabaseSize": box.store.octets,
                "Messages": len(box.store),
                "Unread": box.store.unread,
                "Tags": {},
                "RuntimeStats": {
                    "Uptime": int(time.monotonic() - self._started),
                    "Memory": _memory(),
                    "MessagesDeleted": box.store.deleted,
                    "SMTPAccepted": box.accepted,
                    "SMTPAcceptedSize": box.accepted_octets,
                    "SMTPRejected": max(0, self._sink.server.statistics().transactions - box.accepted),
                    "SMTPIgnored": 0,
                },
            }
        )

    async def show_configuration(self, request: Request) -> Response:
        """``GET /api/v1/webui``"""
        relay: Mapping[str, object] = {
            "Enabled": False,
            "SMTPServer": "",
            "ReturnPath": "",
            "AllowedRecipients": "",
            "BlockedRecipients": "",
            "OverrideFrom": "",
            "PreserveMessageIDs": False,
            "RecipientAllowlist": "",
        }
        return JSONResponse(
            {
                "Label": "",
                "MessageRelay": relay,
                "SpamAssassin": False,
                "ChaosEnabled": False,
                "DuplicatesIgnored": False,
                "HideDeleteAllButton": False,
            }
        )

    async def list_tags(self, request: Request) -> Response:
        """``GET /api/v1/tags``: there are none."""
        return JSONResponse([])

    async def refuse_chaos(self, request: Request) -> Response:
        """``/api/v1/chaos``: as Mailpit without it; ``/api/faults`` can more."""
        raise HTTPException(400, "Chaos is not enabled; faults are at /api/faults")

    async def is_alive(self, request: Request) -> Response:
        """``GET /livez``, ``GET /readyz``"""
        return ok()


def message_json(kept: Kept, reading: Reading) -> dict[str, Any]:
    """What Mailpit calls a Message; ``Read`` is there for clients of its first versions."""
    created = kept.summary["Created"]
    return {
        **{key: kept.summary[key] for key in ("ID", "MessageID", "From", "To", "Cc", "Bcc", "ReplyTo")},
        "ReturnPath": reading.return_path or kept.facts["Sender"]["Address"],
        "Subject": kept.summary["Subject"],
        "ListUnsubscribe": _list_unsubscribe(reading),
        "Date": created if reading.date is None else reading.date.isoformat().replace("+00:00", "Z"),
        "Tags": [],
        "Username": kept.summary["Username"],
        "Text": reading.text,
        "HTML": reading.html,
        "Size": kept.summary["Size"],
        "Inline": [_part_json(part) for part in reading.inline],
        "Attachments": [_part_json(part) for part in reading.attachments],
        "Read": True,
    }


def _part_json(part: Part) -> dict[str, Any]:
    sums = {name: hashlib.new(name.lower(), part.content, usedforsecurity=False) for name in ("MD5", "SHA1", "SHA256")}
    return {
        "PartID": part.part_id,
        "FileName": part.file_name,
        "ContentType": part.content_type,
        "ContentID": part.content_id,
        "Size": len(part.content),
        "Checksums": {name: digest.hexdigest() for name, digest in sums.items()},
    }


def _list_unsubscribe(reading: Reading) -> dict[str, Any]:
    """Of the field: at most one address of mail and one of the web, each in angle brackets (RFC 2369)."""
    header = reading.field("List-Unsubscribe")
    links = re.findall(r"<([^<>]*)>", re.sub(r"\([^()]*\)", "", header))
    good = [link for link in links if re.match(r"(?:mailto:|https?://)\w", link, re.IGNORECASE) and " " not in link]
    errors = [f'"{link}" is neither mailto: nor http(s)://' for link in links if link not in good]
    schemes = [link[:4].lower() for link in good]
    if header and not links:
        errors.append(f'"{header}" no valid unsubscribe links found')
    if len(set(schemes)) < len(schemes):
        errors.append(f'"{header}" should include a maximum of one email and one HTTP link')
    return {
        "Header": header,
        "Links": good,
        "Errors": ", ".join(errors),
        "HeaderPost": reading.field("List-Unsubscribe-Post") if header else "",
    }


def _images(reading: Reading) -> dict[str, str]:
    """The pictures of a message as ``data:`` addresses, by their content ids."""
    images: dict[str, str] = {}
    room = MAX_IMAGES
    for part in reading.parts:
        room -= len(part.content)
        if part.content_id and part.content_type in _IMAGES and room >= 0:
            images[part.content_id.lower()] = (
                f"data:{part.content_type};base64,{base64.b64encode(part.content).decode()}"
            )
    return images


def _canonical(name: str) -> str:
    """``MESSAGE-id`` → ``Message-Id``, as Go's textproto does."""
    return "-".join(word.capitalize() for word in name.split("-"))


def _change(body: bytes, request: Request) -> dict[str, Any]:
    """The JSON of a change; or a form's fields, which a Python client of Mailpit sends."""
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = parse_qs(body.decode("latin-1"), max_num_fields=100_000)
        read = (form.get("Read") or form.get("read") or [""])[-1]
        return {"IDs": form.get("ids") or form.get("IDs"), "Read": read.lower() == "true"}
    data = parse_json(body)
    if not isinstance(data, dict):
        raise HTTPException(400, "the body is a JSON object")
    names = {"ids": "IDs", "read": "Read", "search": "Search"}  # Go reads them in any case
    return {names.get(str(key).lower(), str(key)): value for key, value in data.items()}


def _ids(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise HTTPException(400, "IDs is a list of texts")
    return value


def _memory() -> int:
    """The most octets of memory that the process has used."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
