"""Fixtures for pytest, with pytest-trio or with AnyIO's plugin on Trio.

``pip install 'trio-smtp[testing]'`` is enough: pytest finds the plugin by itself.

* ``smtp_sink``: :func:`open_sink` in clear, on a free loopback port.
* ``smtp_tls_sink``: the same with STARTTLS; ``smtp_implicit_tls_sink``: with TLS from the start.
* ``threaded_smtp_sink``: the plain one in a thread of its own, for tests that are not async.
* ``smtp_certificates``: what their certificates come from, one authority for the whole run.

An async one that is asked for where it cannot be opened, by a test that is not async, on asyncio or in the middle of a
test, is an error that says where it can.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
import trio

from . import Certificates, Sink, ThreadedSink, make_certificates, open_sink, run_sink


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Say where an async fixture, of the inbox's plugin too, can be used, if it is asked for elsewhere."""
    function, name = fixturedef.func, fixturedef.argname
    if not (inspect.isasyncgenfunction(function) and function.__module__.startswith("trio_smtp.")):
        return (yield)
    if trio.lowlevel.in_trio_task():
        raise RuntimeError(f"{name} cannot be opened while the test runs: let it be an argument of the test")
    hint = (
        f"{name} is for async tests on Trio: those of pytest-trio, or of AnyIO's plugin with 'trio' as anyio_backend;"
        f" threaded_smtp_{'inbox' if 'inbox' in name else 'sink'} is for all others"
    )
    try:
        return (yield)
    except pytest.fail.Exception as exc:  # nobody has opened it; pytest shows no notes of this one
        raise pytest.fail.Exception(f"{exc.msg}\n{hint}", pytrace=False) from None
    except RuntimeError as exc:
        exc.add_note(hint)
        raise


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
