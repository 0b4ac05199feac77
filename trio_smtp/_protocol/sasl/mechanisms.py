# Which mechanisms there are, and which of them to use.
from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from .oauth_server import OAuthBearerServer, XOAuth2Server
from .scram_client import ScramSHA1Client, ScramSHA256Client, prepare
from .scram_server import ScramSHA1Server, ScramSHA256Server
from .server import CramMD5Server, ExternalServer, LoginServer, PlainServer, ServerMechanism

SERVER_MECHANISMS: Final[Mapping[str, type[ServerMechanism]]] = MappingProxyType(
    {
        cls.name: cls
        for cls in (
            ScramSHA256Server,
            ScramSHA1Server,
            OAuthBearerServer,
            XOAuth2Server,
            ExternalServer,
            CramMD5Server,
            PlainServer,
            LoginServer,
        )
    }
)
# Those in which whoever listens learns a password or a token.
REVEALING_MECHANISMS: Final = frozenset(name for name, cls in SERVER_MECHANISMS.items() if cls.reveals_secret)

# SCRAM first, in either case: the server proves itself, and never sees the password. Of the rest CRAM-MD5 is the better
# one in clear, since listening alone does not give the password away. Under TLS nobody listens, and it is the worse
# one: it needs passwords kept in clear, so servers that keep hashes offer it and then refuse everybody, it does not
# authenticate the server either, and what one handed to a false server can be guessed at leisure.
_SECURE: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5")
_INSECURE: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
_OAUTH: Final = ("OAUTHBEARER", "XOAUTH2")  # the standard first

_PASSWORD_CLIENTS: Final[Mapping[str, type[PlainClient | LoginClient | CramMD5Client]]] = MappingProxyType(
    {cls.name: cls for cls in (PlainClient, LoginClient, CramMD5Client)}
)
_SCRAM_CLIENTS: Final = MappingProxyType({cls.name: cls for cls in (ScramSHA256Client, ScramSHA1Client)})


def choose_mechanism(auth: Auth, offered: Sequence[str], *, secure: bool, allow_insecure: bool) -> str:
    """Pick the mechanism to log in with.

    Args:
        auth: what the caller gave.
        offered: the names after AUTH in the server's answer to EHLO; none if it does not offer AUTH.
        secure: the connection is under TLS, and the certificate was verified.
        allow_insecure: the caller wants to log in all the same where it is not.

    Returns:
        The name, in capitals.

    Raises:
        UnsupportedAuthError: nothing in common, or the connection is not secure.
        LocalProtocolError: only SCRAM is in common, and the password has no form in which SCRAM could use it.
    """
    names = [name.upper() for name in offered]
    offer = f"the server offers {' '.join(names)}" if names else "the server does not offer AUTH"
    if not secure and not allow_insecure:
        # Not even SCRAM: who listens can guess at its messages offline, and who meddles has the session.
        raise UnsupportedAuthError(
            f"no credentials over a connection that is not protected by verified TLS ({offer} on it); "
            "allow_insecure_auth=True sends them all the same",
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
        if name not in _SCRAM_CLIENTS or not isinstance(auth, Password):
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
    """Begin an exchange.

    Args:
        name: what :func:`choose_mechanism` returned.
        auth: what it was given.
        token: with OAuth and XOAuth, what the callable returned; not needed where ``auth.token`` is a str.
        host: with OAUTHBEARER, the server's name as the caller knows it, and
        port: its port (RFC 7628 section 3.1).

    Raises:
        LocalProtocolError: the token has not the form of one; SCRAM cannot use the password.
        ValueError: this name does not go with this class, or a token is missing.
    """
    if isinstance(auth, Password):
        if name in _SCRAM_CLIENTS:
            return _SCRAM_CLIENTS[name](auth)
        if name in _PASSWORD_CLIENTS:
            return _PASSWORD_CLIENTS[name](auth)
    elif isinstance(auth, External):
        if name == "EXTERNAL":
            return ExternalClient(auth)
    else:
        if token is None:
            if not isinstance(auth.token, str):
                raise ValueError("the token's callable was not asked")
            token = auth.token
        if isinstance(auth, XOAuth):
            if name == "XOAUTH":
                return XOAuthClient(auth, token)
        elif name == "OAUTHBEARER":
            return OAuthBearerClient(auth, token, host=host, port=port)
        elif name == "XOAUTH2":
            return XOAuth2Client(auth, token)
    raise ValueError(f"{name} does not go with {type(auth).__name__}")
