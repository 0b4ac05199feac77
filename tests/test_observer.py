"""What calls a trace function: what that raises is logged once, and a cancellation goes its way."""

from __future__ import annotations

import pytest
import trio

from trio_smtp._observer import Observer


def test_the_function_gets_each_event() -> None:
    events: list[int] = []
    observer = Observer(events.append, "server")
    observer.tell(1)
    observer.tell(2)
    assert events == [1, 2]
    assert "has failed" not in repr(observer)


def test_what_it_raises_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def trace(event: int) -> None:
        told.append(event)
        raise ValueError(event)

    observer = Observer(trace, "pool")
    for event in (1, 2, 3):
        observer.tell(event)
    assert told == [1, 2, 3]
    [record] = caplog.records
    assert record.getMessage() == "pool: the trace function failed; further failures are not logged"
    assert record.exc_info is not None
    assert "has failed" in repr(observer)


def test_who_calls_the_function_by_itself_notes_failures_once(caplog: pytest.LogCaptureFixture) -> None:
    def trace(event: int) -> None:
        raise ValueError(event)

    observer = Observer(trace, "server")
    for event in (1, 2):
        try:
            observer.function(event)
        except ValueError:
            observer.note_failure()
    [record] = caplog.records
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, trio.Cancelled])
def test_what_is_no_exception_of_the_function_passes(kind: type[BaseException]) -> None:
    def trace(event: int) -> None:
        raise kind._create(source="unknown") if kind is trio.Cancelled else kind

    with pytest.raises(kind):
        Observer(trace, "client").tell(1)
