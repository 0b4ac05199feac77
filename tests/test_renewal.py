# Certificates that are renewed while a server runs.
from __future__ import annotations

import ssl
from functools import partial

import pytest
import trio
import trustme

from trio_smtp import Discard, Server, watch_certificates

AUTHORITY = trustme.CA()


def issue(directory, name="localhost"):
    """Write a new certificate and its key; returns the certificate as it is seen by a client."""
    certificate = AUTHORITY.issue_cert(name)
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())


@pytest.fixture
def context(tmp_path):
    issue(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    return context


def shown(context):
    """The certificate that a handshake shows now."""
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    this = client.wrap_bio(ours, theirs, server_hostname="localhost")
    that = context.wrap_bio(theirs, ours, server_side=True)
    for _ in range(4):
        for end in (this, that):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return this.getpeercert(binary_form=True)


@pytest.fixture
async def watched(context, tmp_path, nursery, monkeypatch):
    """A channel whose items are signals to the watch."""

    async def at_once(function, *args):  # the clock does not wait for threads
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    send, receive = trio.open_memory_channel[int](0)
    files = (tmp_path / "cert.pem", tmp_path / "key.pem")
    nursery.start_soon(partial(watch_certificates, context, *files, signals=receive))
    await trio.testing.wait_all_tasks_blocked()
    return send


async def test_changed_files_are_loaded_within_a_minute(autojump_clock, watched, context, tmp_path):
    before = shown(context)
    new = issue(tmp_path)
    assert shown(context) == before
    await trio.sleep(61)
    assert shown(context) == new != before


async def test_a_signal_loads_them_at_once(autojump_clock, watched, context, tmp_path):
    new = issue(tmp_path)
    began = trio.current_time()
    await watched.send(1)
    await trio.testing.wait_all_tasks_blocked()
    assert shown(context) == new
    assert trio.current_time() == began


async def test_signals_may_end(autojump_clock, watched, context, tmp_path):
    await watched.aclose()
    new = issue(tmp_path)
    await trio.sleep(61)
    assert shown(context) == new


def bad_key(directory):
    AUTHORITY.issue_cert("localhost").private_key_pem.write_to_path(directory / "key.pem")


def no_file(directory):
    (directory / "cert.pem").unlink()


def no_pem(directory):
    (directory / "cert.pem").write_text("half of it")


def locked_key(directory):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((directory / "key.pem").read_bytes(), None)
    kind = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    (directory / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, kind))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (bad_key, "key values mismatch"),
        (no_file, "No such file or directory"),
        (no_pem, "no certificate and private key in PEM form"),
        (locked_key, "the key is protected by a password"),
    ],
)
async def test_a_bad_file_is_logged_once_and_the_old_one_stays(
    autojump_clock, watched, context, tmp_path, caplog, spoil, words
):
    before = shown(context)
    spoil(tmp_path)
    await trio.sleep(300)
    assert shown(context) == before
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == f"the certificate in {tmp_path}/cert.pem stays as it was: {words}"
    new = issue(tmp_path)
    await trio.sleep(61)
    assert shown(context) == new


async def test_without_a_change_nothing_is_loaded(autojump_clock, watched, context, tmp_path, monkeypatch):
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", None)
    await trio.sleep(300)


async def test_a_session_in_progress_notices_nothing(context, tmp_path, monkeypatch):
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    server = Server(Discard(), ssl_context=context, implicit_tls=True)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        send, receive = trio.open_memory_channel[int](0)
        nursery.start_soon(
            partial(watch_certificates, context, tmp_path / "cert.pem", tmp_path / "key.pem", signals=receive)
        )
        await trio.testing.wait_all_tasks_blocked()
        stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), client, server_hostname="localhost")
        assert (await stream.receive_some()).startswith(b"220 ")
        new = issue(tmp_path)
        await send.send(1)
        while shown(context) != new:
            await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.send_all(b"NOOP\r\n")
        assert (await stream.receive_some()).startswith(b"250 ")
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)
