# Addresses in a header: composed from what the application named, or rewritten in their source.
#
# Composed ones come from display names and addresses, never from the text of a header that the email package has put
# together. In a source only what is not ASCII is changed: display names and comments become encoded words, domains
# A-labels. A local part has no other form (RFC 6531 §3.3); such a field is an error.
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .._protocol.addresses import to_ascii
from .._protocol.domains import MAX_DOMAIN
from .target import lacking, unwritable
from .words import MAX_WORD, encoded_words, is_encoded_word, phrase_words

_ATOMS: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)
_DOT_ATOM: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+)*"
)
_DOMAIN: Final = re.compile(r'\[[^\[\]\\\0-\x1f\x7f]*\]|[^\s()<>,:;"@\[\]\\\0-\x1f\x7f]+')
_LONGEST_DOMAIN: Final = 4 * MAX_DOMAIN  # characters; to find out that a longer one is none would take long
_LONGEST_NAME: Final = 200  # octets of a display name that stays as it is, and so on one line if it is quoted
_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t]+)
    | (?P<quoted>"(?:[^"\\]|\\.)*+"?)
    | (?P<comment>\()
    | (?P<angle><(?:"(?:[^"\\]|\\.)*+"|[^<>"])*+>)
    | (?P<special>[,:;])
    | (?P<word>(?:\[[^\[\]]*\]|[^ \t"(),:;<\[])+|[<\[])""",
    re.VERBOSE,
)
_PAREN: Final = re.compile(r"\\.|[()]")
_ESCAPED: Final = re.compile(r"\\(.)")
_SPECIAL_IN_QUOTES: Final = re.compile(r'(["\\])')


def quoted(text: str) -> str:
    """Text as a quoted string (RFC 5322 section 3.2.4)."""
    return '"' + _SPECIAL_IN_QUOTES.sub(r"\\\1", text) + '"'


def unquoted(text: str) -> str:
    """What a quoted string says."""
    return _ESCAPED.sub(r"\1", text[1:-1] if len(text) > 1 and text.endswith('"') else text[1:])


# -- composed


def mailbox_words(groups: Iterable[Any], *, utf8: bool) -> list[bytes]:
    """The words of a list of groups and mailboxes (``email.headerregistry.Group`` and ``Address``).

    Args:
        groups: a group without a name is its mailboxes.
        utf8: names and addresses may be UTF-8.

    Raises:
        LocalProtocolError: an address that cannot be written.
    """
    words: list[bytes] = []
    for group in groups:
        if words:
            words[-1] += b","
        if group.display_name is not None:
            _add(words, _phrase(group.display_name, utf8) if group.display_name else [b'""'])
            words[-1] += b":"
        for number, address in enumerate(group.addresses):
            if number:
                words[-1] += b","
            _add(words, _mailbox(address, utf8))
        if group.display_name is not None:
            words[-1] += b";"
    return words


def _add(words: list[bytes], more: list[bytes]) -> None:
    """Append words, with a space before them unless they are the first."""
    if words and more:
        more[0] = b" " + more[0]
    words.extend(more)


def _mailbox(address: Any, utf8: bool) -> list[bytes]:
    spec = _spec(address.username, address.domain, utf8).encode()
    if not address.display_name:
        return [spec or b"<>"]
    words = _phrase(address.display_name, utf8)
    _add(words, [b"<" + spec + b">"])
    return words


def _phrase(text: str, utf8: bool) -> list[bytes]:
    """A display name: atoms, a quoted string, or encoded words."""
    is_plain = text.isprintable() and (utf8 or text.isascii()) and "=?" not in text
    if is_plain and len(text.encode()) <= _LONGEST_NAME:
        if _ATOMS.fullmatch(text):
            first, *rest = text.encode().split(b" ")
            return [first, *(b" " + word for word in rest)]
        return [quoted(text).encode()]
    whole = phrase_words(text)
    if len(whole[0]) <= MAX_WORD:
        return whole
    words: list[bytes] = []
    run: list[str] = []  # words that must be encoded

    def end_run() -> None:
        if run:
            _add(words, phrase_words(" ".join(run)))
            run.clear()

    for word in text.split(" "):
        if _ATOMS.fullmatch(word) and (utf8 or word.isascii()) and "=?" not in word and len(word) < _LONGEST_NAME:
            end_run()
            _add(words, [word.encode()])
        else:
            run.append(word)
    end_run()
    return words


def _spec(local_part: str, domain: str, utf8: bool) -> str:
    text = local_part
    if any(character < " " or character == "\x7f" for character in text):
        raise unwritable(f"an address has control characters: {local_part!r}")
    if text and not _DOT_ATOM.fullmatch(text):
        text = quoted(text)
    if domain and not _DOMAIN.fullmatch(domain):
        raise unwritable(f"an address has a domain that is none: {domain!r}")
    if not text and domain:
        text = '""'
    return ascii_address(f"{text}@{domain}" if domain else text, utf8)


def ascii_address(spec: str, utf8: bool) -> str:
    """An address whose domain is in A-labels, unless UTF-8 is allowed.

    Raises:
        LocalProtocolError: the local part is not ASCII, or the domain has no such form.
    """
    if utf8 or spec.isascii():
        return spec
    local_part, at, domain = spec.rpartition("@")
    if not local_part.isascii() or not at:
        raise lacking("SMTPUTF8", f"{spec!r} has no form in ASCII")
    if domain.isascii():
        return spec
    if len(domain) > _LONGEST_DOMAIN:
        raise unwritable(f"an address has a domain of {len(domain)} characters")
    try:
        return to_ascii(f"x@{domain.strip()}").replace("x@", f"{local_part}@", 1)
    except ValueError as exc:
        raise unwritable(f"{spec!r} is not an address: {exc}") from None


# -- rewritten


def rewritten_words(source: str, *, prefix: int, length: int) -> list[bytes]:
    """The words of a field of addresses or phrases, with everything in ASCII.

    Args:
        source: the field's body, unfolded; octets of an unknown encoding are surrogates.
        prefix: octets on the first line before it.
        length: of a line.

    Raises:
        LocalProtocolError: an address that has no ASCII form.
    """
    writer = _Writer(prefix, length)
    segment: list[tuple[str, str]] = []
    for kind, text in _tokens(source):
        if kind == "special":
            _rewrite(segment, writer, is_phrase=text == ":")
            writer.write(text)
            segment = []
        else:
            segment.append((kind, text))
    _rewrite(segment, writer)
    return writer.words


class _Writer:
    """Words in the making: white space begins one."""

    def __init__(self, prefix: int, length: int) -> None:
        self.words: list[bytes] = []
        self._blank = b""
        self._first = max(20, length - prefix)
        self._length = length

    def blank(self, text: str) -> None:
        """White space before what comes next."""
        self._blank += text.encode("ascii")

    def write(self, text: str) -> None:
        """Text in ASCII; it joins the word before, unless there is white space between."""
        octets = text.encode("ascii")
        if self._blank or not self.words:
            self.words.append(self._blank + octets)
            self._blank = b""
        else:
            self.words[-1] += octets

    def name(self, text: str) -> None:
        """Text as encoded words of a phrase."""
        head, *rest = phrase_words(text)
        self.write(head.decode())
        self.words.extend(rest)

    def comment(self, text: str) -> None:
        """A comment that says this, in encoded words."""
        first = self._length - 1 if self.words else self._first
        head, *rest = encoded_words(text, first=min(MAX_WORD, first - 1), length=min(MAX_WORD, self._length - 2))
        self.write("(" + head.decode())
        self.words.extend(rest)
        self.words[-1] += b")"


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:  # a closing parenthesis, for example
            yield "word", source[at]
            at += 1
            continue
        kind, text, at = str(match.lastgroup), match[0], match.end()
        if kind == "comment":
            depth = 1
            while depth and (paren := _PAREN.search(source, at)) is not None:
                at = paren.end()
                depth += {"(": 1, ")": -1}.get(paren[0], 0)
            if depth:
                at = len(source)
            text = source[match.start() : at]
        yield kind, text


def _rewrite(segment: list[tuple[str, str]], writer: _Writer, *, is_phrase: bool = False) -> None:
    """One mailbox, or one phrase."""
    angle = next((at for at, (kind, _) in enumerate(segment) if kind == "angle"), None)
    inks = [at for at, (kind, _) in enumerate(segment) if kind in ("word", "quoted")]
    address = next((at for at in inks if segment[at][0] == "word" and "@" in segment[at][1]), None)
    if angle is None and not is_phrase and address is not None:
        is_whole = segment[address][1].strip("@") == segment[address][1]  # else it goes on beside it: "a b"@x, a @ x
        ends = (address, address + 1) if is_whole else (inks[0], inks[-1] + 1)
        text = "".join(text for kind, text in segment[slice(*ends)] if kind in ("word", "quoted"))
        if not text.isascii():
            comments = [item for item in segment[slice(*ends)] if item[0] == "comment"]
            segment = [
                *segment[: ends[0]],
                ("word", ascii_address(_known(text), False)),
                *comments,
                *segment[ends[1] :],
            ]
    at = 0
    while at < len(segment):
        kind, text = segment[at]
        if kind == "blank":
            writer.blank(text)
        elif text.isascii():
            writer.write(text)
        elif kind == "comment":
            writer.comment(_ESCAPED.sub(r"\1", text[1:-1] if text.endswith(")") else text[1:]))
        elif kind == "angle":
            writer.write(f"<{ascii_address(_known(text[1:-1].strip()), False)}>")
        else:
            at = _encode_run(segment, at, writer)
            continue
        at += 1


def _known(text: str) -> str:
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        raise unwritable(f"an address has octets of an unknown encoding: {text!r}") from None


def _encode_run(segment: list[tuple[str, str]], at: int, writer: _Writer) -> int:
    """Encode the words from here that need it, with the white space between them; where that ends."""
    text = ""
    # A reader drops the white space between encoded words, so it is put into them.
    if at > 1 and segment[at - 1][0] == "blank" and is_encoded_word(segment[at - 2][1]):
        text = " "
    end = at
    while at < len(segment):
        kind, part = segment[at]
        if kind == "blank" and text:
            pass
        elif kind in ("word", "quoted") and not part.isascii():
            blanks = "".join(part for _, part in segment[end:at])
            text += blanks + (unquoted(part) if kind == "quoted" else part)
            end = at + 1
        else:
            if is_encoded_word(part) and segment[at - 1][0] == "blank":
                text += " "
            break
        at += 1
    writer.name(text)
    if end < len(segment) and segment[end][0] not in ("blank", "comment"):
        writer.blank(" ")
    return end
