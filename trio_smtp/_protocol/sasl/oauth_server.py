# Bearer tokens, the server's side: OAUTHBEARER (RFC 7628) and XOAUTH2, its predecessor by Google and Microsoft.
#
# Both put a token into a list of key=value pairs separated by 0x01. Both answer a refused token with a challenge that
# gives the reason in JSON. The client acknowledges it with a dummy line, and then gets the 535.
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from .credentials import Credentials
from .server import Exchange, MechanismContext, ServerMechanism
from .wire import REFUSED, SASLError, identity_field, malformed, split_gs2_header, text_field

_KEY = re.compile(r"[A-Za-z]+")  # RFC 7628 §3.1
_VALUE = re.compile(r"[\x20-\x7e\t\r\n]*")
_BEARER = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/]+=*)")  # RFC 6750 §2.1


class Bearer(NamedTuple):
    """What the two mechanisms differ in.

    Attributes:
        name: the mechanism's name.
        failure: the challenge that gives the reason for a refusal.
        acknowledgements: what a client may answer to it.
        parse: user name, authorization identity and pairs of a client's message.
    """

    name: str
    failure: bytes
    acknowledgements: tuple[bytes, ...]
    parse: Callable[[bytes], tuple[str, str | None, dict[str, str]]]


class BearerServer(ServerMechanism):
    """One of the two mechanisms."""

    def __init__(self, bearer: Bearer, context: MechanismContext) -> None:
        super().__init__(context)
        self.name = bearer.name
        self._bearer = bearer

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        message = (yield b"") if initial_response is None else initial_response
        username, authorization_id, pairs = self._bearer.parse(message)
        if pairs.get("auth") == "":
            # A client without a token may ask for the server's requirements (RFC 7628 §3.2.3, §4.3). The answer is an
            # error.
            yield self._bearer.failure
            raise SASLError(REFUSED)
        match = _BEARER.fullmatch(pairs.get("auth", ""))
        if match is None:
            raise malformed(f"{self.name} needs a bearer token")
        return Credentials(self.name, username, token=match[1], authorization_id=authorization_id)

    def _last_challenge(self, accepted: bool) -> bytes | None:
        return None if accepted else self._bearer.failure

    def closing_response(self, response: bytes) -> bool:
        """Whether it acknowledges a refusal."""
        return response in self._bearer.acknowledgements


def _parse_oauthbearer(message: bytes) -> tuple[str, str | None, dict[str, str]]:
    _, authorization_id, rest = split_gs2_header(message)
    if rest[:1] != b"\x01":
        raise malformed("bad OAUTHBEARER message")
    pairs = _parse_pairs(rest[1:])
    if not pairs.get("port", "0").isdecimal():
        raise malformed("bad port")
    # The only user name is the one in the GS2 header, which is optional: the token may say it (RFC 7628 §3.1).
    return authorization_id or "", authorization_id, pairs


def _parse_xoauth2(message: bytes) -> tuple[str, str | None, dict[str, str]]:
    pairs = _parse_pairs(message)
    username = pairs.get("user", "")
    if not username:
        raise malformed("XOAUTH2 needs a user")
    return username, None, pairs


def _parse_pairs(raw: bytes) -> dict[str, str]:
    """Any number of ``key=value 0x01``, then a closing 0x01 (RFC 7628 section 3.1)."""
    if raw[-2:] != b"\x01\x01":
        raise malformed("the message does not end with 0x01 0x01")
    pairs: dict[str, str] = {}
    for item in raw[:-2].split(b"\x01"):
        key, equals, value = text_field(item, "field", len(raw)).partition("=")
        if not equals or not _KEY.fullmatch(key) or key in pairs:
            raise malformed("bad key and value")
        # RFC 7628 §3.1 allows ASCII only; user names may have more.
        if key == "user":
            value = identity_field(value.encode())
        elif not _VALUE.fullmatch(value):
            raise malformed("bad key and value")
        pairs[key] = value
    return pairs


OAUTHBEARER: Final = Bearer(
    "OAUTHBEARER",
    b'{"status": "invalid_token"}',  # RFC 7628 §3.2.2
    (b"\x01", b""),  # RFC 7628 §3.2.3: a single 0x01; some clients send nothing
    _parse_oauthbearer,
)
# developers.google.com/gmail/imap/xoauth2-protocol
XOAUTH2: Final = Bearer("XOAUTH2", b'{"status": "401", "schemes": "bearer"}', (b"",), _parse_xoauth2)
