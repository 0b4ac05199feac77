# What one server says and allows, worked out once: per server and kind of connection, not per session or command.
from __future__ import annotations

from functools import lru_cache

from .extensions import Offer, resolve_extensions, server_keywords
from .parameters import ParameterContext
from .server_config import ServerConfig


class ServerProfile:
    """A server's configuration, together with what it is able to do.

    Args:
        config: the numbers and switches.
        starttls: it has a TLS context for STARTTLS.
        auth: the application answers AUTH.
        expand: the application answers EXPN.
    """

    def __init__(
        self, config: ServerConfig, *, starttls: bool = False, auth: bool = False, expand: bool = False
    ) -> None:
        self.config = config
        self.expand = expand
        disabled = set(config.disabled_extensions)
        if not starttls:
            disabled.add("STARTTLS")
        if not auth:
            disabled.add("AUTH")
        if not config.xclient_from:
            disabled.add("XCLIENT")
        self.extensions = resolve_extensions(enabled=config.enabled_extensions, disabled=disabled)
        self.enhanced = "ENHANCEDSTATUSCODES" in self.extensions
        self.mechanisms = tuple(config.auth_mechanisms)
        self.hello_verbs = ("LHLO",) if config.lmtp else ("EHLO", "HELO") if config.enable_ehlo else ("HELO",)
        self.greeting = f"{config.hostname} {'LMTP' if config.lmtp else 'ESMTP'} {config.banner}".rstrip()
        self.parameters = lru_cache(maxsize=2)(self._parameters)
        self.keywords = lru_cache(maxsize=8)(self._keywords)

    def _parameters(self, tls: bool) -> ParameterContext:
        return ParameterContext(
            self.extensions,
            max_message_size=self.config.max_message_size,
            tls=tls,
            lenient=self.config.lenient_addresses,
        )

    def _keywords(self, tls: bool, mechanisms: tuple[str, ...], trusted: bool) -> tuple[str, ...]:
        offer = Offer(
            tls=tls,
            starttls=True,
            auth=mechanisms,
            max_message_size=self.config.max_message_size,
            max_recipients=self.config.max_recipients,
            max_messages=self.config.max_messages,
            xclient=("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT") if trusted else (),
        )
        return tuple(server_keywords(self.extensions, offer))
