# SASLprep (RFC 4013): the one form in which user names and passwords are compared and hashed.
#
# It is a profile of stringprep (RFC 3454), which is defined for Unicode 3.2. Normalisation uses that version too: two
# ends that normalise by different versions would derive different keys from one password.
from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0


class SASLprepError(ValueError):
    """The text has no prepared form. The message does not quote it, since it may be a password."""


_PROHIBITED = (  # RFC 4013 §2.3
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str, *, stored: bool) -> str:
    """Prepare a user name or a password.

    Args:
        text: what was typed or received.
        stored: treat it as a stored string, which prohibits code points unassigned in Unicode 3.2 (RFC 3454
            section 7). SCRAM does so for passwords at both ends (RFC 5802 section 2.2), not for user names.

    Raises:
        SASLprepError: the text is empty (RFC 4616 section 2), or has characters or a mixture of directions that
            RFC 4013 prohibits.
    """
    if text.isascii():
        if text and text.isprintable():
            return text
        raise SASLprepError("empty, or with control characters")
    # RFC 4013 §2.1: non-ASCII spaces become SPACE; characters commonly mapped to nothing are removed.
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)  # RFC 4013 §2.2
    if not prepared:
        raise SASLprepError("nothing is left after preparation")
    for char in prepared:
        if any(prohibited(char) for prohibited in _PROHIBITED):
            raise SASLprepError("with characters that RFC 4013 prohibits")
        if stored and stringprep.in_table_a1(char):
            raise SASLprepError("with code points that Unicode 3.2 does not have")
    _check_directions(prepared)
    return prepared


def _check_directions(text: str) -> None:
    """RFC 3454 section 6, required by RFC 4013 section 2.4."""
    right_to_left = [stringprep.in_table_d1(char) for char in text]
    if not any(right_to_left):
        return
    if not (right_to_left[0] and right_to_left[-1]) or any(map(stringprep.in_table_d2, text)):
        raise SASLprepError("with a mixture of writing directions")
