"""What public names share: the module they name, and classes of which only the library makes objects."""

from __future__ import annotations

import collections.abc
import inspect
import subprocess
import sys

import pytest

import trio_smtp
from trio_smtp import inbox, outbox, testing
from trio_smtp._public import NoPublicConstructor, needs_extra, show_as_public

MADE_BY_THE_LIBRARY = [
    trio_smtp.Body,
    trio_smtp.Client,
    trio_smtp.Outcomes,
    trio_smtp.OutgoingMessage,
    trio_smtp.Pool,
    trio_smtp.Session,
    trio_smtp.UnixListener,
    inbox.Inbox,
    inbox.ThreadedInbox,
    outbox.Outbox,
    testing.Certificates,
    testing.FaultPoint,
    testing.Network,
    testing.RunningServer,
    testing.ScriptedServer,
    testing.Sink,
    testing.ThreadedSink,
    testing.TrioThread,
]


class Made(metaclass=NoPublicConstructor):
    number: int

    @classmethod
    def _create(cls, number: int) -> Made:
        self = cls.__new__(cls)
        self.number = number
        return self


def test_only_create_makes_one() -> None:
    with pytest.raises(TypeError, match=r"Made has no public constructor"):
        Made(1)  # type: ignore[call-arg]
    made = Made._create(2)
    assert isinstance(made, Made)
    assert made.number == 2


@pytest.mark.parametrize("cls", MADE_BY_THE_LIBRARY, ids=lambda cls: cls.__name__)
def test_these_have_no_public_constructor(cls: type) -> None:
    with pytest.raises(TypeError, match=rf"^{cls.__module__}\.{cls.__name__} has no public constructor$"):
        cls()
    assert "__init__" not in vars(cls)  # one mechanism: none of them refuses by itself
    assert inspect.ismethod(cls._create)  # type: ignore[attr-defined]


def test_no_other_class_refuses_to_be_called() -> None:
    exported = {getattr(module, name) for module in (trio_smtp, inbox, testing, outbox) for name in module.__all__}
    assert {thing for thing in exported if isinstance(thing, NoPublicConstructor)} == set(MADE_BY_THE_LIBRARY)


MEMBERS = {
    trio_smtp.Body: "read received",
    trio_smtp.Client: "command extensions greeting noop quit reset send send_message tls transaction verify",
    trio_smtp.Outcomes: "",
    trio_smtp.OutgoingMessage: "accepted refused result send_all",
    trio_smtp.Pool: "drain send send_many send_message statistics",
    trio_smtp.UnixListener: "accept aclose path socket",
    trio_smtp.Session: "envelope esmtp forwarded hello host id identity local peer proxy state tls transaction_count "
    "xclient",
    outbox.Outbox: "entries forget get handler put put_message resolve statistics wait work",
    testing.Network: "address_of connections cut refuse restore silence",
}


@pytest.mark.parametrize("cls", MEMBERS, ids=lambda cls: cls.__name__)
def test_internals_are_not_public(cls: type[object]) -> None:
    members = {*vars(cls), *vars(cls).get("__annotations__", {})}
    assert {name for name in members if not name.startswith("_")} == set(MEMBERS[cls].split())


def test_aliases_of_foreign_types_keep_their_module() -> None:
    """Setting an attribute of ``Mapping[str, str]`` would set it on ``Mapping``, and a foreign class stays foreign."""
    namespace = {"Params": trio_smtp.Params, "Mapping": collections.abc.Mapping, "Made": Made}
    before = Made.__module__
    show_as_public("trio_smtp", namespace, namespace)
    assert collections.abc.Mapping.__module__ == "collections.abc"
    assert Made.__module__ == before


@pytest.mark.parametrize(
    ("extra", "library"),
    [
        ("dkim", "dkim"),
        ("dkim", "cryptography"),
        ("oauth", "httpx"),
        ("socks", "python_socks"),
        ("telemetry", "opentelemetry"),
        ("telemetry", "prometheus_client"),
    ],
)
def test_an_extra_that_is_not_installed_says_how_to_install_it(extra: str, library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None\nimport trio_smtp.{extra}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    *_, last = done.stderr.splitlines()
    words, _, hint = last.partition("; ")
    assert words.startswith(f"ModuleNotFoundError: trio_smtp.{extra} needs {library}")
    assert hint == f"install it with: pip install 'trio-smtp[{extra}]'"


def test_the_hint_is_for_libraries_only() -> None:
    own = r"^No module named 'trio_smtp\.no_such_part'$"
    with pytest.raises(ModuleNotFoundError, match=own), needs_extra("this", "that"):
        import trio_smtp.no_such_part  # type: ignore[import-not-found]  # noqa: F401
    hint = r"^this needs no_such_library; .*trio-smtp\[that\]"
    with pytest.raises(ModuleNotFoundError, match=hint) as caught, needs_extra("this", "that"):
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401
    assert caught.value.name == "no_such_library"
