# What the signals to a server ask for; in a worker, the orders of its parent ask for the same.
#
# The first SIGINT or SIGTERM asks for a graceful end, the second for one at once. SIGHUP asks for the certificates to
# be loaded again; where they are in no files, a terminal has gone, and it asks for the end. SIGUSR1 asks for
# statistics.
from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable
from typing import Final

import trio

import trio_smtp

ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM})
_OPTIONAL: Final = ("SIGHUP", "SIGUSR1")  # Windows has neither
RELOAD: Final = getattr(signal, "SIGHUP", None)
STATISTICS: Final = getattr(signal, "SIGUSR1", None)
WATCHED: Final = ENDING | {getattr(signal, name) for name in _OPTIONAL if hasattr(signal, name)}

logger: Final = logging.getLogger("trio_smtp.statistics")


class Wishes:
    """What was asked for so far.

    Args:
        can_reload: there are certificates in files.
        statistics: writes them to the log.

    Attributes:
        end: set when the server is to end.
        at_once: set when it is not to wait.
        reloads: a channel with an item for each time that the certificates are to be loaded.
    """

    def __init__(self, *, can_reload: bool, statistics: Callable[[], None]) -> None:
        self._can_reload = can_reload
        self._statistics = statistics
        self.end = trio.Event()
        self.at_once = trio.Event()
        self._reloads, self.reloads = trio.open_memory_channel[None](1)

    def take(self, number: int) -> None:
        """A signal, or a parent's order that stands for it."""
        if number == STATISTICS:
            self._statistics()
        elif number == RELOAD and self._can_reload:
            try:
                self._reloads.send_nowait(None)
            except (trio.WouldBlock, trio.BrokenResourceError):  # one is to come, or there is nothing to load into
                pass
        elif self.end.is_set() and number != RELOAD:
            self.at_once.set()
        else:
            self.end.set()

    async def obey(self, numbers: Iterable[int] = WATCHED) -> None:
        """Take signals until cancelled."""
        with trio.open_signal_receiver(*sorted(numbers)) as signals:
            async for number in signals:
                self.take(number)


def write_statistics(statistics: trio_smtp.ServerStatistics, totals: object) -> None:
    """Write a server's counters to the log.

    Args:
        statistics: of this process.
        totals: of all processes.
    """
    logger.setLevel(logging.INFO)  # they were asked for, whatever level the rest has
    counts = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in vars(statistics).items())
    logger.info("statistics: %s; accepted: %s", counts, totals)
