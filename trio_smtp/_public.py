# What the public names share: how they show themselves, classes of which only the library makes objects, and what they
# say where an extra is missing.
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NoReturn


class NoPublicConstructor(type):
    """A metaclass, as Trio has it: calling the class is a TypeError, since what an object is made of is private.

    The class has a class method ``_create()`` instead of ``__init__``: typed, private, and no frame more per object.
    """

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"{cls.__module__}.{cls.__qualname__} has no public constructor")


def show_as_public(module: str, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
    """Let tracebacks, ``help()`` and pickles name the public objects of `module` by where they are imported from."""
    for name in names:
        thing = namespace[name]
        if isinstance(thing, type | FunctionType) and thing.__module__.partition(".")[0] == module.partition(".")[0]:
            thing.__module__ = module


@contextmanager
def needs_extra(what: str, extra: str) -> Iterator[None]:
    """Around imports: a library that is missing is an error that says how to install it.

    Args:
        what: needs the library: ``"trio_smtp.dkim"``.
        extra: brings it.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == __name__.partition(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"{what} needs {exc.name}; install it with: pip install 'trio-smtp[{extra}]'", name=exc.name
        ) from exc
