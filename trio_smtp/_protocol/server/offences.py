# What a client does wrong in one session, and what that costs it.
#
# Errors are 5xx replies; junk is what is allowed but leads nowhere (NOOP, RSET, VRFY ...). An accepted message makes
# up for both. A penalty is how long the next reply waits, in units of `error_delay`; this file knows no time.
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import ServerConfig


class Offences:
    """The counts of one session, held against the limits of its server.

    Args:
        config: the limits.

    Attributes:
        too_many: more errors than `max_errors`: the next reply ends the session.
        penalty: units of `error_delay` that the next reply waits for.
    """

    __slots__ = ("_auth_failures", "_config", "_errors", "_junk", "penalty", "too_many")

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._errors: int = 0
        self._junk: int = 0
        self._auth_failures: int = 0
        self.penalty: int = 0
        self.too_many: bool = False

    def __repr__(self) -> str:
        return f"<Offences: {self._errors} errors, {self._junk} junk commands, {self._auth_failures} failed logins>"

    def count_error(self) -> None:
        """Count a 5xx reply; beyond `soft_errors` it waits."""
        self._errors += 1
        config = self._config
        if config.max_errors is None:
            return
        if self._errors > config.max_errors:
            self.too_many = True
        if config.soft_errors is not None and self._errors > config.soft_errors:
            self.penalize(1)

    def count_junk(self) -> None:
        """Count a command that leads nowhere; beyond `max_junk_commands` it is an error."""
        self._junk += 1
        limit = self._config.max_junk_commands
        if limit is not None and self._junk > limit:
            self.count_error()

    def count_auth_failure(self) -> bool:
        """Count a failed AUTH; returns whether there were more than `max_auth_failures`."""
        self._auth_failures += 1
        self.penalize(self._auth_failures - 1)  # a password mistyped once costs nothing
        limit = self._config.max_auth_failures
        return limit is not None and self._auth_failures > limit

    def forgive(self) -> None:
        """A message was accepted: start counting errors and junk anew."""
        self._errors = self._junk = 0
        self.too_many = False

    def penalize(self, units: int) -> None:
        """Let the next reply wait for at least so many units, maybe none."""
        if units > self.penalty:
            self.penalty = units

    def take_penalty(self) -> int:
        """The units to wait for, which are then taken as waited for."""
        units, self.penalty = self.penalty, 0
        return units
