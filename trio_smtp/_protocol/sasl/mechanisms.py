# The tables of mechanisms, and the choice of one.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

from ..errors import LocalProtocolError, Stage, UnsupportedAuthError
from .auth import Auth, External, OAuth, Password, XOAuth
from .client import (
    ClientMechanism,
    CramMD5Client,
    ExternalClient,
    LoginClient,
    OAuthBearerClient,
    PlainClient,
    XOAuth2Client,
    XOAuthClient,
)
from .oauth_server import OAUTHBEARER, XOAUTH2, BearerServer
from .scram import SCRAM_HASHES
from .scram_client import ScramClient, prepare
from .scram_server import ScramServer
from .server import CramMD5Server, ExternalServer, LoginServer, MechanismContext, PlainServer, ServerMechanism

SERVER_MECHANISMS: Final[Mapping[str, Callable[[MechanismContext], ServerMechanism]]] = MappingProxyType(
    {
        "SCRAM-SHA-256": partial(ScramServer, "SCRAM-SHA-256"),
        "SCRAM-SHA-1": partial(ScramServer, "SCRAM-SHA-1"),
        "OAUTHBEARER": partial(BearerServer, OAUTHBEARER),
        "XOAUTH2": partial(BearerServer, XOAUTH2),
        "EXTERNAL": ExternalServer,
        "CRAM-MD5": CramMD5Server,
        "PLAIN": PlainServer,
        "LOGIN": LoginServer,
    }
)
# Mechanisms that reveal a password or a token to an eavesdropper.
REVEALING_MECHANISMS: Final = frozenset({"OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"})

# SCRAM first in both orders: the server proves that it knows the password, and does not see it. Without TLS, CRAM-MD5
# comes next, since it does not reveal the password to an eavesdropper. Under TLS it comes last. It needs passwords
# stored in clear, so a server that stores hashes may offer it and then refuse every login. And it does not authenticate
# the server: a false one can guess at the digest offline.
_SECURE: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5")
_INSECURE: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
_OAUTH: Final = ("OAUTHBEARER", "XOAUTH2")  # the standard first

_PASSWORD_CLIENTS: Final[Mapping[str, Callable[[Password], ClientMechanism]]] = MappingProxyType(
    {
        "SCRAM-SHA-256": partial(ScramClient, "SCRAM-SHA-256"),
        "SCRAM-SHA-1": partial(ScramClient, "SCRAM-SHA-1"),
        "CRAM-MD5": CramMD5Client,
        "PLAIN": PlainClient,
        "LOGIN": LoginClient,
    }
)
CLIENT_MECHANISMS: Final = frozenset({*_PASSWORD_CLIENTS, *_OAUTH, "XOAUTH", "EXTERNAL"})


def choose_mechanism(auth: Auth, offered: Sequence[str], *, secure: bool, allow_insecure: bool) -> str:
    """Choose the mechanism to log in with.

    Args:
        auth: the caller's credentials.
        offered: the names after AUTH in the server's answer to EHLO; empty if it does not offer AUTH.
        secure: the connection is under TLS, and the certificate was verified.
        allow_insecure: log in even if the connection is not secure.

    Returns:
        The name, in capitals.

    Raises:
        UnsupportedAuthError: no mechanism in common, or the connection is not secure.
        LocalProtocolError: only SCRAM is in common, and SASLprep does not allow the password.
    """
    names = [name.upper() for name in offered]
    offer = f"the server offers {' '.join(names)}" if names else "the server does not offer AUTH"
    if not secure and not allow_insecure:
        # Not even SCRAM: an eavesdropper can guess at its messages offline, and an attacker can take over the session.
        raise UnsupportedAuthError(
            f"credentials are not sent over a connection that is not protected by verified TLS ({offer} on it); "
            "allow_insecure_auth=True permits it",
            stage=Stage.AUTH,
        )
    usable = _usable(auth, secure)
    common = [name for name in usable if name in names]
    if not common:
        raise UnsupportedAuthError(
            f"no mechanism in common: {offer}, {type(auth).__name__} can use {' '.join(usable)}", stage=Stage.AUTH
        )
    unprepared: LocalProtocolError | None = None
    for name in common:
        if name not in SCRAM_HASHES or not isinstance(auth, Password):
            return name
        try:
            prepare(auth)
        except LocalProtocolError as exc:
            unprepared = exc
        else:
            return name
    assert unprepared is not None
    raise unprepared


def _usable(auth: Auth, secure: bool) -> tuple[str, ...]:
    if isinstance(auth, Password):
        return auth.mechanisms or (_SECURE if secure else _INSECURE)
    if isinstance(auth, OAuth):
        return _OAUTH
    return ("XOAUTH",) if isinstance(auth, XOAuth) else ("EXTERNAL",)


def client_mechanism(
    name: str, auth: Auth, *, token: str | None = None, host: str | None = None, port: int | None = None
) -> ClientMechanism:
    """Make the object for one exchange.

    Args:
        name: the result of :func:`choose_mechanism`.
        auth: the credentials that it was given.
        token: for OAuth and XOAuth, the result of the callable; not needed if ``auth.token`` is a str.
        host: for OAUTHBEARER, the server's name as the caller knows it (RFC 7628 section 3.1).
        port: likewise, the server's port.

    Raises:
        LocalProtocolError: the token is malformed, or SCRAM cannot use the password.
        ValueError: the mechanism does not fit the credentials, or a token is missing.
    """
    if isinstance(auth, Password):
        if name in _PASSWORD_CLIENTS:
            return _PASSWORD_CLIENTS[name](auth)
    elif isinstance(auth, External):
        if name == "EXTERNAL":
            return ExternalClient(auth)
    else:
        if token is None:
            if not isinstance(auth.token, str):
                raise ValueError("a token callable needs token=, the result of its call")
            token = auth.token
        if isinstance(auth, XOAuth):
            if name == "XOAUTH":
                return XOAuthClient(auth, token)
        elif name == "OAUTHBEARER":
            return OAuthBearerClient(auth, token, host=host, port=port)
        elif name == "XOAUTH2":
            return XOAuth2Client(auth, token)
    raise ValueError(f"{name} does not fit {type(auth).__name__}")
