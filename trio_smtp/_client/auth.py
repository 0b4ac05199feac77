# Logging in: the choice of a mechanism, the exchange, and one more token from the provider if the server refuses one.
from __future__ import annotations

import inspect

import trio

from .._protocol.client.commands import auth as auth_command
from .._protocol.client.commands import auth_response
from .._protocol.errors import AuthenticationError, ConnectError, Stage
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

    A provider is asked once, however many connections wait for the answer, and once more by the first connection that
    finds the token refused.
    """

    __slots__ = ("_asking", "_token", "auth")

    def __init__(self, auth: Auth) -> None:
        self.auth = auth
        self._token: str | None = None
        self._asking = trio.Lock()

    async def token(self, *, but_not: str | None = None) -> str | None:
        """The token, from the provider if need be; ``None`` where the credentials hold all that is needed.

        Args:
            but_not: a token that the server refused.

        Raises:
            TypeError: the provider is not async, or what it returned is not a str.
            LocalProtocolError: what it returned cannot be sent.
        """
        auth = self.auth
        if not isinstance(auth, OAuth | XOAuth) or isinstance(auth.token, str):
            return None
        async with self._asking:
            if self._token is None or self._token == but_not:
                self._token = None
                answer = auth.token()
                if not inspect.isawaitable(answer):
                    raise TypeError("the token provider must be async")
                self._token = _checked(auth, await answer)
            return self._token


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
