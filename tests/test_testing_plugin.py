# trio_smtp.testing: the pytest plugin, in a pytest of its own.
from __future__ import annotations

import subprocess
import sys

import pytest

TESTS = """
import pytest
import trio_smtp

{mark}

async def send(sink):
    async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
        await client.send("a@x.test", ["b@y.test"], b"x\\r\\n")

async def test_plain(smtp_sink):
    await send(smtp_sink)
    assert [(m.content, m.tls) for m in smtp_sink.messages] == [(b"x\\r\\n", None)]

async def test_another_one_is_empty(smtp_sink):
    assert smtp_sink.messages == []

async def test_starttls(smtp_tls_sink, smtp_certificates):
    await send(smtp_tls_sink)
    assert smtp_tls_sink.tls == "starttls"
    assert smtp_tls_sink.certificates is smtp_certificates
    assert smtp_tls_sink.messages[0].tls is not None

async def test_implicit_tls(smtp_implicit_tls_sink, smtp_sink):
    await send(smtp_implicit_tls_sink)
    assert smtp_implicit_tls_sink.messages[0].tls is not None
    assert smtp_sink.messages == []

async def test_one_in_a_thread_beside(smtp_sink, threaded_smtp_sink):
    assert smtp_sink.port != threaded_smtp_sink.port

async def test_certificates_alone(smtp_certificates):
    assert smtp_certificates.client_context().check_hostname
"""


NOT_ASYNC = """
import smtplib

def test_not_async(threaded_smtp_sink):
    with smtplib.SMTP(threaded_smtp_sink.host, threaded_smtp_sink.port, timeout=20) as client:
        client.sendmail("a@x.test", ["b@y.test"], b"x\\r\\n")
    assert threaded_smtp_sink.wait_for()[0].content == b"x\\r\\n"
"""


def run_pytest(directory, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "trio_smtp.testing.pytest_plugin"]
    return subprocess.run(
        [*command, "-W", "error", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("mode", ["trio_mode", "marked", "anyio"])
def test_the_fixtures(tmp_path, mode):
    mark, options = "", tuple[str, ...]()
    if mode == "trio_mode":
        options = ("-o", "trio_mode=true")
    elif mode == "marked":
        mark = "pytestmark = pytest.mark.trio"
    else:
        pytest.importorskip("anyio.pytest_plugin")
        mark = "pytestmark = pytest.mark.anyio\n\n@pytest.fixture\ndef anyio_backend():\n    return 'trio'"
        options = ("-p", "no:trio")
    (tmp_path / "test_it.py").write_text(TESTS.format(mark=mark))
    done = run_pytest(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


HINT = (
    "{name} is for async tests on Trio: those of pytest-trio, or of AnyIO's plugin with 'trio' as anyio_backend; "
    "threaded_{name} is for all others"
)


@pytest.mark.parametrize(
    ("test", "options", "error"),
    [
        ("def test_it(smtp_sink): pass", "trio_mode=false", HINT.format(name="smtp_sink")),
        ("def test_it(smtp_sink): pass", "trio_mode=true", HINT.format(name="smtp_sink")),
        ("async def test_it(smtp_sink): pass", "trio_mode=false", HINT.format(name="smtp_sink")),
        ("def test_it(smtp_inbox): pass", "trio_mode=true", HINT.format(name="smtp_inbox")),
        (
            "async def test_it(request): request.getfixturevalue('smtp_sink')",
            "trio_mode=true",
            "smtp_sink cannot be opened while the test runs: let it be an argument of the test",
        ),
        (
            "async def test_it(threaded_smtp_sink): threaded_smtp_sink.messages",
            "trio_mode=true",
            "is in a thread of its own, for tests that are not async; others use 'async with'",
        ),
    ],
)
def test_a_fixture_where_it_cannot_be_opened(tmp_path, test, options, error):
    (tmp_path / "test_it.py").write_text(test + "\n")
    done = run_pytest(tmp_path, "-p", "trio_smtp.inbox.pytest_plugin", "-o", options)
    assert done.returncode == 1
    assert error in done.stdout
    assert "During handling" not in done.stdout


def test_a_fixture_on_asyncio(tmp_path):
    pytest.importorskip("anyio.pytest_plugin")
    backend = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n\n"
    (tmp_path / "test_it.py").write_text(backend + "@pytest.mark.anyio\nasync def test_it(smtp_sink): pass\n")
    done = run_pytest(tmp_path, "-p", "no:trio")
    assert done.returncode == 1
    assert HINT.format(name="smtp_sink") in done.stdout


def test_a_conftest_may_name_it_as_well(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["trio_smtp.testing.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(TESTS.format(mark=""))
    done = run_pytest(tmp_path, "-o", "trio_mode=true")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fixtures_are_explained(tmp_path):
    done = run_pytest(tmp_path, "--fixtures")
    for name in ("smtp_sink", "smtp_tls_sink", "smtp_implicit_tls_sink", "threaded_smtp_sink", "smtp_certificates"):
        assert f"\n{name} " in done.stdout


def test_the_fixture_for_tests_that_are_not_async(tmp_path):
    (tmp_path / "test_it.py").write_text(NOT_ASYNC)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
