# trio_smtp.inbox: the pytest plugin, in a pytest of its own.
from __future__ import annotations

import subprocess
import sys

import pytest

ASYNC = """
import trio_smtp

async def test_an_inbox(smtp_inbox):
    async with trio_smtp.open_client(smtp_inbox.host, smtp_inbox.smtp_port, tls="none") as client:
        await client.send("a@x.test", ["b@y.test"], b"Subject: hi\\r\\n\\r\\nx\\r\\n")
    message = await smtp_inbox.wait_for(to="b@y.test")
    assert message.message["Subject"] == "hi"

async def test_another_one_is_empty(smtp_inbox):
    assert smtp_inbox.messages == []
"""
NOT_ASYNC = """
import smtplib

def test_not_async(threaded_smtp_inbox):
    with smtplib.SMTP(threaded_smtp_inbox.host, threaded_smtp_inbox.smtp_port, timeout=20) as client:
        client.sendmail("a@x.test", ["b@y.test"], b"Subject: hi\\r\\n\\r\\nx\\r\\n")
    assert threaded_smtp_inbox.wait_for(subject="hi").sender == "a@x.test"
"""


def run_pytest(directory, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "trio_smtp.inbox.pytest_plugin"]
    return subprocess.run(
        [*command, "-W", "error", *options], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("tests", "passed"), [(ASYNC, "2 passed"), (NOT_ASYNC, "1 passed")])
def test_the_fixtures(tmp_path, tests, passed):
    (tmp_path / "test_it.py").write_text(tests)
    done = run_pytest(tmp_path, "-o", "trio_mode=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert passed in done.stdout


def test_the_plugin_needs_no_web_server_before_a_fixture_is_asked_for():
    code = (
        "import sys, trio_smtp.inbox.pytest_plugin;assert not {'starlette', 'hypercorn', 'trustme'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
