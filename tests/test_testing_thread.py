# trio_smtp.testing: a Trio loop in a thread of its own, and the sink in it.
from __future__ import annotations

import smtplib
import threading
import unittest
from contextlib import asynccontextmanager

import pytest
import trio

import trio_smtp
from trio_smtp.testing import open_server, run_in_thread, run_sink


def send(sink, recipient="b@y.test", content=b"Subject: hi\r\n\r\nhello\r\n"):
    with smtplib.SMTP(sink.host, sink.port, timeout=20) as client:
        client.sendmail("a@x.test", [recipient], content)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "trio_smtp.testing"]


def test_a_sink_without_async():
    with run_sink() as sink:
        assert sink.messages == []
        assert (sink.host, sink.tls) == ("127.0.0.1", "none")
        assert str(sink.port) in repr(sink)
        send(sink)
        [message] = sink.wait_for()
        assert message.message["Subject"] == "hi"
        assert sink.messages == [message]
        sink.clear()
        assert sink.messages == []
        with pytest.raises(TimeoutError, match=r"0\.01"):
            sink.wait_for(timeout=0.01)
        send(sink)
    assert threads() == []
    assert len(sink.messages) == 1  # looked at after the block, as those of a Sink can be
    for late in (sink.wait_for, sink.clear, sink.accept_all):
        with pytest.raises(trio.RunFinishedError, match="the block was left"):
            late()


def test_faults_without_async():
    with run_sink() as sink:
        point = sink.refuse("rcpt", 450, address="b@y.test", times=1)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(sink)
        assert point.count == 1
        send(sink)
        sink.cut("data", times=1)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            send(sink)
        sink.stall("mail", 0.001)
        send(sink)
        sink.refuse("mail")
        sink.accept_all()
        send(sink)
        assert len(sink.messages) == 3


class InUnittest(unittest.TestCase):
    def test_it(self):
        sink = self.enterContext(run_sink(tls="starttls"))
        send(sink)
        assert len(sink.wait_for()) == 1


def test_any_other_opener():
    with run_in_thread(open_server(trio_smtp.Discard())) as thread:
        send(thread.value)
        assert thread.run_sync(lambda: thread.value.server.statistics().messages) == 1
        assert "RunningServer" in repr(thread)

        async def double(number):
            await trio.lowlevel.checkpoint()
            return 2 * number

        assert thread.run(double, 2) == 4
        with pytest.raises(TimeoutError):
            thread.run(trio.sleep_forever, timeout=0.001)


def test_an_error_while_opening_comes_out_as_it_is():
    with run_sink() as sink, pytest.raises(OSError, match="in use"), run_sink(port=sink.port):
        pass


def test_an_error_of_the_block_ends_the_thread():
    with pytest.raises(ZeroDivisionError), run_sink():
        raise ZeroDivisionError
    assert threads() == []


def test_what_goes_wrong_in_the_thread_comes_out_at_the_end():
    @asynccontextmanager
    async def fail():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), run_in_thread(fail()):
        pass


def test_a_thread_that_has_died_says_so():
    stop = trio.Event()

    async def crash() -> None:
        await stop.wait()
        raise ZeroDivisionError

    @asynccontextmanager
    async def dying():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            yield 1

    def use():
        with run_in_thread(dying()) as thread:
            thread.run_sync(stop.set)
            threads()[0].join()
            thread.run_sync(print)

    with pytest.raises(ExceptionGroup) as caught:
        use()
    assert caught.group_contains(ZeroDivisionError)


async def test_a_task_of_trio_is_not_blocked():
    with pytest.raises(RuntimeError, match=r"what run_in_thread\(\) opens is in a thread of its own"), run_sink():
        raise AssertionError("it was opened")
    assert threads() == []


def test_a_task_of_another_run_is_not_blocked():
    with run_sink() as sink:

        async def main():
            for call in (sink.wait_for, sink.accept_all, lambda: sink.messages):
                with pytest.raises(RuntimeError, match="is in a thread of its own, for tests that are not async"):
                    call()

        trio.run(main)
