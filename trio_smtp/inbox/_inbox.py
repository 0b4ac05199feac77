# An inbox as a program opens it: the sink, the box and the HTTP server, as long as a block lasts.
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import trio_smtp
from trio_smtp.testing import (
    Certificates,
    ReceivedMessage,
    ServerTLS,
    Sink,
    SinkAuth,
    TrioThread,
    open_sink,
    run_in_thread,
)

from .._nursery import open_bare_nursery
from .._public import NoPublicConstructor, needs_extra
from ._box import Box, matcher
from ._facts import codes, links
from ._reading import read_message
from ._rules import Rules
from ._store import Store

KEEP: Final = 500  # messages, by default
_UNSPECIFIED: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

# What a client of a developer can be given, and no way to use up the machine.
_CONFIG: Final = trio_smtp.ServerConfig(
    hostname="inbox.localhost",
    banner="trio_smtp inbox",
    enabled_extensions=("DSN",),
    bare_newlines="normalize",  # all mail is taken, that of programs which get this wrong too
    lenient_addresses=True,
    nul="keep",
    handler_timeout=None,  # a stall is as long as its rule says
    session_timeout=None,
    error_delay=None,
    max_auth_failures_per_host=None,
    max_connections=1000,
    max_connections_per_host=None,  # all come from one
    max_messages=None,
    max_errors=100,
)


