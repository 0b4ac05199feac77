# What all connections of one server share.
from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from .._protocol.server.config import ServerConfig
from .._protocol.server.profile import ServerProfile
from .._wire.tls import watch_server_name
from .handler import Hooks
from .limits import FailureLimit

logger = logging.getLogger("trio_smtp")


@dataclass(kw_only=True)
class ServerStatistics:
    """A server's counters since it was made.

    Attributes:
        connections: open now.
        total_connections: taken in all.
        refused_connections: turned away at a limit.
        transactions: MAIL commands accepted.
        messages: messages accepted.
        octets: octets of message content read, accepted or not.
        failed_hooks: hooks that raised or took too long.
    """

    connections: int = 0
    total_connections: int = 0
    refused_connections: int = 0
    transactions: int = 0
    messages: int = 0
    octets: int = 0
    failed_hooks: int = 0

    def copy(self) -> ServerStatistics:
        """The numbers as they are now."""
        return replace(self)


class Service:
    """A server without its sockets: hooks, rules, TLS, counters."""

    def __init__(
        self, handler: object, config: ServerConfig, ssl_context: ssl.SSLContext | None, *, implicit_tls: bool
    ) -> None:
        self.hooks = Hooks(handler)
        self.config = config
        self.ssl_context = ssl_context
        self._contexts: WeakSet[ssl.SSLContext] = WeakSet()
        if ssl_context is not None:
            if ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:  # every handshake would fail, and clients only see that
                raise ValueError("ssl_context is one for clients; a server's is for ssl.Purpose.CLIENT_AUTH")
            self.prepare(ssl_context)
        self.implicit_tls = implicit_tls
        self.statistics = ServerStatistics()
        self.auth_failures = FailureLimit(config.max_auth_failures_per_host)
        self.handlers: Mapping[type, Any] | None = None  # of events, worked out by the first connection
        self.closing = False  # shutdown() was called
        for extension in config.extensions:
            if extension.commands and self.hooks.on_command is None:
                raise TypeError(f"{extension.keyword} brings commands, and the handler has no on_command")
        self.profile = ServerProfile(
            config,
            starttls=ssl_context is not None and not implicit_tls,
            auth=self.hooks.on_auth is not None,
            verify=self.hooks.on_vrfy is not None,
            expand=self.hooks.on_expn is not None,
            hello=self.hooks.on_hello is not None,
        )

    def prepare(self, context: ssl.SSLContext) -> None:
        """Make sure that handshakes with `context` tell what a session wants to know, and come once only."""
        if context not in self._contexts:
            self._contexts.add(context)
            context.options |= ssl.OP_NO_RENEGOTIATION  # a client's costs us ten times as much; OpenSSL 3 refuses it
            watch_server_name(context)
            _look_for_sharing(context, self.config)


# A TLS session ticket is good wherever its context serves, and Python cannot tell services apart by a session-id
# context (Postfix 2026-08-05): what one listener has made sure of, its ticket vouches for at the other.
_served: Final[WeakKeyDictionary[ssl.SSLContext, ServerConfig]] = WeakKeyDictionary()


def _look_for_sharing(context: ssl.SSLContext, config: ServerConfig) -> None:
    other = _served.setdefault(context, config)
    if (other.auth, other.xclient_from) != (config.auth, config.xclient_from):
        logger.warning(
            "one TLS context serves listeners with different privileges; give each its own, since a session that was "
            "begun at one of them can be resumed at the other"
        )
