# UNIX sockets: files that are made, replaced and removed, and those that are left alone.
from __future__ import annotations

import errno
import os
import socket
import stat
from functools import partial

import pytest
import trio

from trio_smtp import Discard, Server, ServerConfig, UnixListener, open_unix_listener

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no UNIX sockets here")


async def greeting(path):
    async with await trio.open_unix_socket(path) as stream:
        return await stream.receive_some()


async def test_a_server_on_a_unix_socket(tmp_path):
    path = tmp_path / "smtp"
    listener = await open_unix_listener(path)
    assert isinstance(listener, UnixListener)
    assert listener.path == str(path)
    assert repr(listener) == f"<UnixListener {str(path)!r}>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # A connection has no host: the limit for one is not for it.
    server = Server(Discard(), config=ServerConfig(max_connections_per_host=1))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve_listeners, [listener])
        async with await trio.open_unix_socket(str(path)) as stream:
            assert (await stream.receive_some()).startswith(b"220 ")
            assert (await greeting(str(path))).startswith(b"220 ")
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_the_mode_says_who_may_connect(tmp_path):
    async with await open_unix_listener(str(tmp_path / "smtp"), mode=0o666):
        assert stat.S_IMODE((tmp_path / "smtp").stat().st_mode) == 0o666


async def test_what_a_dead_server_has_left_is_replaced(tmp_path):
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    async with await open_unix_listener(path) as listener, await trio.open_unix_socket(str(path)):
        await (await listener.accept()).aclose()
    assert not path.exists()


@pytest.mark.parametrize("full", [False, True])
async def test_a_socket_that_a_program_listens_on_is_left_alone(tmp_path, full):
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        if full:
            waiting.connect(str(path))
        with pytest.raises(OSError, match="another program listens there") as caught:
            await open_unix_listener(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert path.is_socket()


async def test_a_socket_of_another_kind_is_left_alone(tmp_path):
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        with pytest.raises(OSError, match="another program listens there"):
            await open_unix_listener(path)


@pytest.mark.parametrize("make", ["file", "directory", "link"])
async def test_a_file_that_is_no_socket_is_left_alone(tmp_path, make):
    path = tmp_path / "smtp"
    if make == "file":
        path.write_text("precious")
    elif make == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError, match="no socket"):
        await open_unix_listener(path)
    assert path.lstat()


async def test_a_path_that_cannot_be_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="too long"):
        await open_unix_listener(tmp_path / ("x" * 200))
    with pytest.raises(FileNotFoundError):
        await open_unix_listener(tmp_path / "missing" / "smtp")
    assert list(tmp_path.iterdir()) == []


async def test_a_mode_that_cannot_be_set_leaves_nothing(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        await open_unix_listener(tmp_path / "smtp")
    assert list(tmp_path.iterdir()) == []


async def test_at_the_end_another_servers_file_is_left_alone(tmp_path):
    path = tmp_path / "smtp"
    listener = await open_unix_listener(path)
    path.unlink()
    async with await open_unix_listener(path):
        await listener.aclose()
        assert path.is_socket()
        await listener.aclose()  # a second time it does nothing
        assert path.is_socket()
    assert not path.exists()


async def test_a_cancelled_end_removes_the_file_all_the_same(tmp_path):
    listener = await open_unix_listener(tmp_path / "smtp")
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert list(tmp_path.iterdir()) == []


async def test_cancelled_it_listens_on_nothing(tmp_path):
    with trio.CancelScope() as scope:
        scope.cancel()
        await open_unix_listener(tmp_path / "smtp")
    assert scope.cancelled_caught
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_gone_at_the_end_is_no_error(tmp_path):
    listener = await open_unix_listener(tmp_path / "smtp")
    (tmp_path / "smtp").unlink()
    await partial(listener.aclose)()
