# What a hook returned, as the reply that the client gets. A TypeError from here is the application's mistake.
from __future__ import annotations

from collections.abc import Mapping

from .._protocol.replies import Reject, Reply

LOCAL_ERROR = Reply(451, "local error in processing", "4.3.0")
UNAVAILABLE = Reply(421, "service not available", "4.3.0", close=True)


def reply_or_none(result: object) -> Reply | None:
    """A command's outcome: ``None`` accepts."""
    if result is None:
        return None
    if not isinstance(result, Reply):
        raise TypeError(f"the hook must return a Reply or None, not {result!r}")
    if 300 <= result.code <= 399:
        raise TypeError(f"a hook cannot answer with {result.code}")
    return result


def message_outcome(result: object, *, lmtp: bool) -> Reply | Mapping[str, Reply]:
    """A message's outcome: ``None`` and a queue id accept; with LMTP, one for each address."""
    if lmtp and isinstance(result, Mapping):
        return {address: _message_reply(each) for address, each in result.items()}
    return _message_reply(result)


def _message_reply(result: object) -> Reply:
    if isinstance(result, str):
        return Reply(250, f"OK: queued as {result}", "2.0.0")
    return reply_or_none(result) or _QUEUED


_QUEUED = Reply(250, "OK: queued", "2.0.0")


def rejection_in(exc: BaseException) -> Reply | None:
    """The reply of a Reject, also of one that comes out of a nursery alone in its group."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc.reply if isinstance(exc, Reject) else None
