from __future__ import annotations

import signal

import pytest

# How files begin whose tests take long, by starting programs above all, and hardly depend on the version of Python.
SLOW = (
    "test_cli",
    "test_docs",
    "test_examples",
    "test_inbox_page",
    "test_mistakes",
    "test_outbox_cli",
    "test_outbox_faults",
    "test_outbox_namespaces",
    "test_pool_ctrl_c",
    "test_pool_faults",
    "test_server_model",
    "test_testing_plugin",
    "test_typing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.startswith(SLOW):
            item.add_marker("slow")


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
