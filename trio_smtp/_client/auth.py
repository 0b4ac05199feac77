# Logging in: the choice of a mechanism, the exchange, and one more token from the provider if the server refuses one.
from __future__ import annotations

import inspect

import trio

from .._protocol.client.commands import auth as auth_command
from .._protocol.client.commands import auth_response
from .._protocol.errors import AuthenticationError, ConnectError, Stage, UnsupportedAuthError
from .._protocol.replies import Reply
from .._protocol.sasl import (
    MAX_ROUNDS,
    Auth,
    ClientMechanism,
    DeriveKey,
    OAuth,
    XOAuth,
    choose_mechanism,
    client_mechanism,
    decode_challenge,
    encode_challenge,
)
from .._protocol.sasl.auth import check_bearer_token, decode_ready_token
from .connection import ClientConnection


class Login:
    """Credentials, and the token they currently stand for; shared by all connections of a pool.

    A provider is asked when a token is wanted: once, however many connections wait for the answer. An answer that says
    how long it lasts is kept so long. The first connection that finds a token refused asks once more, for all.
    """

    __slots__ = ("_answers", "_asking", "_expires", "_token", "auth")

    def __init__(self, auth: Auth) -> None:
        self.auth = auth
        self._token: str | None = None
        self._expires = 0.0  # in Trio's clock
        self._answers = 0  # of the provider
        self._asking = trio.Lock()

    def __repr__(self) -> str:
        return f"<Login {self.auth!r}>"

    async def token(self, *, but_not: str | None = None) -> str | None:
        """The token, from the provider if need be; ``None`` where the credentials hold all that is needed.

        Args:
            but_not: a token that the server refused.

        Raises:
            TypeError: the provider is not async, or what it returned is neither a str nor a pair of one and seconds.
            LocalProtocolError: what it returned cannot be sent.
        """
        auth = self.auth
        if not isinstance(auth, OAuth | XOAuth) or isinstance(auth.token, str):
            return None
        answers = self._answers
        async with self._asking:
            if not self._is_good(but_not, came_meanwhile=self._answers != answers):
                self._token = None
                if but_not is not None and (forget := getattr(auth.token, "forget", None)) is not None:
                    forget(but_not)  # of a provider that keeps tokens for several pools
                answer = auth.token()
                if not inspect.isawaitable(answer):
                    raise TypeError("the token provider must be async")
                token, seconds = _with_lifetime(await answer)
                self._token = _checked(auth, token)
                self._expires = trio.current_time() + seconds
                self._answers += 1
            return self._token

    def _is_good(self, but_not: str | None, *, came_meanwhile: bool) -> bool:
        if self._token is None or self._token == but_not:
            return False
        return but_not is not None or came_meanwhile or trio.current_time() < self._expires


def _with_lifetime(answer: object) -> tuple[object, float]:
    """A provider's answer as a token and the seconds it lasts: none, if it does not say."""
    if not isinstance(answer, tuple):
        return answer, 0.0
    if len(answer) != 2 or isinstance(answer[1], bool) or not isinstance(answer[1], int | float):
        raise TypeError("a token provider returns the token, or the token and the seconds it lasts")
    return answer[0], answer[1]


def _checked(auth: OAuth | XOAuth, token: object) -> str:
    """What a provider returned, if it can be sent; else it is not kept for the next connection."""
    if isinstance(auth, OAuth):
        return check_bearer_token(token)
    decode_ready_token(token)
    assert isinstance(token, str)
    return token


async def log_in(
    connection: ClientConnection, login: Login, *, secure: bool, allow_insecure: bool, host: str, port: int | None
) -> None:
    """Authenticate. Afterwards the connection is reusable; after an error close it.

    Raises:
        UnsupportedAuthError: no mechanism in common, or none allowed in clear.
        AuthenticationError: refused, or the server does not keep to the mechanism.
        ConnectError: the server closed the session with a 421.
    """
    if not connection.extensions.auth:
        raise UnsupportedAuthError(_not_offered(connection), stage=Stage.AUTH)
    name = choose_mechanism(login.auth, connection.extensions.auth, secure=secure, allow_insecure=allow_insecure)
    token = await login.token()
    reply, mechanism = await _converse(
        connection, client_mechanism(name, login.auth, token=token, host=host, port=port)
    )
    if reply.code == 535 and token is not None:
        token = await login.token(but_not=token)  # asked again once: the next refusal is final
        reply, mechanism = await _converse(
            connection, client_mechanism(name, login.auth, token=token, host=host, port=port)
        )
    if reply.code == 421:
        raise ConnectError(f"the server closed the session: {reply}", reply=reply, stage=Stage.AUTH)
    if not reply.is_success:
        raise mechanism.refused(reply)
    mechanism.finish()


def _not_offered(connection: ClientConnection) -> str:
    """What to do where there is no AUTH at all."""
    words = f"{connection.name} does not offer AUTH"
    if connection.wire.tls is not None:
        return f"{words}: it may take mail without it, or only on port 587 or 465"
    if "STARTTLS" in connection.extensions:
        return f"{words} in clear; it may after STARTTLS, which it offers: tls='starttls'"
    return f"{words}, nor STARTTLS, after which it might: submission is on port 587 or 465 (tls='implicit')"


async def _converse(connection: ClientConnection, mechanism: ClientMechanism) -> tuple[Reply, ClientMechanism]:
    """One AUTH command and what belongs to it; the last reply."""
    timeout = connection.config.command_timeout
    reply = await connection.exchange(auth_command(mechanism.command()), timeout)
    rounds = 0
    while reply.code // 100 == 3:
        rounds += 1
        response = await _respond(mechanism, reply, rounds)
        if isinstance(response, AuthenticationError):
            await connection.exchange(auth_response(b"*"), timeout)  # RFC 4954 §4: 501 comes back
            raise response
        reply = await connection.exchange(auth_response(encode_challenge(response)), timeout)
    return reply, mechanism


async def _respond(mechanism: ClientMechanism, reply: Reply, rounds: int) -> bytes | AuthenticationError:
    """The answer to a challenge, or the reason to cancel the exchange."""
    try:
        if rounds > MAX_ROUNDS:
            raise AuthenticationError("the server asks on and on", reply=reply, stage=Stage.AUTH)
        step = mechanism.respond(decode_challenge(reply) if mechanism.reads_challenges else b"")
        while isinstance(step, DeriveKey):
            step = mechanism.derived(await trio.to_thread.run_sync(step, abandon_on_cancel=True))
    except AuthenticationError as exc:
        return exc
    return step
