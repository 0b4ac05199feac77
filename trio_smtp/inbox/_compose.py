# A message from the JSON of `POST /api/v1/send`: the standard library's EmailMessage.
from __future__ import annotations

import base64
import binascii
import mimetypes
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from typing import Any, Final

MAX_ADDRESSES: Final = 1000
_OURS: Final = frozenset(
    {
        "to",
        "from",
        "cc",
        "bcc",
        "reply-to",
        "date",
        "subject",
        "content-type",
        "mime-version",
        "content-transfer-encoding",
    }
)


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A message to send.

    Attributes:
        message: without Bcc.
        sender: of the envelope.
        recipients: of the envelope.
    """

    message: EmailMessage
    sender: str
    recipients: list[str]


def compose(data: object) -> Composed:
    """The message that the JSON describes.

    Raises:
        ValueError: it does not describe any; the text says why.
    """
    if not isinstance(data, dict):
        raise ValueError("the body is a JSON object")
    message = EmailMessage(policy=SMTP)
    [author] = _mailboxes([data.get("From")], "From")
    mailboxes = {key: _mailboxes(_list(data, key), key) for key in ("To", "Cc", "ReplyTo")}
    hidden = _mailboxes([{"Email": each} for each in _list(data, "Bcc")], "Bcc")
    message["From"] = author
    for key, name in (("To", "To"), ("Cc", "Cc"), ("ReplyTo", "Reply-To")):
        if mailboxes[key]:
            message[name] = mailboxes[key]
    message["Subject"] = _text(data, "Subject")
    message["Date"] = format_datetime(localtime())
    _add_headers(message, data.get("Headers") or {})
    tags = _list(data, "Tags")
    if tags:
        message["X-Tags"] = ", ".join(map(str, tags))
    if "message-id" not in message:
        message["Message-ID"] = make_msgid(domain="inbox.localhost")
    _add_texts(message, _text(data, "Text"), _text(data, "HTML"))
    for attachment in _list(data, "Attachments"):
        _attach(message, attachment)
    envelope = [each.addr_spec for each in (*mailboxes["To"], *mailboxes["Cc"], *hidden)]
    if not envelope:
        raise ValueError("there is no recipient")
    return Composed(message=message, sender=author.addr_spec, recipients=envelope)


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key) or ""
    if not isinstance(value, str):
        raise ValueError(f"{key} is a text")
    return value


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list) or len(value) > MAX_ADDRESSES:
        raise ValueError(f"{key} is a list of at most {MAX_ADDRESSES}")
    return value


def _mailboxes(values: list[Any], key: str) -> list[Address]:
    result = []
    for value in values:
        email, name = (value.get("Email"), value.get("Name") or "") if isinstance(value, dict) else (None, "")
        if not isinstance(email, str) or not isinstance(name, str):
            raise ValueError(f"{key} has no address")
        try:
            address = Address(display_name=name, addr_spec=email)
        except Exception as exc:  # the standard library's parser raises IndexError and AttributeError, too
            raise ValueError(f"invalid {key} address: {email}") from exc
        if not address.domain:
            raise ValueError(f"invalid {key} address: {email}")
        result.append(address)
    return result


def _add_headers(message: EmailMessage, headers: object) -> None:
    if not isinstance(headers, dict):
        raise ValueError("Headers is an object")
    for name, value in headers.items():
        if name.lower() in _OURS:
            raise ValueError(f'cannot overwrite header: "{name}"')
        if (
            not isinstance(value, str)
            or not name.isascii()
            or not name.isprintable()
            or not name
            or set(name) & set(": ")
        ):
            raise ValueError(f"{name!r} is no header field")
        message[name] = value  # a ValueError for CR and LF


def _add_texts(message: EmailMessage, text: str, html: str) -> None:
    if text or not html:
        message.set_content(text or "\n")
    if html and text:
        message.add_alternative(html, subtype="html")
    elif html:
        message.set_content(html, subtype="html")


def _attach(message: EmailMessage, data: object) -> None:
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("Content"), str)
        or not isinstance(data.get("Filename"), str)
    ):
        raise ValueError("an attachment has Content and Filename")
    name = data["Filename"]
    try:
        content = base64.b64decode(data["Content"].rpartition(",")[2], validate=True)  # "data:image/png;base64,…" too
    except (binascii.Error, ValueError) as exc:
        raise ValueError(f'error decoding base64 attachment "{name}": {exc}') from exc
    kind = data.get("ContentType") or mimetypes.guess_type(name)[0] or "application/octet-stream"
    main, slash, sub = str(kind).partition(";")[0].strip().partition("/")
    if not slash or not (main + sub).isascii() or main == "multipart":
        raise ValueError(f"{kind!r} is no content type")
    content_id = data.get("ContentID")
    extra: Any = {"cid": f"<{content_id}>", "disposition": "inline"} if content_id else {"disposition": "attachment"}
    message.add_attachment(content, maintype=main, subtype=sub, filename=name, **extra)
