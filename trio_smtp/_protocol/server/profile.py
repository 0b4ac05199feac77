# What one server says and allows, worked out once: per server and kind of connection, not per session or command.
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ..extensions import Offer, resolve_extensions, server_keywords
from ..parameters import ParameterContext
from ..relay_attributes import XCLIENT, XFORWARD
from ..replies import Reply
from .commands import commands_of, refuse_unknown
from .config import ServerConfig
from .extension import extension_row, parameter_rows
from .rows import CommandRow, Rules, steps_of


class ServerProfile:
    """A server's configuration, together with what it is able to do.

    Args:
        config: the numbers and switches.
        starttls: it has a TLS context for STARTTLS.
        auth: the application answers AUTH.
        verify: the application answers VRFY.
        expand: the application answers EXPN.
        hello: the application may refuse EHLO.

    Attributes:
        config: as above.
        judges_hello: as `hello` above.
        extensions: the EHLO keywords in force.
        commands: the commands there are, verb to row.
        rules_for: what holds in a session without TLS (``False``) or with it.
        enhanced: replies have enhanced status codes.
        mechanisms: of AUTH, all that are configured.
        auth_in_clear: AUTH is allowed without TLS.
        must_take_turns: a client that was not offered PIPELINING has to wait for each answer.
        greeting: the usual one.
        farewell: the reply to QUIT.
        hello_reply: the answer to EHLO, LHLO or HELO.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        starttls: bool = False,
        auth: bool = False,
        verify: bool = False,
        expand: bool = False,
        hello: bool = False,
    ) -> None:
        self.config: ServerConfig = config
        self.judges_hello: bool = hello
        disabled = set(config.disabled_extensions)
        if not starttls:
            disabled.add("STARTTLS")
        if not auth:
            disabled.add("AUTH")
        if not verify:
            disabled.add("VRFY")
        if not expand:
            disabled.add("EXPN")
        if not config.xclient_from:
            disabled.update(("XCLIENT", "XFORWARD"))
        self._rows = [extension_row(extension) for extension in config.extensions]
        self.extensions: frozenset[str] = resolve_extensions(
            enabled=config.enabled_extensions, disabled=disabled, extra=self._rows
        )
        own = [extension for extension in config.extensions if extension.keyword in self.extensions]
        self.commands: dict[bytes, CommandRow] = commands_of(
            config, self.extensions, [verb for each in own for verb in each.commands]
        )
        self.enhanced: bool = "ENHANCEDSTATUSCODES" in self.extensions
        self.mechanisms: tuple[str, ...] = tuple(config.auth_mechanisms)
        self.auth_in_clear: bool = config.allow_insecure_auth and not config.require_tls
        self.must_take_turns: bool = config.reject_early_talkers
        self.greeting: Reply = Reply(
            220, f"{config.hostname} {'LMTP' if config.lmtp else 'ESMTP'} {config.banner}".rstrip()
        )
        self.farewell: Reply = Reply(221, f"{config.hostname} closing connection", "2.0.0")
        self.rules_for: Callable[[bool], Rules] = lru_cache(maxsize=2)(self._rules)
        self.hello_reply = lru_cache(maxsize=16)(self._hello_reply)

    def refuse_unknown(self, verb: bytes) -> Reply:
        """The reply to a command that is not there."""
        return refuse_unknown(verb, lmtp=self.config.lmtp)

    def _rules(self, tls: bool) -> Rules:
        locked = self.config.require_tls and not tls
        return Rules(steps_of(self.commands, lmtp=self.config.lmtp, locked=locked), self._parameters(tls))

    def _parameters(self, tls: bool) -> ParameterContext:
        return ParameterContext(
            self.extensions,
            max_message_size=self.config.max_message_size,
            tls=tls,
            lenient=self.config.lenient_addresses,
            max_hold=self.config.max_hold,
            max_hold_until=self.config.max_hold_until,
            min_deliver_by=self.config.min_deliver_by,
            extra=[row for extension in self.config.extensions for row in parameter_rows(extension)],
        )

    def _hello_reply(
        self, lines: tuple[str, ...] | None, esmtp: bool, tls: bool, mechanisms: tuple[str, ...], trusted: bool
    ) -> Reply:
        """The answer to EHLO, LHLO or HELO: a first line, which may be the application's, and what is on offer."""
        lines = lines or (self.config.hostname,)
        if not esmtp:
            return Reply(250, lines)
        offer = Offer(
            tls=tls,
            auth=mechanisms,
            max_message_size=self.config.max_message_size,
            max_recipients=self.config.max_recipients,
            max_messages=self.config.max_messages,
            max_hold=self.config.max_hold,
            max_hold_until=self.config.max_hold_until,
            min_deliver_by=self.config.min_deliver_by,
            xclient=tuple(XCLIENT) if trusted else (),
            xforward=tuple(XFORWARD) if trusted else (),
        )
        return Reply(250, (*lines, *server_keywords(self.extensions, offer, self._rows)))
