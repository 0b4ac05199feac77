"""Cancellation of every public coroutine of the client, and the push form of sending."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from client_peer import Peer, client_and

import trio_smtp
from trio_smtp import ClientConfig, Delivery

Operation = Callable[[trio_smtp.Client], Awaitable[object]]


async def send(client: trio_smtp.Client) -> trio_smtp.SendResult:
    return await client.send("a@x.test", ["b@y.test"], b"x")


@pytest.mark.parametrize(
    "operation",
    [
        send,
        lambda client: client.noop(),
        lambda client: client.reset(),
        lambda client: client.verify("x"),
        lambda client: client.command("HELP"),
    ],
)
async def test_cancelled_operation_closes_the_connection(operation: Operation) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.line()
        await peer.drain()

    async with client_and(script) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(operation, client)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.noop()
        assert caught.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize("replies", range(4))
async def test_cancelled_before_the_end_nothing_is_delivered(replies: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say(*["250 ok", "250 ok", "354 go"][: min(replies, 2)])
        with pytest.raises(EOFError):
            await peer.line()
        assert not bytes(peer.heard).endswith(b".\r\n")

    async with client_and(script) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, client)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught


async def test_cancelled_after_the_end_returns_the_result_if_it_comes_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await trio.sleep(9)
        await peer.say("250 taken")
        await peer.goodbye()

    async with client_and(script) as client:
        with trio.move_on_after(1) as scope:
            result = await send(client)
        assert result.reply.text == "taken"
        assert not scope.cancelled_caught


async def test_cancelled_after_the_end_and_refused_in_time_is_the_refusal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await trio.sleep(9)
        await peer.say("554 no")
        await peer.goodbye()

    async with client_and(script) as client:
        with trio.move_on_after(1), pytest.raises(trio_smtp.MessageRefusedError):
            await send(client)


async def test_cancelled_after_the_end_gives_up_after_end_grace(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.closed()

    async with client_and(script, config=ClientConfig(end_grace=20)) as client:
        started = trio.current_time()
        with trio.move_on_after(1) as scope:
            await send(client)
        assert scope.cancelled_caught
        assert trio.current_time() - started == pytest.approx(21)
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.noop()


async def test_cancelled_while_opening_leaves_nothing_open() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 hi")
        await peer.hear("EHLO me.test")
        with pytest.raises(EOFError):
            await peer.line()

    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(open_and_close, peer)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught


async def open_and_close(peer: Peer) -> None:
    async with trio_smtp.open_client("mail.test", stream=peer.far, local_hostname="me.test"):
        pass


async def test_leaving_the_block_cancelled_still_says_quit(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.goodbye()

    with trio.move_on_after(1):
        async with client_and(script):
            await trio.sleep_forever()


# -- transaction()


async def test_transaction_sends_piece_by_piece() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "550 no", "354 go")
        assert await peer.text() == b"..hello\r\nworld\r\n"
        await peer.say("250 taken")
        await peer.goodbye()

    async with client_and(script) as client:
        async with client.transaction("a@x.test", ["b@y.test", "c@y.test"]) as message:
            assert message.accepted == ["b@y.test"]
            assert list(message.refused) == ["c@y.test"]
            for piece in (b".hel", b"lo\r", b"\nwor", b"ld"):
                await message.send_all(piece)
        assert message.result is not None
        assert message.result.reply.text == "taken"
        assert message.result.accepted == ["b@y.test"]


async def test_transaction_refused_on_entering() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("550 no", "503 no", "503 no")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.SenderRefusedError) as caught:
            async with client.transaction("a@x.test", ["b@y.test"]):
                raise AssertionError("entered")
        assert caught.value.delivery is Delivery.REFUSED


async def test_transaction_refused_at_its_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("554 spam")
        await peer.hear("NOOP")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageRefusedError):
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                await message.send_all(b"buy!")
        await client.noop()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_transaction_left_by_an_exception_with_data_closes_the_connection(cancelled: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_envelope("MAIL FROM:<a@x.test>")
        with pytest.raises(EOFError):
            await peer.text()

    async with client_and(script) as client:
        with trio.CancelScope() as scope:
            try:
                async with client.transaction("a@x.test", ["b@y.test"]) as message:
                    await message.send_all(b"half a message\r\n")
                    if cancelled:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                    raise KeyError
            except KeyError:
                assert not cancelled
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.noop()


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_transaction_left_by_an_exception_with_bdat_is_reset_and_the_connection_kept(size: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>")
        await peer.say("250 ok", "250 ok")
        while (line := await peer.line()).startswith("BDAT"):
            assert "LAST" not in line
            await peer.octets(int(line.split()[1]))
            await peer.say("250 ok")
        assert line == "RSET"
        await peer.say("250 ok")
        await peer.hear("NOOP")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(KeyError):  # noqa: PT012
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                await message.send_all(b"x" * size)
                raise KeyError
        await client.noop()


async def test_transaction_keeps_a_second_task_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client, client.transaction("a@x.test", ["b@y.test"]) as message:
        with pytest.raises(trio.BusyResourceError):
            await client.noop()
        await message.send_all(b"x")


async def test_public_coroutines_are_checkpoints() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("NOOP")
        await peer.say("250 ok")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with trio.testing.assert_checkpoints():
            await client.noop()
        with trio.testing.assert_checkpoints():
            await send(client)
