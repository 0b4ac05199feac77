# What all connections of one server share.
from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakSet

from .._observer import Observer
from .._protocol.checks import check_flag, check_kind
from .._protocol.server.config import Network, ServerConfig, networks
from .._protocol.server.profile import ServerProfile
from .._wire.tls import watch_server_name
from .budget import DataBudget
from .dialogue import Line
from .handler_check import Hooks
from .limits import FailureLimit
from .log import logger
from .stress import Stress
from .trace import Tracer

if TYPE_CHECKING:
    from .event_rows import EventRow


@dataclass(kw_only=True)
class ServerStatistics:
    """A server's counters since it was made.

    Attributes:
        connections: open now.
        total_connections: taken in all.
        refused_connections: turned away at a limit.
        ended_for_others: ended because no slot was left for another connection, and they were of no use.
        transactions: MAIL commands accepted.
        messages: messages accepted.
        octets: octets of message content read, accepted or not.
        failed_hooks: hooks that raised, took too long or returned what they may not. Neither a ``Reject``, nor the
            error of a message that cannot be had whole, nor a cancellation from outside is a failure.
    """

    connections: int = 0
    total_connections: int = 0
    refused_connections: int = 0
    ended_for_others: int = 0
    transactions: int = 0
    messages: int = 0
    octets: int = 0
    failed_hooks: int = 0


class Counters:
    """What a server counts; :class:`ServerStatistics` is what it shows of that."""

    def __init__(self) -> None:
        self._statistics: ServerStatistics = ServerStatistics()

    def take_connection(self) -> None:
        """A connection has a session."""
        self._statistics.total_connections += 1

    def refuse_connection(self) -> None:
        """A connection has none."""
        self._statistics.refused_connections += 1

    def make_room(self) -> None:
        """A connection was ended for another one."""
        self._statistics.ended_for_others += 1

    def begin_transaction(self) -> None:
        """MAIL was accepted."""
        self._statistics.transactions += 1

    def end_transaction(self, octets: int, *, accepted: bool) -> None:
        """A transaction is over.

        Args:
            octets: of its messages.
            accepted: the last of them was accepted.
        """
        self._statistics.octets += octets
        self._statistics.messages += accepted

    def fail_hook(self) -> None:
        """A hook has failed."""
        self._statistics.failed_hooks += 1

    def read(self, *, connections: int) -> ServerStatistics:
        """The numbers as they are now.

        Args:
            connections: that are open.
        """
        return replace(self._statistics, connections=connections)


