# A Prometheus that others wrote asks `trio-smtp --metrics`, and answers each question of the board for Grafana.
from __future__ import annotations

import json
import re
import smtplib
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_process import LIMIT, Process, found, run, serving, tool

BOARD = Path(__file__).parent.parent / "examples" / "grafana" / "trio-smtp.json"
EACH = 0.2  # seconds between two scrapes
# What does not happen in this test, so that nothing is to be seen of it.
NEVER = re.compile(
    r"connections_refused_total|hook_failures_total|logins_total|pool_wait_seconds"
    r"|smtp_client_commands_total\{code=|smtp_client_connections_closed_total"
)


class Prometheus:
    """One that scrapes every moment.

    Args:
        port: where it is asked.
    """

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1/query?"

    def ask(self, expression: str) -> list[dict[str, object]]:
        """The series that an expression gives now."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(self._base + query, timeout=LIMIT) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        assert not told.get("warnings")
        return list(told["data"]["result"])

    def wait_for(self, expression: str) -> None:
        """Until it gives something."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            try:
                if self.ask(expression):
                    return
            except OSError:  # it does not listen yet, or says that it is not ready
                pass
            time.sleep(0.05)  # another process's doings are nothing that one could wait for
        pytest.fail(f"Prometheus never saw {expression}")


@contextmanager
def scraping(directory, *targets):
    """A Prometheus that scrapes these."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    jobs = [{"job_name": "smtp", "static_configs": [{"targets": list(targets)}]}]
    settings = {"global": {"scrape_interval": f"{EACH * 1000:.0f}ms", "scrape_timeout": "100ms"}}
    Path(directory, "prometheus.yml").write_text(json.dumps({**settings, "scrape_configs": jobs}))  # JSON is YAML
    with Path(directory, "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/prometheus",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Prometheus(port)
    finally:
        process.kill()
        process.wait(LIMIT)


def address(line):
    return found(re.search(r"metrics on http://([^/]+)/metrics", line))


@pytest.mark.slow
def test_a_prometheus_answers_what_the_board_asks(tmp_path):
    store = f"sqlite:{tmp_path}/outbox.db"
    with serving(tmp_path, "--metrics", "0", "--tls-self-signed") as server:
        first = address(server.process.line())
        there = f"127.0.0.1:{server.port}"
        worker = Process(
            *("outbox", "--store", store, "work", "--server", there, "--tls", "opportunistic", "--metrics", "0")
        )
        try:
            put = run(
                *("outbox", "--store", store, "put", "--from", "a@example.com", "--to", "b@example.com"),
                stdin=b"Subject: x\r\n\r\ny\r\n",
            )
            assert put.returncode == 0, put.stderr
            assert worker.line().endswith(": sent")
            with scraping(tmp_path, first, address(worker.errors())) as prometheus:
                with smtplib.SMTP("127.0.0.1", server.port, timeout=LIMIT) as client:
                    client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny\r\n")
                    assert client.docmd("DATA")[0] == 503
                prometheus.wait_for('rate(smtp_outbox_recipients_total{state="sent"}[1m])')
                prometheus.wait_for('rate(smtp_server_commands_total{code="503"}[1m])')
                prometheus.wait_for('rate(smtp_server_connections_closed_total{reason="quit"}[1m])')
                assert len(prometheus.ask("up == 1")) == 2
                [series] = prometheus.ask('sum(smtp_server_messages_total{outcome="accepted"})')
                seen = {expression: prometheus.ask(expression) for expression in asked()}
        finally:
            worker.close()
    assert series["value"][1] == "2"
    silent = [expression for expression, result in seen.items() if not result and not NEVER.search(expression)]
    assert silent == []


def asked():
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 30
    return [expression.replace("$__rate_interval", "1m") for expression in expressions]
