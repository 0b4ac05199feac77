# HTML of a message: made safe to show, its text, and its links.
#
# Guarantee: what `make_safe` returns has only elements and attributes of the two lists below, is written anew, and
# names nothing outside itself except where links lead, nor do its styles (_css.py). It is the second of two fences; the
# first is the policy and the sandbox that the page is served with (_guard.py). Our parsers (_markup.py, _css.py) are no
# browser's, so nothing is passed on as it came: what is understood differently is lost, not shown.
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape, unescape
from typing import Final

from ._css import addresses_in, clean
from ._markup import End, Start, Text, cut, names

MAX_HTML: Final = 2 * 1024 * 1024  # characters that are shown
MAX_SEARCHED: Final = 256 * 1024  # characters whose text is looked at
MAX_LINKS: Final = 1000
MAX_DEPTH: Final = 500  # elements inside each other; further ones leave only their content


_ELEMENTS: Final = names(
    "a abbr address article aside b bdi bdo big blockquote body br caption center cite code col colgroup dd del details"
    " dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p"
    " pre q rp rt ruby s samp section small span strike strong sub summary sup table tbody td tfoot th thead time"
    " tr tt u ul var wbr"
)
_EMPTY: Final = names("br col hr img wbr")
_ATTRIBUTES: Final = names(
    "align alt bgcolor border cellpadding cellspacing class color colspan dir face height hspace id lang nowrap role"
    " rowspan scope size span start style title type valign value vspace width"
)
_WITHOUT_CONTENT: Final = names("audio canvas math select svg template video")
_BLOCKS: Final = names(
    "address article blockquote br center dd div dl dt footer h1 h2 h3 h4 h5 h6 header hr li main ol p pre section"
    " table tr ul"
)
_ARIA: Final = re.compile(r"aria-[a-z]{1,30}")
_REMOTE: Final = re.compile(r"(?:https?:)?//", re.IGNORECASE)
_LINK: Final = re.compile(r"(?:https?://|mailto:|tel:)\S+", re.IGNORECASE)
_DATA_IMAGE: Final = re.compile(r"data:image/(?:png|gif|jpeg|webp|bmp|avif);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE)
_SRCSET: Final = re.compile(r"([^\s,](?:\S*[^\s,])?)(?:,+|\s[^,]*|\Z)")
_CID_IN_ATTRIBUTE: Final = re.compile(r"""(=\s*["']?)cid:([^"'\s>]{1,255})""", re.IGNORECASE)

_HEAD: Final = (
    '<!doctype html><html><head><meta charset="utf-8"><meta name="color-scheme" content="light">'
    '<meta name="viewport" content="width=device-width"><base target="_blank">'
    "<style>body{background:#fff;color:#000;font-family:sans-serif;margin:12px;overflow-wrap:break-word}"
    "img{max-width:100%}</style></head>"
)


def make_safe(html: str, images: Mapping[str, str]) -> str:
    """A whole page with what of a message's HTML can be shown safely.

    Args:
        html: as it came.
        images: content ids of the message's images, in lower case, to ``data:`` addresses.
    """
    writer = _Writer(images)
    for piece in cut(html[:MAX_HTML]):
        writer.take(piece)
    return f"{_HEAD}{writer.result()}</html>"


def link_images(html: str, addresses: Mapping[str, str]) -> str:
    """The HTML as it came, except that attributes which name a part (``cid:``) name an address instead."""

    def address(match: re.Match[str]) -> str:
        known = addresses.get(unescape(match[2]).lower())
        return match[0] if known is None else f"{match[1]}{escape(known)}"

    return _CID_IN_ATTRIBUTE.sub(address, html)


def text_of(html: str) -> str:
    """The text of HTML, with line breaks where blocks end."""
    text: list[str] = []
    for piece in cut(html[:MAX_SEARCHED]):
        if isinstance(piece, Text):
            text.append(piece.text.replace("\n", " "))
        elif piece.name in _BLOCKS:
            text.append("\n")
    lines = (" ".join(line.split()) for line in "".join(text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def links_of(html: str) -> list[str]:
    """Where the links of HTML lead, in order, each once."""
    found: dict[str, None] = {}
    for piece in cut(html[:MAX_SEARCHED]):
        if isinstance(piece, Start) and piece.name in {"a", "area"}:
            link = dict(piece.attributes).get("href", "").strip()
            if _LINK.fullmatch(link):
                found[link] = None
    return list(found)[:MAX_LINKS]


def remote_resources_of(html: str) -> int:
    """How many pictures, style sheets and the like would be fetched from elsewhere, if this were not prevented."""
    return sum(
        bool(_REMOTE.match(address.strip()))
        for piece in cut(html[:MAX_SEARCHED])
        if isinstance(piece, Start)
        for address in _fetched_for(piece)
    )


def _fetched_for(tag: Start) -> Iterator[str]:
    if tag.name == "style":
        yield from addresses_in(tag.content or "")
    for name, value in tag.attributes:
        if name == "style":
            yield from addresses_in(value)
        elif name == "srcset":
            yield from (candidate[1] for candidate in _SRCSET.finditer(value))
        elif name in {"src", "background", "poster"}:
            yield value


class _Writer:
    """Writes anew what may be shown."""

    def __init__(self, images: Mapping[str, str]) -> None:
        self._images = images
        self._out: list[str] = []
        self._open: list[str] = []
        self._dropped: str = ""  # the element whose content is dropped
        self._depth: int = 0  # elements of that name inside it
        self._body: str = "<body>"

    def result(self) -> str:
        """The body."""
        closing = "".join(f"</{tag}>" for tag in reversed(self._open))
        return f"{self._body}{''.join(self._out)}{closing}</body>"

    def take(self, piece: Text | Start | End) -> None:
        """Write a piece, as far as it may be shown."""
        if self._dropped:
            if not isinstance(piece, Text) and piece.name == self._dropped:
                self._depth += 1 if isinstance(piece, Start) else -1
                self._dropped = self._dropped if self._depth else ""
        elif isinstance(piece, Text):
            self._out.append(escape(piece.text, quote=False))
        elif isinstance(piece, End):
            self._close(piece.name)
        elif piece.name == "style":
            self._out.append(f"<style>{self._css(piece.content or '')}</style>")
        elif piece.name == "body":
            self._body = f"<body{self._attributes(piece)}>"
        elif piece.name in _WITHOUT_CONTENT:
            self._dropped, self._depth = piece.name, 1
        elif piece.name in _ELEMENTS and (piece.name in _EMPTY or len(self._open) < MAX_DEPTH):
            self._out.append(f"<{piece.name}{self._attributes(piece)}>")
            if piece.name not in _EMPTY:
                self._open.append(piece.name)

    def _close(self, name: str) -> None:
        if name in self._open:
            while (last := self._open.pop()) != name:
                self._out.append(f"</{last}>")
            self._out.append(f"</{name}>")

    def _attributes(self, tag: Start) -> str:
        written: dict[str, str] = {}
        for name, value in tag.attributes:
            if name == "style":
                written[name] = self._css(value)
            elif name in _ATTRIBUTES or _ARIA.fullmatch(name):
                written[name] = value
            elif name == "href" and tag.name == "a" and _LINK.fullmatch(value.strip()):
                written |= {"href": value.strip(), "rel": "noopener noreferrer"}
            elif (name == "src" and tag.name == "img") or name == "background":
                address = self._image(value.strip())
                if address:
                    written[name] = address
        return "".join(f' {name}="{escape(value)}"' for name, value in written.items())

    def _image(self, address: str) -> str:
        if address[:4].lower() == "cid:":
            return self._images.get(address[4:].lower(), "")
        return address if _DATA_IMAGE.fullmatch(address) else ""

    def _css(self, css: str) -> str:
        return clean(css, lambda address: "".join(self._image(address.strip()).split()))
