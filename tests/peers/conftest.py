from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peer_daemons import open_directory
from peer_dovecot import Dovecot, open_dovecot
from peer_exim import open_exim
from peer_haproxy import HAProxy, open_haproxy
from peer_haraka import open_haraka
from peer_postfix import open_postfix
from peer_servers import Peer, TLSFiles, write_certificate


@pytest.fixture(scope="session")
def tls_files() -> Iterator[TLSFiles]:
    with open_directory("certificate") as directory:
        yield write_certificate(directory)


@pytest.fixture(scope="session")
def dovecot(tls_files: TLSFiles) -> Iterator[Dovecot]:
    with open_dovecot(tls_files) as dovecot:
        yield dovecot


@pytest.fixture(scope="session")
def postfix(tls_files: TLSFiles, dovecot: Dovecot) -> Iterator[Peer]:
    with open_postfix(tls_files, dovecot.auth_port) as peer:
        yield peer


@pytest.fixture(scope="session")
def exim(tls_files: TLSFiles) -> Iterator[Peer]:
    with open_exim(tls_files) as peer:
        yield peer


@pytest.fixture(scope="session")
def dovecot_lmtp(dovecot: Dovecot) -> Peer:
    return dovecot.lmtp


@pytest.fixture(scope="session")
def dovecot_submission(dovecot: Dovecot) -> Peer:
    return dovecot.submission


@pytest.fixture(scope="session", name="dovecot_submission_STARTTLS")
def dovecot_submission_with_tls(tls_files: TLSFiles) -> Iterator[Peer]:
    with open_dovecot(tls_files, relay_tls=True) as dovecot:
        yield dovecot.submission


@pytest.fixture(scope="session", name="dovecot_submission_AUTH")
def dovecot_submission_with_login(tls_files: TLSFiles) -> Iterator[Peer]:
    with open_dovecot(tls_files, relay_auth=True) as dovecot:
        yield dovecot.submission


@pytest.fixture(scope="session")
def haraka(tls_files: TLSFiles) -> Iterator[Peer]:
    with open_haraka(tls_files) as peer:
        yield peer


@pytest.fixture(scope="session")
def haproxy() -> Iterator[HAProxy]:
    with open_haproxy() as haproxy:
        yield haproxy


@pytest.fixture(scope="session")
def haproxy_v1(haproxy: HAProxy) -> Peer:
    return Peer(haproxy.v1, haproxy.relay, proxy=True)


@pytest.fixture(scope="session")
def haproxy_v2(haproxy: HAProxy) -> Peer:
    return Peer(haproxy.v2, haproxy.relay, proxy=True)


@pytest.fixture
def peer(request: pytest.FixtureRequest, server: str) -> Peer:
    """The server that the parameter `server` names."""
    peer = request.getfixturevalue(server)
    assert isinstance(peer, Peer)
    return peer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.peers)
