# Credentials: the values of the client's ``auth`` argument.
#
# Strict out: a value that could end a line, a field or a message early is refused here, before there is a connection.
# No repr shows a secret, so a configuration can be logged.
from __future__ import annotations

import binascii
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ..errors import LocalProtocolError

TokenSource: TypeAlias = str | Callable[[], Awaitable[str | tuple[str, float]]]
"""An access token, or an async function that returns one, or one and the seconds for which it may be used."""

PASSWORD_MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")

_FORBIDDEN = re.compile(r"[\x00\r\n]")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 §2.1
_MAX_CACHED_KEYS = 8


def _check(what: str, value: object, forbidden: re.Pattern[str] = _FORBIDDEN) -> None:
    """Refuse a value that cannot be sent. The message does not quote it."""
    if not isinstance(value, str):
        raise TypeError(f"the {what} must be a str, not {type(value).__name__}")
    if forbidden.search(value):
        raise LocalProtocolError(f"the {what} has CR, LF, NUL or another character that cannot be sent")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise LocalProtocolError(f"the {what} cannot be encoded as UTF-8") from None


@dataclass(frozen=True, slots=True, init=False)
class Password:
    """A user name and a password.

    Args:
        username: the authentication identity.
        password: not shown by ``repr``.
        mechanisms: use only these, in this order: any of ``SCRAM-SHA-256``, ``SCRAM-SHA-1``, ``CRAM-MD5``,
            ``PLAIN``, ``LOGIN``. By default the strongest that the server offers.

    Raises:
        LocalProtocolError: the user name or the password is empty, has CR, LF or NUL, or is not encodable; or a
            mechanism is unknown.
    """

    username: str
    password: str = field(repr=False)
    mechanisms: tuple[str, ...] | None
    # SCRAM's salted passwords by (hash, salt, iterations), stored once a server has proved that it knows the password.
    # A pool logs in to one server many times, with the same salt.
    _keys: dict[tuple[str, bytes, int], bytes] = field(repr=False, compare=False)

    def __init__(self, username: str, password: str, mechanisms: Iterable[str] | None = None) -> None:
        for what, value in (("user name", username), ("password", password)):
            _check(what, value)
            if not value:
                raise LocalProtocolError(f"the {what} is empty")
        write = object.__setattr__
        write(self, "username", username)
        write(self, "password", password)
        write(self, "mechanisms", None if mechanisms is None else _mechanisms(mechanisms))
        write(self, "_keys", {})

    def _cached_key(self, hash_name: str, salt: bytes, iterations: int) -> bytes | None:
        """The salted password of an earlier exchange with the same parameters, or ``None``."""
        return self._keys.get((hash_name, salt, iterations))

    def _cache_key(self, hash_name: str, salt: bytes, iterations: int, salted_password: bytes) -> None:
        """Keep a salted password for the next exchange; only a few are kept."""
        if len(self._keys) >= _MAX_CACHED_KEYS:
            self._keys.clear()
        self._keys[hash_name, salt, iterations] = salted_password


def _mechanisms(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise TypeError(f"mechanisms must be a sequence of names, not {names!r:.80}")
    chosen = tuple(str(name).upper() for name in names)
    unknown = [name for name in chosen if name not in PASSWORD_MECHANISMS]
    if unknown or not chosen:
        raise LocalProtocolError(
            f"not mechanisms for a password: {', '.join(unknown) or 'none given'}; use {', '.join(PASSWORD_MECHANISMS)}"
        )
    return chosen


@dataclass(frozen=True, slots=True)
class OAuth:
    """An OAuth 2.0 bearer token, sent with OAUTHBEARER or XOAUTH2.

    Args:
        username: the mailbox that the token is for.
        token: the access token, or an async callable without arguments that returns one, or ``(token, seconds)`` where
            it is known how long it lasts. The callable is called when a token is wanted, once for all connections that
            wait for it, and once more if the server refuses the token; if it has a method ``forget``, that is called
            with the refused one first. :mod:`trio_smtp.oauth` has such. Not shown by ``repr``.

    Raises:
        LocalProtocolError: the user name or a token given as str cannot be sent.
    """

    username: str
    token: TokenSource = field(repr=False)

    def __post_init__(self) -> None:
        _check("user name", self.username, re.compile(r"[\x00\x01\r\n]"))  # 0x01 separates fields (RFC 7628 §3.1)
        if not self.username:
            raise LocalProtocolError("the user name is empty")
        if isinstance(self.token, str):
            check_bearer_token(self.token)
        elif not callable(self.token):
            raise TypeError("the token must be a str or an async callable")


@dataclass(frozen=True, slots=True)
class XOAuth:
    """Google's XOAUTH, older than OAuth 2.0: a ready-made initial response.

    Args:
        token: the initial response in base64, as an XOAUTH token generator makes it, or an async callable without
            arguments that returns one, or ``(token, seconds)``, as for :class:`OAuth`. Not shown by ``repr``.

    Raises:
        LocalProtocolError: a token given as str is not base64.
    """

    token: TokenSource = field(repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.token, str):
            decode_ready_token(self.token)
        elif not callable(self.token):
            raise TypeError("the token must be a str or an async callable")


@dataclass(frozen=True, slots=True)
class External:
    """Log in with the identity in the client's TLS certificate (EXTERNAL).

    Args:
        authorization_id: act as this user instead, if the server allows it.

    Raises:
        LocalProtocolError: `authorization_id` has CR, LF or NUL, or is not encodable.
    """

    authorization_id: str = ""

    def __post_init__(self) -> None:
        _check("authorization identity", self.authorization_id)


Auth: TypeAlias = Password | OAuth | XOAuth | External
"""What ``auth=`` takes, besides a tuple of user name and password."""


def as_auth(auth: Auth | tuple[str, str]) -> Auth:
    """Convert the ``auth`` argument to one of the classes above; a pair is a user name and a password.

    Raises:
        TypeError: the argument is neither.
        LocalProtocolError: as :class:`Password`.
    """
    if isinstance(auth, Password | OAuth | XOAuth | External):
        return auth
    if isinstance(auth, tuple) and len(auth) == 2:
        return Password(*auth)
    raise TypeError("auth must be (username, password), Password, OAuth, XOAuth or External")


def check_bearer_token(token: object) -> str:
    """Check that a token, given or returned by a callable, has the form of one (RFC 6750 section 2.1)."""
    if not isinstance(token, str):
        raise TypeError(f"the token must be a str, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise LocalProtocolError("the token is not a bearer token (RFC 6750 section 2.1)")
    return token


def decode_ready_token(token: object) -> bytes:
    """Decode an XOAUTH initial response, given or returned by a callable."""
    if not isinstance(token, str):
        raise TypeError(f"the token must be a str, not {type(token).__name__}")
    try:
        decoded = binascii.a2b_base64(token.encode(), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if not decoded:
        raise LocalProtocolError("the XOAUTH token is not base64")
    return decoded
