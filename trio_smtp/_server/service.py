# What all connections of one server share.
from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._protocol.server_config import ServerConfig
from .._protocol.server_profile import ServerProfile
from .handler import Hooks
from .limits import FailureLimit


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
            expand=self.hooks.on_expn is not None,
        )
