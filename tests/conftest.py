from __future__ import annotations

import pytest


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
