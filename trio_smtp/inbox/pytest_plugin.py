"""Fixtures for pytest: an inbox for each test that asks for one.

``pip install 'trio-smtp[inbox,testing]'`` is enough: pytest finds the plugin by itself.

* ``smtp_inbox``: :func:`trio_smtp.inbox.open_inbox`, with pytest-trio or with AnyIO's plugin on Trio.
* ``threaded_smtp_inbox``: :func:`trio_smtp.inbox.run_inbox`, for tests that are not async.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from . import Inbox, ThreadedInbox, open_inbox, run_inbox


@pytest.fixture
async def smtp_inbox() -> AsyncIterator[Inbox]:
    """An inbox on free loopback ports."""
    async with open_inbox() as inbox:
        yield inbox


@pytest.fixture
def threaded_smtp_inbox() -> Iterator[ThreadedInbox]:
    """An inbox on free loopback ports, in a thread of its own, for tests that are not async."""
    with run_inbox() as inbox:
        yield inbox
