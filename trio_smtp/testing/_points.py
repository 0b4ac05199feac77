# Fault points of a server: the stages of a session at which a test wants a refusal, a cut or a stall.
#
# They happen in the hooks, so the same way in clear and under TLS, and with DATA as with BDAT.
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import trio

from trio_smtp import Reply, Stage

from .._public import NoPublicConstructor

PointStage: TypeAlias = Literal["greeting", "hello", "auth", "mail", "rcpt", "data", "body", "end"]
_STAGES: Final = frozenset(map(Stage, ("greeting", "hello", "auth", "mail", "rcpt", "data", "body", "end")))
_WITH_ADDRESS: Final = frozenset((Stage.MAIL, Stage.RCPT, Stage.END))


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
        times: how often it still happens; ``None`` for always.
        count: how often it has happened.
    """

    stage: Stage
    reply: Reply | None
    seconds: float
    cut: bool
    keep: bool
    address: str | None
    times: int | None
    count: int

    @classmethod
    def _create(
        cls,
        at: PointStage | Stage,
        *,
        reply: Reply | None = None,
        seconds: float = 0.0,
        cut: bool = False,
        keep: bool = False,
        address: str | None,
        times: int | None,
    ) -> FaultPoint:
        """A checked one.

        Raises:
            ValueError: it could never happen.
        """
        stage = Stage(at)
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"seconds is a time, not {seconds}")
        if stage not in _STAGES:
            raise ValueError(f"a sink can do nothing special at {str(stage)!r}, only at {', '.join(_STAGES)}")
        if address is not None and stage not in _WITH_ADDRESS:
            raise ValueError(f"there is no address at {str(stage)!r}")
        if keep and stage is not Stage.END:
            raise ValueError(f"there is no message to keep at {str(stage)!r}")
        if times is not None and times < 1:
            raise ValueError(f"times is at least 1, not {times}")
        if reply is not None and reply.code < 400:
            raise ValueError(f"a refusal is a 4xx or 5xx reply, not {reply}")
        self = cls.__new__(cls)
        self.stage, self.reply, self.seconds, self.cut, self.keep = stage, reply, seconds, cut, keep
        self.address, self.times, self.count = address, times, 0
        return self

    def _take(self, stage: Stage, address: str | None) -> bool:
        """Whether it happens now; if so, it is counted."""
        if self.stage is not stage or self.times == 0 or (self.address is not None and self.address != address):
            return False
        self.count += 1
        if self.times is not None:
            self.times -= 1
        return True

    async def _happen(self, stream: trio.abc.Stream) -> Reply | None:
        """Let it happen to a connection; the reply to give, ``None`` if things go on."""
        if self.seconds:
            await trio.sleep(self.seconds)
        if self.cut:
            await _cut(stream)
            return Reply(421, "cut off", close=True)  # not sent: the stream is closed
        return self.reply


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
