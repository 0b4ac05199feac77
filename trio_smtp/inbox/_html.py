# HTML of a message: made safe to show, its text, and its links.
#
# Guarantee: what `make_safe` returns has only elements and attributes of the two lists below, is written anew, and
# names nothing outside itself except where links lead. It is the second of two fences; the first is the policy and the
# sandbox that the page is served with (_guard.py). The standard library's parser is no browser's, so nothing is passed
# on as it came: markup that the two understand differently is lost, not shown.
from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape, unescape
from html.parser import HTMLParser
from typing import Final

MAX_HTML: Final = 2 * 1024 * 1024  # characters that are shown
MAX_SEARCHED: Final = 256 * 1024  # characters whose text is looked at
MAX_LINKS: Final = 1000


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS: Final = _names(
    "a abbr address article aside b bdi bdo big blockquote body br caption center cite code col colgroup dd del details"
    " dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p"
    " pre q rp rt ruby s samp section small span strike strong style sub summary sup table tbody td tfoot th thead time"
    " tr tt u ul var wbr"
)
_EMPTY: Final = _names("br col hr img wbr")
_ATTRIBUTES: Final = _names(
    "align alt bgcolor border cellpadding cellspacing class color colspan dir face height hspace id lang nowrap role"
    " rowspan scope size span start style title type valign value vspace width"
)
_WITHOUT_CONTENT: Final = _names(
    "audio canvas iframe math noembed noframes noscript script select svg template textarea title video xmp"
)
_BLOCKS: Final = _names(
    "address article blockquote br center dd div dl dt footer h1 h2 h3 h4 h5 h6 header hr li main ol p pre section"
    " table tr ul"
)
_LINK: Final = re.compile(r"(?:https?://|mailto:|tel:)\S+", re.IGNORECASE)
_DATA_IMAGE: Final = re.compile(r"data:image/(?:png|gif|jpeg|webp|bmp|avif);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE)
_CID_IN_CSS: Final = re.compile(r"url\(\s*(['\"]?)cid:([^'\")\s]{1,255})\1\s*\)", re.IGNORECASE)
_CID_IN_ATTRIBUTE: Final = re.compile(r"""(=\s*["']?)cid:([^"'\s>]{1,255})""", re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]{0,2000}>")

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
    _feed(writer, html[:MAX_HTML])
    return f"{_HEAD}{writer.result()}</html>"


def link_images(html: str, addresses: Mapping[str, str]) -> str:
    """The HTML as it came, except that attributes which name a part (``cid:``) name an address instead."""

    def address(match: re.Match[str]) -> str:
        known = addresses.get(unescape(match[2]).lower())
        return match[0] if known is None else f"{match[1]}{escape(known)}"

    return _CID_IN_ATTRIBUTE.sub(address, html)


def text_of(html: str) -> str:
    """The text of HTML, with line breaks where blocks end."""
    reader = _Reader()
    if not _feed(reader, html[:MAX_SEARCHED]):
        return unescape(_TAG.sub(" ", html[:MAX_SEARCHED]))
    lines = (" ".join(line.split()) for line in "".join(reader.text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def links_of(html: str) -> list[str]:
    """Where the links of HTML lead, in order."""
    reader = _Reader()
    _feed(reader, html[:MAX_SEARCHED])
    return list(dict.fromkeys(reader.links))[:MAX_LINKS]


def remote_resources_of(html: str) -> int:
    """How many pictures and the like would be fetched from elsewhere, if this were not prevented."""
    reader = _Reader()
    _feed(reader, html[:MAX_SEARCHED])
    return reader.remote


def _feed(parser: HTMLParser, html: str) -> bool:
    """Let a parser read; whether it could."""
    try:
        parser.feed(html)
        parser.close()
    except (Exception, RecursionError):  # an AssertionError for "<![x", by version
        return False
    return True


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.links: list[str] = []
        self.remote: int = 0
        self._hidden: list[str] = []  # elements whose content is no text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self.text.append("\n")
        if tag in _WITHOUT_CONTENT or tag in {"style", "head"}:
            self._hidden.append(tag)
        for name, value in attrs:
            link = (value or "").strip()
            if tag in {"a", "area"} and name == "href" and _LINK.fullmatch(link):
                self.links.append(link)
            elif name in {"src", "background", "poster"} and re.match(r"(?:https?:)?//", link, re.IGNORECASE):
                self.remote += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.text.append("\n")
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data.replace("\n", " "))


class _Writer(HTMLParser):
    def __init__(self, images: Mapping[str, str]) -> None:
        super().__init__(convert_charrefs=True)
        self._images = images
        self._out: list[str] = []
        self._open: list[str] = []
        self._dropped: str = ""  # the element whose content is dropped
        self._depth: int = 0  # elements of that name inside it
        self._body: str = "<body>"

    def result(self) -> str:
        closing = "".join(f"</{tag}>" for tag in reversed(self._open))
        return f"{self._body}{''.join(self._out)}{closing}</body>"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._dropped:
            self._depth += tag == self._dropped
        elif tag in _WITHOUT_CONTENT:
            self._dropped, self._depth = tag, 1
        elif tag == "body":
            self._body = f"<body{self._attributes(tag, attrs)}>"
        elif tag in _ELEMENTS:
            self._out.append(f"<{tag}{self._attributes(tag, attrs)}>")
            if tag not in _EMPTY:
                self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _EMPTY and not self._dropped:
            self._out.append(f"<{tag}{self._attributes(tag, attrs)}>")
        elif tag not in _WITHOUT_CONTENT:  # a browser takes <div/> for <div>
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            self._depth -= tag == self._dropped
            if not self._depth:
                self._dropped = ""
        elif tag in self._open:
            while (last := self._open.pop()) != tag:
                self._out.append(f"</{last}>")
            self._out.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if self._open and self._open[-1] == "style":
            self._out.append(self._css(data))
        else:
            self._out.append(escape(data, quote=False))

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> str:
        written: dict[str, str] = {}
        for name, value in attrs:
            text = value or ""
            if name == "style":
                written[name] = self._css(text)
            elif name in _ATTRIBUTES or name.startswith("aria-"):
                written[name] = text
            elif name == "href" and tag == "a" and _LINK.fullmatch(text.strip()):
                written |= {"href": text.strip(), "rel": "noopener noreferrer"}
            elif (name == "src" and tag == "img") or name == "background":
                address = self._image(text.strip())
                if address:
                    written[name] = address
        return "".join(
            f' {name}="{escape(value)}"' for name, value in written.items() if re.fullmatch(r"[a-z-]+", name)
        )

    def _image(self, address: str) -> str:
        if address[:4].lower() == "cid:":
            return self._images.get(address[4:].lower(), "")
        return address if _DATA_IMAGE.fullmatch(address) else ""

    def _css(self, css: str) -> str:
        css = _CID_IN_CSS.sub(lambda match: f'url("{self._images.get(match[2].lower(), "")}")', css)
        return css.replace("<", "\\3c ")  # nothing in there ends the element, for any parser
