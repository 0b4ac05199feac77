# What a hook returned or raised, as the reply that the client gets. A TypeError from here is the application's mistake.
from __future__ import annotations

import inspect
import re
from collections.abc import Coroutine, Iterator, Mapping
from typing import Final, NamedTuple

from .._protocol.replies import Reject, Reply

LOCAL_ERROR: Final = Reply(451, "local error in processing", "4.3.0")
SHUTTING_DOWN: Final = Reply(421, "the server is shutting down", "4.3.2", close=True)
MADE_ROOM: Final = Reply(
    421, "too many connections, and this one has been of no use for the longest time", "4.3.2", close=True
)
UNAVAILABLE: Final = Reply(421, "service not available", "4.3.0", close=True)


class Farewell(NamedTuple):
    """How a session ends that the server does not let wait any more.

    Attributes:
        reply: the last word.
        why: what ``on_data`` is told, in a few words.
        lingers: the client has time to read it.
    """

    reply: Reply
    why: str
    lingers: bool = True


SHUTDOWN: Final = Farewell(SHUTTING_DOWN, "shutting down")
_QUEUED: Final = Reply(250, "OK: queued", "2.0.0")
# Other servers take "550 no thanks" from a hook for the reply that it is, some "5.7.1 no thanks" too. 4711 and
# 550e8400-... are queue ids.
_looks_like_reply = re.compile(r"(?:[0-9]{3}(?:[ -]|\Z)|[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |\Z))").match


def reply_or_none(result: object) -> Reply | None:
    """A command's outcome: ``None`` accepts."""
    if result is None:
        return None
    if not isinstance(result, Reply):
        raise TypeError(f"the hook must return a Reply or None, not {result!r}")
    if 300 <= result.code <= 399:
        raise TypeError(f"a hook cannot answer with {result.code}")
    return result


def queued_as(queue_id: str) -> Reply:
    """The usual success, with the name under which the application keeps the message."""
    if queue_id.isprintable():
        return Reply.received(250, ("OK: queued as " + queue_id,), "2.0.0")  # nothing to check, nothing to split
    return Reply(250, f"OK: queued as {queue_id}", "2.0.0")


def check_word(result: str) -> str:
    """A str that a hook has returned where it accepts; one that looks like a reply is meant as one, maybe a refusal."""
    if _looks_like_reply(result):
        raise TypeError(f"the hook must return a Reply or raise a Reject, not {result!r}: a str accepts")
    return result


def message_outcome(result: object) -> Reply:
    """A message's outcome: ``None`` and a queue id (str) accept."""
    if isinstance(result, str):
        if not result:
            return _QUEUED
        if "0" <= result[0] <= "9":  # else it looks like no reply, and the check is two calls of each message
            check_word(result)
        return queued_as(result)
    return reply_or_none(result) or _QUEUED


def login_outcome(result: object) -> bool:
    """Whether what ``on_auth`` has returned accepts the client.

    Raises:
        TypeError: it is true for Python, but says something else, or nothing, of the client.
    """
    if isinstance(result, str):
        check_word(result)
    elif not isinstance(result, bool | None):
        mistake = _not_an_identity(result)
        if mistake:
            raise TypeError(f"the hook must return an identity, True, a Reply, False or None, not {mistake}")
    return bool(result)


def _not_an_identity(result: object) -> str:
    """What is wrong with an object that would be true whatever it means; ``""`` if nothing is."""
    if isinstance(result, Coroutine):
        result.close()
        return "a coroutine: await it"
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        return "something to await"
    if isinstance(result, BaseException) or callable(result):
        return f"{type(result).__name__} {result!r}"
    if isinstance(result, bytes | bytearray) and _looks_like_reply(result.decode("latin-1")):
        return repr(result)
    if isinstance(result, tuple) and result[:1] and (isinstance(result[0], bool) or isinstance(result[-1], bytes)):
        return f"a tuple that begins with {result[0]!r}"
    says_success = "success" in result if isinstance(result, Mapping) else hasattr(result, "success")
    return f"a {type(result).__name__}, whose success is not looked at" if says_success else ""


def rejection_in(exc: Exception) -> Reply | None:
    """The reply of a Reject, or of a group of nothing but Rejects, a permanent one first; else ``None``."""
    replies = [leaf.reply if isinstance(leaf, Reject) else None for leaf in leaves_of(exc)]
    if None in replies:
        return None
    return max((reply for reply in replies if reply is not None), key=_is_permanent)


def _is_permanent(reply: Reply) -> bool:
    return reply.is_permanent


def leaves_of(exc: BaseException) -> Iterator[BaseException]:
    """An exception itself, or what is in its group, however deep."""
    if isinstance(exc, BaseExceptionGroup):
        for each in exc.exceptions:
            yield from leaves_of(each)
    else:
        yield exc
