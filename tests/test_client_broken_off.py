"""At each step the server says 421, closes, or resets the connection: the error, its stage and fate."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import trio
from client_peer import error_of

import trio_smtp
from trio_smtp import ClientConfig, Delivery

# what the server says in answer to each step, if nothing goes wrong
STEPS = ["greeting", "hello", "auth", "mail", "rcpt", "data", "end"]
ANSWERS = {
    "greeting": b"220 mail.test\r\n",
    "hello": b"250-mail.test\r\n250 AUTH PLAIN\r\n",
    "auth": b"235 ok\r\n",
    "mail": b"250 ok\r\n",
    "rcpt": b"250 ok\r\n",
    "data": b"354 go\r\n",
    "end": b"250 ok\r\n",
}
HOWS = ["421", "421 and stay", "close", "close in mid-reply", "reset"]


async def serve(stream: trio.SocketStream, fatal: str, how: str) -> None:
    """Answer each line until the step at which it ends."""
    with contextlib.suppress(trio.BrokenResourceError):
        for step in STEPS:
            if step == "end":
                text = b""
                while not text.endswith(b"\r\n.\r\n"):
                    text += await stream.receive_some()
            elif step != "greeting":
                line = b""
                while not line.endswith(b"\n"):
                    line += await stream.receive_some(1)
            if step == fatal:
                break
            await stream.send_all(ANSWERS[step])
        if how.startswith("421"):
            await stream.send_all(b"421 4.3.2 going down\r\n")
        elif how == "close in mid-reply":
            await stream.send_all(ANSWERS[fatal][:3])
        elif how == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "421 and stay":
            while await stream.receive_some():
                pass
    await stream.aclose()


@contextlib.asynccontextmanager
async def sending(fatal: str, how: str) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:

        async def handler(stream: trio.SocketStream) -> None:
            await serve(stream, fatal, how)

        listeners = await nursery.start(trio.serve_tcp, handler, 0)
        port = listeners[0].socket.getsockname()[1]
        config = ClientConfig(chunking=False, command_timeout=5, greeting_timeout=5, end_timeout=5)
        try:
            async with trio_smtp.open_client(
                "127.0.0.1", port, tls="none", auth=("me", "secret"), allow_insecure_auth=True, config=config
            ) as client:
                with pytest.raises(trio_smtp.SMTPError) as caught:
                    await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
                with pytest.raises(trio_smtp.ConnectionLostError):  # whatever it was, the connection is over
                    await client.noop()
                raise caught.value
        finally:
            nursery.cancel_scope.cancel()
        yield


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("step", STEPS)
async def test_lost_or_refused_at_each_step(step: str, how: str) -> None:
    error = await error_of(sending(step, how))
    assert error.stage == step
    if how.startswith("421"):
        wanted = {
            **dict.fromkeys(("mail", "rcpt", "data"), trio_smtp.ConnectionLostError),
            "end": trio_smtp.MessageRefusedError,
        }.get(step, trio_smtp.ConnectError)
        assert type(error) is wanted
        assert error.reply == trio_smtp.Reply(421, "going down", "4.3.2")
        assert error.delivery is (Delivery.REFUSED if step == "end" else Delivery.NOT_SENT)
        assert not error.refused or step == "end"
    else:
        assert type(error) is trio_smtp.ConnectionLostError
        assert error.reply is None
        assert error.delivery is (Delivery.UNKNOWN if step == "end" else Delivery.NOT_SENT)
        assert error.unknown == (["b@y.test"] if step == "end" else [])
    assert error.accepted == []
