# xtext and its Unicode variants: the encodings of text in the MAIL and RCPT parameters of DSN and AUTH.
#
# There are three. xtext writes an octet outside "!".."~" as +XX (RFC 3461 §4). utf-8-addr-xtext writes a character as
# \x{HEX} and is ASCII. utf-8-addr-unitext does so for special characters only and is UTF-8 (RFC 6533 §3).
# Decoding is strict and returns printable text only: applications put it into header fields and DSNs, where a decoded
# CR LF would let the peer add lines. Errors are ValueError; the caller chooses the reply.
from __future__ import annotations

import re
from typing import Final

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")  # RFC 3461 §4: hexchars in upper case only
_HEXCHAR = re.compile(r"\+(..)")

# RFC 6533 §3: EmbeddedUnicodeChar has 2 to 6 digits, in upper case, no leading zero beyond two digits.
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2}|[1-9A-F][0-9A-F]{2,4}|10[0-9A-F]{4})\}")
_UNITEXT = re.compile(rf"(?:[!-*,-<>-\[\]-~\x80-\U0010ffff]|{_EMBEDDED.pattern.replace('(', '(?:')})+")

# Control characters; Unicode's line ends, since str.splitlines(), and with it the email package, break lines at U+0085,
# U+2028 and U+2029; and surrogates.
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def decode_xtext(text: str, *, utf8: bool = False) -> str:
    """Decode xtext.

    Args:
        text: a parameter's value as received.
        utf8: its octets may be UTF-8: Postfix writes addresses so in a transaction with SMTPUTF8.

    Raises:
        ValueError: the text is not xtext, or does not decode to printable text, which is ASCII unless `utf8`.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext (RFC 3461 section 4)")
    if "+" not in text:
        return text
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    if utf8:
        decoded = decoded.encode("latin-1").decode("utf-8")
    if not (utf8 or decoded.isascii()) or CONTROL.search(
        decoded
    ):  # RFC 3461 §4.2 and §4.4; Postfix refuses +00 since 2026-06
        raise ValueError(f"xtext must decode to printable {'text' if utf8 else 'ASCII'} (RFC 3461 section 4)")
    return decoded


def decode_utf8_addr(text: str, *, smtputf8: bool = False) -> str:
    """Decode the text after ``ORCPT=utf-8;``: utf-8-addr-xtext, or, with SMTPUTF8, utf-8-addr-unitext.

    Raises:
        ValueError: the text is neither, or decodes to control characters or surrogates.
    """
    if not smtputf8 and not text.isascii():
        raise ValueError("UTF-8 needs SMTPUTF8 (RFC 6533 section 3)")
    if not _UNITEXT.fullmatch(text):
        raise ValueError("not utf-8-addr-xtext (RFC 6533 section 3)")
    decoded = _EMBEDDED.sub(lambda match: chr(int(match[1], 16)), text)
    if CONTROL.search(decoded):
        raise ValueError("utf-8-addr-xtext must decode to printable text")
    return decoded
