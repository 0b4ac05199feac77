# One AUTH command, from its argument to the last reply (RFC 4954 §4): base64 lines around a SASL mechanism.
from __future__ import annotations

from typing import Final

from ..replies import Reply
from ..sasl import Challenge, Credentials, SASLError, ServerMechanism, decode_response, encode_challenge

SUCCESS: Final = Reply(235, "authentication succeeded", "2.7.0")
REFUSED: Final = Reply(535, "authentication failed", "5.7.8")
_CANCELLED: Final = Reply(501, "authentication cancelled", "5.7.0")
_BAD_ENDING: Final = Reply(501, "unexpected response", "5.5.2")


class AuthDialogue:
    """An AUTH exchange in progress.

    Each step returns the reply to send, a 334 of which asks for another line, or the credentials to ask the
    application about.
    """

    __slots__ = ("_final", "_mechanism")

    def __init__(self, mechanism: ServerMechanism) -> None:
        self._mechanism = mechanism
        self._final: Reply | None = None  # waits until the client has answered the mechanism's last challenge

    def begin(self, argument: bytes | None) -> Reply | Credentials:
        """Take the initial response as it stood in the command, or ``None``."""
        try:
            initial = None if argument is None else decode_response(argument, initial=True)
            step = self._mechanism.start(initial)
        except SASLError as exc:
            return exc.reply
        return _challenge(step.data) if isinstance(step, Challenge) else step.credentials

    def receive_line(self, line: bytes) -> Reply | Credentials:
        """Take a line that answers a 334."""
        if self._final is not None:
            return self._end(line, self._final)
        if line == b"*":
            return _CANCELLED
        try:
            step = self._mechanism.respond(decode_response(line))
        except SASLError as exc:
            return exc.reply
        return _challenge(step.data) if isinstance(step, Challenge) else step.credentials

    def _end(self, line: bytes, final: Reply) -> Reply:
        try:
            ended_well = self._mechanism.closing_response(decode_response(line))
        except SASLError:
            ended_well = False
        return final if ended_well or not final.is_success else _BAD_ENDING

    def verdict(self, reply: Reply) -> Reply:
        """Take what the application says.

        Raises:
            UnverifiedError: it accepted what it cannot have verified.
        """
        last = self._mechanism.verdict(reply.is_success)
        if last is None:
            return reply
        self._final = reply
        return _challenge(last)


def _challenge(data: bytes) -> Reply:
    return Reply(334, encode_challenge(data).decode("ascii"))
