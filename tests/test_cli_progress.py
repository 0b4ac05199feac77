"""Progress that is no bar: a line at each quarter, or nothing."""

from __future__ import annotations

import pytest

from trio_smtp._cli.progress import show_progress


@pytest.mark.parametrize(
    ("total", "lines"), [(8, ["2/8", "4/8", "6/8", "8/8"]), (3, ["1/3", "2/3", "3/3"]), (1, ["1/1"])]
)
def test_a_line_at_each_quarter(total: int, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("sent", total) as advance:
        for _ in range(total):
            advance()
    assert capsys.readouterr().out.splitlines() == [f"sent: {line}" for line in lines]


def test_quiet_without_a_terminal_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("sent", 2, quiet=True) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
