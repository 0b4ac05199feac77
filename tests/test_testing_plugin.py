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
    assert "5 passed" in done.stdout


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
