# One try of an entry, and what it says about each recipient.
from __future__ import annotations

from typing import Any, Final

import trio

from trio_smtp import (
    Delivery,
    ExtensionNotSupportedError,
    LocalProtocolError,
    MessageRefusedError,
    MessageTooLargeError,
    PoolClosedError,
    RecipientsRefusedError,
    Reply,
    SenderRefusedError,
    SendResult,
    SMTPError,
)

from ._config import OutboxConfig
from ._dialogue import Dialogue
from ._errors import LeaseLostError, StoreError
from ._hop_parameters import has_any, optional, without
from ._states import Outcome, Record, Turn, stamp

_HOPELESS: Final = (LocalProtocolError, ExtensionNotSupportedError, MessageTooLargeError)  # the same would come again
_REFUSALS: Final = (SenderRefusedError, RecipientsRefusedError, MessageRefusedError)
_WORDS: Final = {
    Turn.ACCEPT: "accepted",
    Turn.REFUSE: "refused",
    Turn.AGAIN: "not sent, to be tried again",
    Turn.DOUBT: "in doubt",
}


class Attempt:
    """One try of an entry, and what it says about each recipient.

    Attributes:
        record: as it is in the store.
        claim: the fencing token.
        recipients: those that it is about.
        outcomes: what is known of them at the end; empty while there is nothing to write down.
        is_handed_over: the end of the message may have left: the pool may try more than once, and mark each time.
        error: what ended it, or ``None``.
        started: by Trio's clock.
        mail_params: of MAIL.
        rcpt_params: of RCPT, for those that it is about.
        dialogue: what is said.
        goes_without: parameters that may be left out were left out.
    """

    def __init__(self, record: Record, config: OutboxConfig) -> None:
        self.record = record
        self.claim: Final = record.claim
        self.recipients: Final = record.sending
        self.outcomes: dict[str, Outcome] = {}
        self.is_handed_over = False
        self.started: Final = trio.current_time()
        self.error: Exception | None = None
        self._config: Final = config
        self._words = ""
        self.dialogue: Final = Dialogue()
        self.goes_without = False
        self.mail_params: dict[str, Any] | None = record.mail_params
        params = record.rcpt_params
        self.rcpt_params: dict[str, Any] | None = params and {
            each: params[each] for each in self.recipients if each in params
        }

    def leave_out_optional(self, error: ExtensionNotSupportedError) -> None:
        """Nothing was sent, since the next server does not offer what is asked for: go without, where that may be.

        Raises:
            ExtensionNotSupportedError: the same, where that would not help.
        """
        if not self._asks_too_much or error.accepted or error.refused or error.unknown:
            raise error
        self.goes_without = True
        keywords = optional(self.record.sender)
        self.mail_params = without(keywords, self.mail_params)
        self.rcpt_params = {address: without(keywords, each) or {} for address, each in self._of_rcpt.items()}

    @property
    def _of_rcpt(self) -> dict[str, Any]:
        return self.rcpt_params or {}

    @property
    def _asks_too_much(self) -> bool:
        return has_any(optional(self.record.sender), self.mail_params, *self._of_rcpt.values())

    def take_result(self, result: SendResult) -> None:
        """The server took the message for at least one recipient."""
        for address in self.recipients:
            if address in result.refused:
                self.outcomes[address] = self._refused(address, result.refused[address])
            elif address in result.accepted:
                self.outcomes[address] = Outcome(Turn.ACCEPT, result.replies.get(address, result.reply))
            else:
                self.outcomes[address] = self._in_doubt(address, "the server said nothing about this recipient")

    def take_error(self, error: Exception) -> None:
        """The try ended in an error."""
        if isinstance(error, LeaseLostError | LookupError):  # by another worker, or by hand: there is nothing to say
            return
        self.error = error
        self._words = str(error) or type(error).__name__
        for address in self.recipients:
            self.outcomes[address] = self._after_error(address, error)

    def take_cancellation(self) -> None:
        """The worker was told to end."""
        self._words = "the worker was ended"
        for address in self.recipients:
            if self.is_handed_over:
                self.outcomes[address] = self._in_doubt(address, "the worker was ended before the reply came")
            else:
                self.outcomes[address] = Outcome(Turn.AGAIN)

    def log(self, now: float, seconds: float) -> list[str]:
        """The dialogue, and the end of the try, which took so many seconds, in lines of text."""
        lines = [f"<{address}>: {_in_words(outcome)}" for address, outcome in self.outcomes.items()]
        took = f"{stamp(now)} ended after {seconds:.3f} s"
        return [*self.dialogue.lines(), f"{took}: {self._words}" if self._words else took, *lines]

    def _after_error(self, address: str, error: Exception) -> Outcome:
        words = str(error) or type(error).__name__
        if isinstance(error, StoreError):  # of the mark: this time, nothing that ends the message was sent
            return self._in_doubt(address, words) if self.is_handed_over else Outcome(Turn.AGAIN, error=words)
        if not isinstance(error, SMTPError):
            return self._in_doubt(address, words) if self.is_handed_over else self._again(address, error=words)
        if address in error.accepted:
            return Outcome(Turn.ACCEPT, error.reply if error.reply and error.reply.is_success else None)
        if address in error.unknown or (error.delivery is Delivery.UNKNOWN and not error.unknown):
            return self._in_doubt(address, words)
        if address in error.refused:
            return self._refused(address, error.refused[address])
        if isinstance(error, ExtensionNotSupportedError) and self._asks_too_much:  # of a list that was split
            return Outcome(Turn.AGAIN, error=words)
        if isinstance(error, _HOPELESS):
            return Outcome(Turn.REFUSE, error.reply, words)
        if isinstance(error, PoolClosedError):
            return Outcome(Turn.AGAIN, error=words)
        if error.delivery is Delivery.REFUSED and isinstance(error, _REFUSALS) and error.reply is not None:
            return self._refused(address, error.reply)
        return self._again(address, error.reply, words)

    def _refused(self, address: str, reply: Reply) -> Outcome:
        return self._again(address, reply) if reply.is_temporary else Outcome(Turn.REFUSE, reply)

    def _again(self, address: str, reply: Reply | None = None, error: str = "") -> Outcome:
        delays = self._config.retry_delays
        tried = self.record.recipients[address].attempts
        return Outcome(Turn.AGAIN, reply, error, delays[min(tried, len(delays)) - 1])

    def _in_doubt(self, address: str, words: str) -> Outcome:
        if self._config.on_doubt == "retry":
            return self._again(address, error=words)
        return Outcome(Turn.DOUBT, error=words)


def _in_words(outcome: Outcome) -> str:
    said = str(outcome.reply) if outcome.reply is not None else outcome.error
    return f"{_WORDS[outcome.turn]}{': ' if said else ''}{said}"