class Inbox(metaclass=NoPublicConstructor):
    """A server that keeps all mail and shows it; made by :func:`open_inbox`.

    Attributes:
        host: the address that both servers listen on.
        smtp_port: where mail is to be sent to.
        http_port: where the page is.
        sink: the SMTP server, for its fault points: :meth:`trio_smtp.testing.Sink.refuse` and the others. Its own
            ``messages`` stay empty.
    """

    host: str
    smtp_port: int
    http_port: int
    sink: Sink
    _box: Box
    _rules: Rules

    @classmethod
    def _create(cls, sink: Sink, box: Box, rules: Rules, *, http_port: int) -> Inbox:
        self = cls.__new__(cls)
        self.host, self.smtp_port, self.http_port = sink.host, sink.port, http_port
        self.sink, self._box, self._rules = sink, box, rules
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.inbox.Inbox {self.url}: {len(self._box.store)} messages>"

    @property
    def url(self) -> str:
        """The page's address, without a slash at its end; where it listens on all addresses, a loopback one."""
        host = _UNSPECIFIED.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    @property
    def messages(self) -> list[ReceivedMessage]:
        """A new list of what is there, in the order of arrival. ``queue_id`` is the id that HTTP knows it by."""
        return [self._box.received(kept) for kept in list(self._box.store.all())]

    async def wait_for(self, *, to: str = "", sender: str = "", subject: str = "") -> ReceivedMessage:
        """The newest message that fits, if there is one; else wait for one.

        A checkpoint; cancelling it changes nothing.

        Args:
            to: one of the envelope's recipients; or a piece of one, such as ``"@example.com"``.
            sender: likewise, the envelope's sender or the author; or a piece of the author's name.
            subject: a piece of the subject. Case does not count anywhere.

        Raises:
            TypeError: one of them is no str.
        """
        for name, value in (("to", to), ("sender", sender), ("subject", subject)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {value!r:.80}")
        kept = await self._box.wait_for(matcher(to=to, sender=sender, subject=subject))
        return self._box.received(kept)

    def clear(self) -> None:
        """Delete all messages."""
        self._box.delete(self._box.store.ids())

    @property
    def faults(self) -> list[dict[str, Any]]:
        """The rules that ``/api/faults`` has. Setting them replaces all.

        Raises:
            ValueError: on setting, one makes no sense; then nothing has changed.
        """
        return self._rules.to_json()

    @faults.setter
    def faults(self, rules: Sequence[dict[str, Any]]) -> None:
        self._rules.replace(rules)


@asynccontextmanager
async def open_inbox(
    smtp_port: int = 0,
    http_port: int = 0,
    *,
    host: str = "127.0.0.1",
    keep: int = KEEP,
    store: str | os.PathLike[str] | None = None,
    tls: ServerTLS = "none",
    certificates: Certificates | None = None,
    auth: SinkAuth = None,
    allow_hosts: Iterable[str] = (),
    config: trio_smtp.ServerConfig | None = None,
) -> AsyncIterator[Inbox]:
    """Run an inbox for developers until the end of the block: SMTP takes all mail, HTTP shows it.

    It has no login, so let it listen on loopback addresses only. At the end of the block, or when it is cancelled,
    connections of both kinds end as when any server is cancelled.

    Args:
        smtp_port: 0 for any free one.
        http_port: 0 for any free one.
        host: where both listen.
        keep: how many messages; the oldest go first. All of them together have at most 1 GiB of content.
        store: a file in which messages outlive the block; ``None`` keeps them in memory.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``, of SMTP.
        certificates: for TLS; made for `host` if not given.
        auth: user name and password without which no mail is taken; or ``"any"``: any login succeeds, none is needed.
        allow_hosts: names by which the page may be asked for, beside loopback addresses and ``localhost``.
        config: instead of the inbox's own. Its `transcript` is told what is said, as the inbox is.

    Raises:
        ModuleNotFoundError: Starlette or Hypercorn is missing; ``pip install 'trio-smtp[inbox]'`` brings them.
        OSError: a port or the file cannot be had.
        TypeError, ValueError: `keep` is less than 1, or as from :func:`trio_smtp.testing.open_sink`.
    """
    with needs_extra("the inbox", "inbox"):
        from . import _web
    _check(keep, config)
    allowed = _names("allow_hosts", allow_hosts)
    path = None if store is None else os.fspath(store)
    database = Store(path, keep=keep)
    try:
        box = Box(database)
        async with open_sink(
            host=host,
            port=smtp_port,
            tls=tls,
            certificates=certificates,
            auth=auth,
            config=_noted_by(box, _CONFIG if config is None else config),
            keep=box.take,
            address_faults=True,
        ) as sink:
            listener, *others = await trio_smtp.open_tcp_listeners(http_port, host=host)
            for other in others:
                other.socket.close()
            with closing(listener.socket):
                inbox = Inbox._create(sink, box, Rules(sink), http_port=listener.socket.getsockname()[1])
                about = _about(inbox, keep=keep, store=path, tls=tls, auth=auth)
                app = _web.make_app(box, sink, inbox._rules, about=about, allow_hosts=allowed)
                async with open_bare_nursery(lambda nursery, error: nursery.cancel_scope.cancel()) as nursery:
                    await nursery.start(partial(_web.serve_app, app, listener))
                    yield inbox
    finally:
        database.close()


def _noted_by(box: Box, config: trio_smtp.ServerConfig) -> trio_smtp.ServerConfig:
    """A configuration with which the box hears what is said, before the one who hears it already."""
    transcript = config.transcript
    if transcript is None:
        return replace(config, transcript=box.note)

    def note(session: trio_smtp.Session, side: str, line: str) -> None:
        box.note(session, side, line)
        transcript(session, side, line)

    return replace(config, transcript=note)


def _check(keep: object, config: object) -> None:
    if isinstance(keep, bool) or not isinstance(keep, int):
        raise TypeError(f"keep must be a number of messages, not {keep!r:.80}")
    if keep < 1:
        raise ValueError(f"keep is at least 1, not {keep}")
    if config is not None and not isinstance(config, trio_smtp.ServerConfig):
        raise TypeError(f"config must be of type trio_smtp.ServerConfig or None, not {config!r:.80}")


def _names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        names = tuple(given)
        if all(isinstance(name, str) for name in names):
            return names
    raise TypeError(f"{what} is an iterable of names, not {given!r:.80}")


def _about(inbox: Inbox, *, keep: int, store: str | None, tls: ServerTLS, auth: SinkAuth) -> dict[str, Any]:
    """What the page says of it."""
    login = {None: "none", "any": "any"}.get(auth if isinstance(auth, str) else None, "none")
    return {
        "Version": trio_smtp.__version__,
        "SMTP": {"Host": inbox.host, "Port": inbox.smtp_port, "TLS": tls},
        "Login": "required" if isinstance(auth, tuple) else login,
        "Keep": keep,
        "Store": store or "",
    }


def find_links(message: ReceivedMessage) -> list[str]:
    """Where the links of a message lead, each once, those of its HTML first."""
    return links(read_message(message.content))


def find_codes(message: ReceivedMessage) -> list[str]:
    """The numbers in a message that look like one-time codes, each once: 4 to 8 digits, as text."""
    return codes(read_message(message.content))


class ThreadedInbox(metaclass=NoPublicConstructor):
    """An :class:`Inbox` in a thread of its own, for tests that are not async; made by :func:`run_inbox`.

    Attributes:
        host: the address that both servers listen on.
        smtp_port: where mail is to be sent to.
        http_port: where the page is.
        url: the page's address.
    """

    host: str
    smtp_port: int
    http_port: int
    url: str
    _thread: TrioThread[Inbox]

    @classmethod
    def _create(cls, thread: TrioThread[Inbox]) -> ThreadedInbox:
        self = cls.__new__(cls)
        inbox = thread.value
        self._thread = thread
        self.host, self.smtp_port, self.http_port, self.url = inbox.host, inbox.smtp_port, inbox.http_port, inbox.url
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.inbox.ThreadedInbox {self.url}>"

    @property
    def messages(self) -> list[ReceivedMessage]:
        """As :attr:`Inbox.messages`."""
        return self._thread.run_sync(lambda: self._thread.value.messages)

    def wait_for(
        self, *, to: str = "", sender: str = "", subject: str = "", timeout: float | None = 30
    ) -> ReceivedMessage:
        """As :meth:`Inbox.wait_for`.

        Raises:
            TimeoutError: no message that fits has come within so many seconds.
        """
        wait = partial(self._thread.value.wait_for, to=to, sender=sender, subject=subject)
        return self._thread.run(wait, timeout=timeout)

    def clear(self) -> None:
        """Delete all messages."""
        self._thread.run_sync(self._thread.value.clear)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """As :attr:`Inbox.faults`."""
        return self._thread.run_sync(lambda: self._thread.value.faults)

    @faults.setter
    def faults(self, rules: Sequence[dict[str, Any]]) -> None:
        self._thread.run_sync(lambda: setattr(self._thread.value, "faults", rules))


@contextmanager
def run_inbox(smtp_port: int = 0, http_port: int = 0, **options: Any) -> Iterator[ThreadedInbox]:
    """Run an :class:`Inbox` in a thread of its own, for tests that are not async: unittest, Django.

    Args:
        smtp_port: 0 for any free one.
        http_port: 0 for any free one.
        options: the others of :func:`open_inbox`.

    Raises:
        Exception: as from :func:`open_inbox`.
    """
    with run_in_thread(open_inbox(smtp_port, http_port, **options)) as thread:
        yield ThreadedInbox._create(thread)
