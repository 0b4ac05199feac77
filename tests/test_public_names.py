# The names that `trio_smtp` exports: that they say so themselves, and show what they are.
from __future__ import annotations

import inspect
import pickle
import traceback

import pytest

import trio_smtp

PUBLIC = [getattr(trio_smtp, name) for name in trio_smtp.__all__ if name != "__version__"]
CLASSES = [thing for thing in PUBLIC if inspect.isclass(thing)]


@pytest.mark.parametrize(
    "thing",
    [thing for thing in PUBLIC if inspect.isclass(thing) or inspect.isfunction(thing)],
    ids=lambda thing: thing.__name__,
)
def test_names_its_public_module(thing):
    assert thing.__module__ == "trio_smtp"


def test_all_is_sorted_and_complete():
    exported = {
        name for name in vars(trio_smtp) if not name.startswith("_") and not inspect.ismodule(getattr(trio_smtp, name))
    }
    assert exported == {name for name in trio_smtp.__all__ if name != "__version__"}


def test_traceback_names_the_public_module():
    [line] = traceback.format_exception_only(trio_smtp.ConnectError("no route"))
    assert line == "trio_smtp.ConnectError: no route\n"


def test_reply_can_be_pickled():
    reply = trio_smtp.Reply(250, "OK", "2.0.0")
    assert pickle.loads(pickle.dumps(reply)) == reply


@pytest.mark.parametrize("thing", CLASSES, ids=lambda thing: thing.__name__)
def test_has_a_docstring(thing):
    assert inspect.getdoc(thing)
