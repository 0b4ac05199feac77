# AUTH at a server (RFC 4954): when it may be used, which mechanisms there are, how often it may fail.
from __future__ import annotations

from ..replies import Reply
from ..sasl import SERVER_MECHANISMS, Credentials, MechanismContext, UnverifiedError
from .auth import SUCCESS, AuthDialogue
from .core import ServerCore, Taken
from .events import Authenticate
from .tables import HELLO_FIRST, TOO_MANY_FAILURES


class LoginCommands(ServerCore):
    """AUTH and the lines that follow it."""

    __slots__ = ()

    def _mechanisms(self) -> tuple[str, ...]:
        profile = self._profile
        if "AUTH" not in profile.extensions or not (self.tls or profile.config.allow_insecure_auth):
            return ()
        if self.external_identity is None and "EXTERNAL" in profile.mechanisms:
            return tuple(name for name in profile.mechanisms if name != "EXTERNAL")
        return profile.mechanisms

    def _take_auth(self, argument: bytes) -> Taken:
        config = self._profile.config
        if self.authenticated:
            return Reply(503, "already authenticated", "5.5.1")  # RFC 4954 §4
        if not self.esmtp:
            return HELLO_FIRST
        if not (self.tls or config.allow_insecure_auth):
            return Reply(538, "encryption is required for authentication", "5.7.11")  # RFC 4954 §6
        words = argument.split()
        if not 1 <= len(words) <= 2:
            return Reply(501, "syntax: AUTH mechanism [initial-response]", "5.5.4")
        name = words[0].upper().decode("ascii", "replace")
        if name not in self._mechanisms():
            return Reply(504, "unrecognized authentication type", "5.5.4")
        context = MechanismContext(
            hostname=config.hostname,
            secret=config.scram_secret,
            scram_iterations=config.scram_iterations,
            external_identity=self.external_identity,
        )
        self._auth = AuthDialogue(SERVER_MECHANISMS[name](context))
        return self._step_auth(self._auth.begin(words[1] if len(words) == 2 else None))

    def _continue_auth(self, line: bytes) -> Taken:
        assert self._auth is not None
        if self.trace is not None:
            self.trace("<", b"***")
        return self._step_auth(self._auth.receive_line(line))

    def _step_auth(self, step: Reply | Credentials) -> Taken:
        if isinstance(step, Credentials):
            return Authenticate(step)
        if step.code == 334:
            self._flush = True
            return step
        return self._end_auth(step)

    def _end_auth(self, reply: Reply) -> Reply:
        self._auth = None
        if reply.is_success:
            self.authenticated = True
            return reply
        self._auth_failures += 1
        self.penalize(self._auth_failures - 1)  # whoever mistypes a password once does not wait
        limit = self._profile.config.max_auth_failures
        return reply if limit is None or self._auth_failures <= limit else TOO_MANY_FAILURES

    def _answer_auth(self, reply: Reply) -> None:
        assert self._auth is not None
        try:
            next_reply = self._auth.verdict(reply)
        except UnverifiedError as exc:
            self._reply(self._end_auth(exc.reply))
            raise
        if next_reply.code == 334:
            self._flush = True
            self._reply(next_reply)
        else:
            self._reply(self._end_auth(next_reply))

    def _succeed_auth(self, event: Authenticate, reply: Reply) -> None:
        if reply.code != SUCCESS.code:  # RFC 4954 §6: no other success ends the exchange
            reply = Reply(SUCCESS.code, reply.lines, reply.enhanced or SUCCESS.enhanced, close=reply.close)
        self._answer_auth(reply)
