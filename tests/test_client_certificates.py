"""Certificates that are wrong in one way each, in both kinds of handshake; and the name that is asked for."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trustme
from client_peer import error_of
from support import Recorder, make_server
from tls_support import authority, client_context

import trio_smtp
from trio_smtp._client.opening import Opening, TLSMode

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
MODES = ["starttls", "implicit"]


def context_with(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def open_client(
    certificate: trustme.LeafCert, host: str, tls: str, handler: object = None, context: ssl.SSLContext | None = None
) -> AsyncIterator[trio_smtp.Client]:
    server = make_server(handler, ssl_context=context_with(certificate), implicit_tls=tls == "implicit")
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        async with trio_smtp.open_client(
            host,
            stream=near,
            tls=tls,  # type: ignore[arg-type]
            ssl_context=context or client_context(),
            auth=("me", "secret"),
        ) as client:
            yield client


@pytest.mark.parametrize("tls", MODES)
@pytest.mark.parametrize(
    ("certificate", "host", "why"),
    [
        (
            lambda: authority().issue_cert("mx.test", not_after=NOW - DAY, not_before=NOW - 2 * DAY),
            "mx.test",
            "expired",
        ),
        (
            lambda: authority().issue_cert("mx.test", not_before=NOW + DAY, not_after=NOW + 2 * DAY),
            "mx.test",
            "not yet",
        ),
        (lambda: trustme.CA().issue_cert("mx.test"), "mx.test", "unable to get local issuer|self.signed"),
        (lambda: authority().issue_cert("mx.test"), "mail.test", "[Hh]ostname mismatch"),
        (lambda: authority().issue_cert("mx.test"), "192.0.2.1", "IP address mismatch"),
        (lambda: authority().issue_cert("192.0.2.1"), "mx.test", "[Hh]ostname mismatch"),
        (lambda: authority().issue_cert("*.mx.test"), "a.b.mx.test", "[Hh]ostname mismatch"),
        (lambda: authority().issue_cert("other.test", common_name="mx.test"), "mx.test", "[Hh]ostname mismatch"),
    ],
    ids=["expired", "not yet", "unknown issuer", "name", "address for name", "name for address", "wildcard", "CN"],
)
async def test_certificate_that_is_not_right_ends_it_before_credentials(
    tls: str, certificate, host: str, why: str
) -> None:
    handler = Recorder(on_auth=True)
    error = await error_of(open_client(certificate(), host, tls, handler))
    assert isinstance(error, trio_smtp.TLSError)
    assert re.search(why, str(error))
    assert error.delivery == "not_sent"
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert not {"on_auth", "on_mail"} & {*handler.calls}


@pytest.mark.parametrize("tls", MODES)
@pytest.mark.parametrize(
    ("identity", "host", "told"),
    [("mx.test", "mx.test", "mx.test"), ("192.0.2.1", "192.0.2.1", None), ("*.mx.test", "a.mx.test", "a.mx.test")],
)
async def test_the_name_asked_for_is_verified_and_told(tls: str, identity: str, host: str, told: str | None) -> None:
    handler = Recorder(on_auth=True)
    async with open_client(authority().issue_cert(identity), host, tls, handler) as client:
        assert client.tls is not None
        assert client.tls.verified
    [session] = handler.sessions
    assert session.tls.server_name == told  # RFC 6066 §3: an address is no server name
    assert handler.count("on_auth") == 1


@pytest.mark.parametrize("tls", ["auto", *MODES])
def test_certificates_are_verified_by_default(tls: TLSMode) -> None:
    context = Opening(tls=tls).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("tls", MODES)
async def test_a_context_that_verifies_nothing_is_obeyed_and_said_to_be_none(tls: str) -> None:
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    strange = trustme.CA().issue_cert("x.test")
    async with open_client(strange, "mx.test", tls, Recorder(on_auth=True), blind) as client:
        assert client.tls is not None
        assert not client.tls.verified