class ServerContext:
    """A server without its sockets: hooks, rules, TLS, counters.

    Args:
        hooks: the handler's.
        rows: what to ask about each type of event; ``None`` accepts it at once.
        config: the rules.
        ssl_context: a server-side context; offers STARTTLS.
        implicit_tls: every connection begins with a handshake instead.

    Attributes:
        hooks: as given.
        rows: as given.
        config: as given.
        ssl_context: as given.
        implicit_tls: as given.
        counters: what is counted of all connections.
        trace: told of what happens, if anything is.
        transcript: told of what is said, likewise.
        proxies: networks whose connections begin with a PROXY header.
        relays: networks that may use XCLIENT and XFORWARD.
        auth_failures: failed logins of each host.
        stress: makes waits for peers shorter when slots run short.
        is_closing: ``shutdown()`` was called.
        profile: what the protocol offers and allows.

    Raises:
        TypeError: an extension brings commands, and there is no ``on_command``.
        ValueError: `ssl_context` is one for clients, or the server could never take mail.
    """

    def __init__(
        self,
        hooks: Hooks,
        rows: Mapping[type, EventRow | None],
        config: ServerConfig,
        ssl_context: ssl.SSLContext | None,
        *,
        implicit_tls: bool,
    ) -> None:
        self.hooks: Hooks = hooks
        self.rows: Mapping[type, EventRow | None] = rows
        self.config: ServerConfig = config
        self.ssl_context: ssl.SSLContext | None = ssl_context
        self.implicit_tls: bool = implicit_tls
        self.counters: Counters = Counters()
        self.trace: Tracer | None = None if config.trace is None else Tracer(config.trace)
        transcript = config.transcript
        self.transcript: Observer[Line] | None = (
            None
            if transcript is None
            else Observer(lambda line: transcript(*line), "server", "function for the transcript")
        )
        self.proxies: tuple[Network, ...] = networks("proxy_protocol_from", config.proxy_protocol_from)
        self.relays: tuple[Network, ...] = networks("xclient_from", config.xclient_from)
        self.auth_failures: FailureLimit = FailureLimit(config.max_auth_failures_per_host)
        self.stress: Stress = Stress(
            config.max_connections, math.inf if config.command_timeout is None else config.command_timeout
        )
        self.is_closing: bool = False
        self._prepared: WeakSet[ssl.SSLContext] = WeakSet()
        self._data_limit: float = math.inf if config.data_timeout is None else config.data_timeout
        if ssl_context is not None:
            if ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:  # every handshake would fail, and clients only see that
                raise ValueError("ssl_context is one for clients; a server's is for ssl.Purpose.CLIENT_AUTH")
            self.prepare(ssl_context)
        _check_that_mail_can_come(hooks, config, has_tls=ssl_context is not None, implicit_tls=implicit_tls)
        for extension in config.extensions:
            if extension.commands and hooks.on_command is None:
                raise TypeError(f"{extension.keyword} brings commands, and the handler has no on_command")
        self.profile: ServerProfile = ServerProfile(
            config,
            starttls=ssl_context is not None and not implicit_tls,
            auth=hooks.on_auth is not None,
            verify=hooks.on_vrfy is not None,
            expand=hooks.on_expn is not None,
            hello=hooks.on_hello is not None,
        )

    def close(self) -> None:
        """Note that ``shutdown()`` was called."""
        self.is_closing = True

    def new_budget(self) -> DataBudget:
        """A client's time for one message."""
        return DataBudget(self._data_limit, self.config.min_data_rate, self.stress)

    def prepare(self, context: ssl.SSLContext) -> None:
        """Make sure that handshakes with `context` tell what a session wants to know, and come once only."""
        if context not in self._prepared:
            self._prepared.add(context)
            context.options |= ssl.OP_NO_RENEGOTIATION  # a client's costs us ten times as much; OpenSSL 3 refuses it
            watch_server_name(context)
            _look_for_sharing(context, self.config)

    def __repr__(self) -> str:
        return f"<ServerContext of {self.config.hostname}>"


def check_server(config: object, ssl_context: object, implicit_tls: object) -> None:
    """Check the arguments of a server, each for itself.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    check_kind("config", config, ServerConfig, optional=True)
    check_kind("ssl_context", ssl_context, ssl.SSLContext, optional=True)
    check_flag("implicit_tls", implicit_tls)
    if implicit_tls and ssl_context is None:
        raise ValueError("implicit_tls needs an ssl_context")


def _check_that_mail_can_come(hooks: Hooks, config: ServerConfig, *, has_tls: bool, implicit_tls: bool) -> None:
    """Refuse what asks every client for something that none of them can do."""
    has_tls = has_tls and (implicit_tls or "STARTTLS" not in config.disabled_extensions)
    if config.require_tls and not has_tls:
        raise ValueError(
            "require_tls=True needs an ssl_context, and STARTTLS or implicit_tls: no client could start TLS"
        )
    if config.auth != "required" or config.xclient_from:  # a trusted relay's XCLIENT LOGIN is a login too
        return
    if hooks.on_auth is None:
        raise ValueError('auth="required" needs an on_auth: no client could log in')
    if "AUTH" in config.disabled_extensions or not config.auth_mechanisms:
        raise ValueError('auth="required" needs AUTH and its mechanisms: no client could log in')
    if not (config.enable_ehlo or config.lmtp):
        raise ValueError('auth="required" needs enable_ehlo: after HELO no client could log in')
    if not has_tls and not config.allow_insecure_auth:
        raise ValueError('auth="required" needs an ssl_context or allow_insecure_auth: no client could log in')


# A TLS session ticket is valid wherever its context serves, and Python cannot set a session-id context that would tell
# services apart (Postfix 2026-08-05): a session that one listener has authenticated can be resumed at the other.
_served: Final[WeakKeyDictionary[ssl.SSLContext, ServerConfig]] = WeakKeyDictionary()


def _look_for_sharing(context: ssl.SSLContext, config: ServerConfig) -> None:
    other = _served.setdefault(context, config)
    if (other.auth, other.xclient_from) != (config.auth, config.xclient_from):
        logger.warning(
            "one TLS context serves listeners with different privileges; give each its own, since a session that was "
            "begun at one of them can be resumed at the other"
        )
