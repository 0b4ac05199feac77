"""Fixtures for pytest, with pytest-trio or with AnyIO's plugin on Trio.

``pip install 'trio-smtp[testing]'`` is enough: pytest finds the plugin by itself.

* ``smtp_sink``: :func:`open_sink` in clear, on a free loopback port.
* ``smtp_tls_sink``: the same with STARTTLS; ``smtp_implicit_tls_sink``: with TLS from the start.
* ``threaded_smtp_sink``: the plain one in a thread of its own, for tests that are not async.
* ``smtp_certificates``: what their certificates come from, one authority for the whole run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from . import Certificates, Sink, ThreadedSink, make_certificates, open_sink, run_sink


@pytest.fixture(scope="session")
def smtp_certificates() -> Certificates:
    """Throw-away certificates for ``localhost`` and the loopback addresses: ``.client_context()`` trusts them."""
    return make_certificates()


@pytest.fixture
async def smtp_sink() -> AsyncIterator[Sink]:
    """A server in clear that keeps what it gets."""
    async with open_sink() as sink:
        yield sink


@pytest.fixture
async def smtp_tls_sink(smtp_certificates: Certificates) -> AsyncIterator[Sink]:
    """The same with STARTTLS; ``client_options`` trust its certificate."""
    async with open_sink(tls="starttls", certificates=smtp_certificates) as sink:
        yield sink


@pytest.fixture
async def smtp_implicit_tls_sink(smtp_certificates: Certificates) -> AsyncIterator[Sink]:
    """The same with TLS from the start."""
    async with open_sink(tls="implicit", certificates=smtp_certificates) as sink:
        yield sink


@pytest.fixture
def threaded_smtp_sink() -> Iterator[ThreadedSink]:
    """A server in clear that keeps what it gets, in a thread of its own, for tests that are not async."""
    with run_sink() as sink:
        yield sink
