# Fault points of a server: the stages of a session at which a test wants a refusal, a cut or a stall.
#
# They happen in the hooks, so the same way in clear and under TLS, and with DATA as with BDAT.
from __future__ import annotations

import math
import random
import re
from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

import trio

from trio_smtp import Reply, Stage

from .._public import NoPublicConstructor

PointStage: TypeAlias = Literal["greeting", "hello", "auth", "mail", "rcpt", "data", "body", "end"]
"""The stages at which a :class:`Sink` can be told to refuse, to stall or to cut."""
_STAGES: Final = frozenset(map(Stage, ("greeting", "hello", "auth", "mail", "rcpt", "data", "body", "end")))
_WITH_ADDRESS: Final = frozenset((Stage.MAIL, Stage.RCPT, Stage.END))
_WITH_RECIPIENT: Final = frozenset((Stage.RCPT, Stage.DATA, Stage.BODY, Stage.END))
_WITH_SENDER: Final = _WITH_RECIPIENT | {Stage.MAIL}
MAX_RATE: Final = 100_000  # sessions in the window of a rate: each leaves a time behind

# Addresses that ask for a fault: 450-rcpt@…, 550-end+anything@…, stall10-data@…, cut-body@…
_ADDRESS_FAULT: Final = re.compile(
    r"(?:(?P<code>[45][0-9][0-9])|stall(?P<seconds>[0-9]{0,4})|(?P<cut>cut))"
    r"-(?P<stage>mail|rcpt|data|body|end)(?:[+.-][^@]*)?@.*",
    re.IGNORECASE,
)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind | int) and not isinstance(value, bool)


