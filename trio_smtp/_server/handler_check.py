# What is wrong with a handler, found when the server is made: a hook that is missing, misnamed, not async or with other
# parameters would otherwise show only when mail is lost or refused.
#
# FOREIGN has the names of other servers' hooks, as they spell them. Such a name says that the application expects to be
# asked, so it is an error, and not a method of the application's own. LIKELY are too common for that: they are named
# where there is no on_data.
from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .handler import Handler

Hook: TypeAlias = Callable[..., Awaitable[Any]]

HOOKS: Final = tuple(name for name in vars(Handler) if name.startswith("on_"))
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {name: tuple(inspect.signature(getattr(Handler, name)).parameters)[1:] for name in HOOKS}
)
_DISCARD: Final = "trio_smtp.Discard() accepts and discards every message"

FOREIGN: Final[Mapping[str, str]] = MappingProxyType(
    {
        # simplesmtp
        "authorizeUser": "on_auth",
        "validateSender": "on_mail",
        "validateRecipient": "on_rcpt",
        "startData": "on_data",
        "dataReady": "on_data",
        # smtp-server; onConnect, onData and the like are ours but for their spelling
        "onSecure": "on_tls",
        "onMailFrom": "on_mail",
        "onRcptTo": "on_rcpt",
        # aiosmtpd
        "handle_HELO": "on_hello",
        "handle_EHLO": "on_hello",
        "handle_STARTTLS": "on_tls",
        "handle_AUTH": "on_auth",
        "handle_MAIL": "on_mail",
        "handle_RCPT": "on_rcpt",
        "handle_DATA": "on_data",
        "handle_RSET": "on_reset",
        "handle_VRFY": "on_vrfy",
        "handle_QUIT": "on_close",
    }
)
LIKELY: Final = frozenset(("data", "handle_data", "handle_message", "process_message", "start_data", "data_ready"))
_JOINED: Final = {name.replace("_", ""): name for name in HOOKS}  # onData, OnData, ondata
_ARGUMENTS: Final = frozenset(("session", "credentials", "sender", "recipient", "envelope", "body"))


class Hooks:
    """A handler's own hooks as attributes, ``None`` where it has only the default.

    Raises:
        TypeError: the handler is ``None``, a class or a function; or it has no ``on_data``, a hook of another server's
            name, an ``on_…`` attribute that is no hook, or a hook that is not async or takes other arguments.
    """

    __slots__ = HOOKS

    def __init__(self, handler: object) -> None:
        _check_kind(handler)
        names = dir(handler)
        for name in names:
            _check_name(handler, name)
        for name in HOOKS:
            setattr(self, name, _own_hook(handler, name))
        if self.on_data is None:
            raise TypeError(_without_on_data(handler, names))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Hook | None: ...


def _check_kind(handler: object) -> None:
    """Refuse what is no object with hooks."""
    if handler is None:
        raise TypeError(f"the handler is None; {_DISCARD}")
    if isinstance(handler, type):
        raise TypeError(f"the handler is the class {handler.__name__}; give an object of it, as {handler.__name__}()")
    if inspect.isroutine(handler) or isinstance(handler, functools.partial):
        raise TypeError(
            f"the handler is the function {getattr(handler, '__name__', handler)!s}; give an object whose on_data is"
            f" {_right_signature('on_data')}"
        )


def _check_name(handler: object, name: str) -> None:
    """Refuse a name that looks like a hook and is none: it would never be called."""
    if name in HOOKS:
        return
    ours = FOREIGN.get(name) or _JOINED.get(name.lower())
    if ours is not None:
        raise TypeError(f"{_name_of(handler)}.{name} is no hook; it is called {ours} here: {_right_signature(ours)}")
    if name.startswith("on_"):
        raise TypeError(f"{_name_of(handler)}.{name} is no hook{_guess(name)}; the hooks are {', '.join(HOOKS)}")


def _guess(name: str) -> str:
    close = get_close_matches(name, HOOKS, 1)
    return f", did you mean {close[0]}?" if close else ""


def _without_on_data(handler: object, names: list[str]) -> str:
    foreign = [f"; {name} is not called" for name in names if name in LIKELY]
    return (
        f"{_name_of(handler)} has no on_data{''.join(foreign)}: its server would accept mail that nothing keeps. Add"
        f" {_right_signature('on_data')}; {_DISCARD}"
    )


def _own_hook(handler: object, name: str) -> Hook | None:
    hook = getattr(handler, name, None)
    if hook is None or getattr(hook, "__func__", None) is getattr(Handler, name):
        return None
    if not _is_async(hook):
        raise TypeError(f"{_name_of(handler)}.{name} must be an async function: {_right_signature(name)}")
    if not _takes(hook, _PARAMETERS[name]):
        raise TypeError(
            f"{_name_of(handler)}.{name}{inspect.signature(hook)} has the wrong parameters;"
            f" the right ones are {_right_signature(name)}"
        )
    return hook  # type: ignore[no-any-return]


def _is_async(hook: object) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None))  # noqa: B004


def _takes(hook: Hook, names: tuple[str, ...]) -> bool:
    """Whether a hook can be called with these arguments, and takes none of them for another."""
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):  # some callables have none that Python can tell
        return True
    try:
        bound = signature.bind(*names)
    except TypeError:
        return False
    return all(name == given for name, given in bound.arguments.items() if name in _ARGUMENTS)


def _right_signature(name: str) -> str:
    return f"async def {name}({', '.join(('self', *_PARAMETERS[name]))})"


def _name_of(handler: object) -> str:
    return type(handler).__name__
