from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    # Where SIGINT is ignored (nohup, a background job), programs that the tests start would ignore it as well.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-faults",
        action="store_true",
        help="test_pool_faults.py: every kind of fault with every configuration at every point, not each in its turn",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how often scenarios were played, for the tests that count it."""
    reports = terminalreporter.getreports("passed")
    runs = [int(value) for report in reports for name, value in report.user_properties if name == "runs"]
    if runs:
        terminalreporter.write_line(f"faults and cancellations: {len(runs)} tests played {sum(runs)} runs")
