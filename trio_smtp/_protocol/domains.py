# Domains in the one form in which they are compared: A-labels in lower case (RFC 5890), for both ends.
#
# Guarantee: two domains have the same form only if they differ in nothing but the case of letters, Unicode's canonical
# equivalence, and A-label against U-label. No character is dropped, and none that is not ASCII becomes one that is: of
# UTS 46, which does both to help a person who types, nothing is done here. So exam<ZERO WIDTH SPACE>ple.test is no
# domain, and never example.test.
#
# An ASCII label is compared as it is, one that begins with xn-- too: it is a name of the DNS by itself, and there is
# mail for some that are no A-labels by IDNA 2008 (those of emoji). No U-label has the same form as one of those.
from __future__ import annotations

import unicodedata
from typing import Final

import idna

MAX_DOMAIN: Final = 255  # octets, RFC 5321 §4.5.3.1.2; the DNS has no longer names


def canonical_domain(domain: str) -> str:
    """The domain as A-labels in lower case. An address literal is none; the caller checks ASCII labels.

    Raises:
        ValueError: a label that is not ASCII is no U-label of IDNA 2008, or the whole is too long.
    """
    if domain.isascii():
        return domain.lower()
    result = ".".join(map(_canonical_label, domain.split(".")))  # a dot of another script is none (RFC 6531 §3.3)
    if len(result) > MAX_DOMAIN:
        raise ValueError("bad domain: its A-labels are too long")
    return result


def _canonical_label(label: str) -> str:
    if not label:
        raise ValueError("bad domain: a label is empty")
    if label.isascii():
        return label.lower()
    for character in label:  # KELVIN SIGN, LATIN CAPITAL LETTER I WITH DOT ABOVE
        if not character.isascii() and any(map(str.isascii, unicodedata.normalize("NFC", character).lower())):
            raise ValueError(f"bad domain: U+{ord(character):04X} is not allowed")
    # By the letter: str.lower() of a word writes a sigma at its end in another way, which is another name.
    lower = unicodedata.normalize("NFC", "".join(map(str.lower, label)))
    try:
        return idna.alabel(lower).decode("ascii")
    except idna.IDNAError as exc:
        raise ValueError(f"bad domain: {exc}") from None
