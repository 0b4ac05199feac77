# Counts that processes share.
from __future__ import annotations

import os

import pytest

from trio_smtp._cli.totals import Totals, duration


def test_each_process_counts_at_its_place_and_all_see_the_sum():
    totals = Totals(2)
    totals.add(5)
    pid = os.fork()
    if pid == 0:
        totals.count_as(2)
        totals.add(1000)
        totals.add(995)
        os._exit(0)
    os.waitpid(pid, 0)
    totals.count_as(1)
    totals.add(10)
    assert (totals.messages, totals.octets) == (4, 2010)
    assert str(totals) == "4 messages, 2,010 octets in 0 s"


def test_one_message():
    totals = Totals()
    totals.add(1)
    assert str(totals).startswith("1 message, 1 octets in ")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (3600 * 2 + 301, "2 h 5 min")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words
