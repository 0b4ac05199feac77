# SIGHUP and SIGUSR1 to `trio-smtp serve`, alone and with workers.
from __future__ import annotations

import os
import re
import signal
import smtplib
import ssl

import pytest
from cli_process import LIMIT, serving, wait_for

trustme = pytest.importorskip("trustme")
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")


def issue(authority, directory):
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


def connect(served, authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = smtplib.SMTP("localhost", served.port, timeout=LIMIT)
    server.starttls(context=context)
    server.ehlo()
    return server


def shown(served, authority):
    with connect(served, authority) as server:
        return server.sock.getpeercert(binary_form=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_takes_new_certificates_and_sessions_notice_nothing(tmp_path, workers):
    authority = trustme.CA()
    old = issue(authority, tmp_path)
    files = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with serving(tmp_path, *files, "--workers", workers) as served:
        with connect(served, authority) as session:
            assert session.docmd("MAIL FROM:<a@example.com>")[0] == 250
            assert shown(served, authority) == old
            new = issue(authority, tmp_path)
            served.process.signal(signal.SIGHUP)
            # Several in a row, so that each worker shows its own.
            wait_for(lambda: {shown(served, authority) for _ in range(4 * workers)} == {new})
            (tmp_path / "cert.pem").write_text("half of it")
            served.process.signal(signal.SIGHUP)
            wait_for(lambda: served.process.errors().count("stays as it was") == workers)
            assert {shown(served, authority) for _ in range(4 * workers)} == {new}
            assert session.docmd("RCPT TO:<b@example.net>")[0] == 250
            assert session.data(b"x\r\n")[0] == 250
        served.process.signal()
        assert served.process.wait()[0] == 0


def test_a_worker_that_is_replaced_has_the_new_certificate(tmp_path):
    authority = trustme.CA()
    issue(authority, tmp_path)
    files = ("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with serving(tmp_path, *files, "--workers", 2) as served:
        pids = served.process.line().removeprefix("workers: processes ").split(", ")
        new = issue(authority, tmp_path)
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        lines = [served.process.line() for _ in range(4)]
        assert sum("is now process" in line for line in lines) == 2
        assert {shown(served, authority) for _ in range(8)} == {new}
        (tmp_path / "cert.pem").write_text("half of it")
        os.kill(int(lines[-1].split()[-1]), signal.SIGKILL)
        while "is now process" not in served.process.line():
            pass
        assert "stays as it was: no certificate and private key in PEM form" in served.process.errors()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigusr1_writes_statistics_to_the_log(tmp_path, workers):
    with serving(tmp_path, "--workers", workers) as served:
        with smtplib.SMTP("127.0.0.1", served.port, timeout=LIMIT) as server:
            server.sendmail("a@example.com", ["b@example.net"], b"x\r\n")
            served.process.signal(signal.SIGUSR1)
            wait_for(lambda: served.process.errors().count("; accepted: ") == workers)
        lines = served.process.errors().splitlines()
        assert sum("connections 1, total connections 1, " in line for line in lines) == 1
        assert all(
            re.search(r": statistics: connections \d, .* accepted: 1 message, 3 octets in \d+ s$", x) for x in lines
        )
        served.process.signal()
        assert served.process.wait()[0] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_without_certificates_sighup_ends_it_gracefully(tmp_path, workers):
    with serving(tmp_path, "--workers", workers) as served:
        served.process.signal(signal.SIGHUP)
        status, lines = served.process.wait()
    assert status == 0
    assert lines[-1].startswith("ended: ")