def _check_numbers(*, seconds: object, share: object, times: object, rate: object) -> None:
    """Check the types of a point's numbers.

    Raises:
        TypeError: naming the argument.
    """
    for name, value in (("seconds", seconds), ("share", share)):
        if not _is_number(value, float):
            raise TypeError(f"{name} must be a number, not {value!r:.80}")
    if times is not None and not _is_number(times, int):
        raise TypeError(f"times must be a whole number or None, not {times!r:.80}")
    if rate is None:
        return
    if not isinstance(rate, tuple) or len(rate) != 2 or not all(_is_number(value, float) for value in rate):
        raise TypeError(f"rate must be (messages, seconds) or None, not {rate!r:.80}")


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a session is.

    Attributes:
        stage: the stage.
        address: the one that is answered: the sender at MAIL, the recipient at RCPT, and at LMTP's end.
        sender: of the transaction; ``None`` outside one.
        recipients: the one that is answered, or else all that were accepted.
    """

    stage: Stage
    address: str | None = None
    sender: str | None = None
    recipients: tuple[str, ...] = ()


@dataclass(init=False, eq=False)
class FaultPoint(metaclass=NoPublicConstructor):
    """A stage at which a :class:`Sink` does something else than to accept; made by its methods.

    Attributes:
        stage: where.
        reply: what it answers; ``None`` for a cut or a stall.
        seconds: how long it stalls first.
        cut: the connection is cut off.
        keep: at the end of a message: keep it before.
        address: only for this sender (``"mail"``) or recipient (``"rcpt"``; ``"end"`` with LMTP).
        sender: only for messages whose sender matches this pattern (``*@example.com``), from ``"mail"`` on.
        recipient: only for recipients that match this pattern, from ``"rcpt"`` on; later, for messages with one.
        share: how large a part of all cases it happens in, at random: 0 to 1.
        rate: ``(n, seconds)``: it happens to what comes beyond n in any time of this length; ``None`` for all.
        times: how often it still happens; ``None`` for always.
        count: how often it has happened.
    """

    stage: Stage
    reply: Reply | None
    seconds: float
    cut: bool
    keep: bool
    address: str | None
    sender: str | None
    recipient: str | None
    share: float
    rate: tuple[int, float] | None
    times: int | None
    count: int
    _random: random.Random = field(repr=False)
    _passed: deque[float] = field(repr=False)  # when those came that `rate` has let pass

    @classmethod
    def _create(
        cls,
        at: PointStage | Stage,
        *,
        reply: Reply | None = None,
        seconds: float = 0.0,
        cut: bool = False,
        keep: bool = False,
        address: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        share: float = 1.0,
        seed: int | None = None,
        rate: tuple[int, float] | None = None,
        times: int | None = None,
    ) -> FaultPoint:
        """A checked one.

        Raises:
            ValueError: it could never happen.
        """
        if at not in _STAGES:
            raise ValueError(
                f"a sink can do nothing special at stage {str(at)!r}, only at {', '.join(sorted(_STAGES))}"
            )
        stage = Stage(at)
        _check_numbers(seconds=seconds, share=share, times=times, rate=rate)
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"seconds is a time, not {seconds}")
        if address is not None and stage not in _WITH_ADDRESS:
            raise ValueError(f"there is no address at {str(stage)!r}")
        if sender is not None and stage not in _WITH_SENDER:
            raise ValueError(f"there is no sender at {str(stage)!r}")
        if recipient is not None and stage not in _WITH_RECIPIENT:
            raise ValueError(f"there is no recipient at {str(stage)!r}")
        if not 0 <= share <= 1:
            raise ValueError(f"share is 0 to 1, not {share}")
        if rate is not None and not (0 <= rate[0] <= MAX_RATE and 0 < rate[1] < math.inf):
            raise ValueError(f"rate must be (messages, seconds), at most {MAX_RATE} messages, not {rate}")
        if keep and stage is not Stage.END:
            raise ValueError(f"there is no message to keep at {str(stage)!r}")
        if times is not None and times < 1:
            raise ValueError(f"times is at least 1, not {times}")
        if reply is not None and reply.code < 400:
            raise ValueError(f"a refusal is a 4xx or 5xx reply, not {reply}")
        self = cls.__new__(cls)
        self.stage, self.reply, self.seconds, self.cut, self.keep = stage, reply, seconds, cut, keep
        self.address, self.sender, self.recipient = address, sender, recipient
        self.share, self.rate, self.times, self.count = share, rate, times, 0
        self._random, self._passed = random.Random(seed), deque()
        return self

    def _take(self, moment: Moment) -> bool:
        """Whether it happens now; if so, it is counted."""
        if self.times == 0 or not self._matches(moment) or self._lets_pass():
            return False
        if self.share < 1 and self._random.random() >= self.share:
            return False
        self.count += 1
        if self.times is not None:
            self.times -= 1
        return True

    def _matches(self, moment: Moment) -> bool:
        return (
            self.stage is moment.stage
            and (self.address is None or self.address == moment.address)
            and (self.sender is None or _fits(moment.sender or "", self.sender))
            and (self.recipient is None or any(_fits(each, self.recipient) for each in moment.recipients))
        )

    def _lets_pass(self) -> bool:
        """Whether the rate has not been reached; what passes is counted."""
        if self.rate is None:
            return False
        most, seconds = self.rate
        now = trio.current_time()
        while self._passed and self._passed[0] <= now - seconds:
            self._passed.popleft()
        if len(self._passed) >= most:
            return False
        self._passed.append(now)
        return True

    async def _happen(self, stream: trio.abc.Stream) -> Reply | None:
        """Let it happen to a connection; the reply to give, ``None`` if things go on."""
        if self.seconds:
            await trio.sleep(self.seconds)
        if self.cut:
            await _cut(stream)
            return Reply(421, "cut off", close=True)  # not sent: the stream is closed
        return self.reply


def _fits(address: str, pattern: str) -> bool:
    """Whether an address is what a pattern says. Case does not count, though RFC 5321 §2.4 has it in local parts."""
    address, pattern = address.lower(), pattern.lower()
    return address == pattern or fnmatchcase(address, pattern)  # the brackets of [192.0.2.1] are no pattern's


def asked_by_address(moment: Moment) -> FaultPoint | None:
    """The fault that an address asks for, as ``450-rcpt@example.com`` does at RCPT."""
    addresses = moment.recipients if moment.stage is not Stage.MAIL else ()
    for address in (*addresses, moment.sender or ""):
        match = _ADDRESS_FAULT.fullmatch(address)
        if match is None or Stage(match["stage"].lower()) is not moment.stage:
            continue
        if match["code"]:
            code = int(match["code"])
            return FaultPoint._create(
                moment.stage, reply=Reply(code, f"asked for by {address}", close=code == 421), times=1
            )
        if match["cut"]:
            return FaultPoint._create(moment.stage, cut=True, times=1)
        return FaultPoint._create(moment.stage, seconds=float(match["seconds"] or "inf"), times=1)
    return None


async def _cut(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        # Not closed: the session reads and writes by the number of the descriptor, which may be another's by then.
        try:
            stream.socket.shutdown(trio.socket.SHUT_RDWR)
        except OSError:  # the client has gone before
            pass
        await trio.lowlevel.checkpoint()
    else:
        await trio.aclose_forcefully(stream)
