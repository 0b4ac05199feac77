"""The outbox's configuration: the defaults that are promised, and what makes no sense."""

from __future__ import annotations

import pytest

from trio_smtp.outbox import OutboxConfig


def test_the_defaults():
    config = OutboxConfig()
    assert config.retry_delays == (60, 300, 900, 3600, 14400)
    assert (config.give_up_after, config.lease, config.on_doubt) == (432000, 60, "hold")
    assert (config.keep_done, config.max_size) == (86400, 64 * 1024 * 1024)
    with pytest.raises(AttributeError):
        config.lease = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("retry_delays", (), ValueError),
        ("retry_delays", (1, -1), ValueError),
        ("retry_delays", ("1",), TypeError),
        ("give_up_after", -1, ValueError),
        ("give_up_after", float("inf"), ValueError),
        ("lease", 0, ValueError),
        ("lease", True, TypeError),
        ("on_doubt", "ask", ValueError),
        ("keep_done", None, TypeError),
        ("max_size", 0, ValueError),
        ("max_size", 1.5, TypeError),
        ("rate_limit", (0, 1), ValueError),
        ("rate_limit", (1, 0), ValueError),
        ("domain_rate_limit", (1.5, 1), ValueError),
        ("trace", 5, TypeError),
    ],
)
def test_what_makes_no_sense(field, value, error):
    with pytest.raises(error, match=field):
        OutboxConfig(**{field: value})
