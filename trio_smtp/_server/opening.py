# How a session begins: from the first octet to the greeting, and again after STARTTLS and after XCLIENT.
#
# What is known of the client changes here and nowhere else: its TLS, and whether it is a trusted relay. The
# application hears of it by on_connect and on_tls. After STARTTLS the session goes on without a greeting (RFC 3207
# section 4.2); after XCLIENT it is greeted anew, as if the client that was named had just connected.
#
# Nothing is said in clear between STARTTLS's reply and the handshake's end, nor before an implicit handshake's end.
from __future__ import annotations

import logging
import ssl
from typing import Final

from .._protocol.errors import SMTPTimeoutError
from .._protocol.replies import Reply
from .._protocol.server.events import XClient
from .certificates import certificate_identity
from .dialogue import Dialogue
from .hooks import HookCaller
from .limits import is_within
from .log import logger
from .trace import Witness

EARLY_TALK_WAIT: Final = 0.1  # seconds that reject_early_talkers listens before it greets
_EARLY_TALKER: Final = Reply(554, "you talk before the greeting", "5.5.1", close=True)


class Opening:
    """The beginnings of one session.

    Args:
        caller: of the session's hooks; it has the channel and the session as well.
        tls_context: TLS starts with it at once (RFC 8314); ``None`` for a session that begins in clear.
        tls_is_done: the stream may have done that handshake already.
    """

    __slots__ = ("_caller", "_tls_context", "_tls_is_done")

    def __init__(self, caller: HookCaller, tls_context: ssl.SSLContext | None, *, tls_is_done: bool) -> None:
        self._caller: HookCaller = caller
        self._tls_context: ssl.SSLContext | None = tls_context
        self._tls_is_done: bool = tls_is_done

    def __repr__(self) -> str:
        return f"<Opening of {self._caller.session!r}>"

    async def open(self) -> bool:
        """Ask the application about the client, and greet; returns whether there is a session."""
        caller = self._caller
        channel, protocol = caller.channel, caller.channel.protocol
        if caller.context.transcript is not None or logger.isEnabledFor(logging.DEBUG):
            protocol.transcribe(Dialogue(caller.session, caller.context.transcript).note)
        if caller.context.trace is not None:
            caller.watch(Witness(caller.context.trace, caller.session, protocol))
        if caller.context.relays:
            self._decide_trust()
        is_relayed = caller.session.proxy is not None and self._tls_context is None
        if is_relayed and (data := channel.wire.receive_nowait()):
            protocol.receive_data(data)  # what shares a segment with the PROXY header is no early talking
        refusal = await caller.ask_on_connect()
        is_refused = refusal is not None and not refusal.is_success
        if self._tls_context is not None:
            if is_refused:
                protocol.end_silently()
                return False
            await self._shake_hands(self._tls_context, is_done=self._tls_is_done)
        elif not is_refused and caller.context.config.reject_early_talkers and await self._talks_early():
            refusal = _EARLY_TALKER
        protocol.greet(refusal)
        return True

    async def start_tls(self) -> None:
        """STARTTLS has come: accept it, and shake hands."""
        caller = self._caller
        channel = caller.channel
        channel.expect_tls()
        channel.protocol.accept()
        if caller.session.envelope is not None:
            await caller.end_transaction()
        await channel.flush()
        assert caller.context.ssl_context is not None
        await self._shake_hands(caller.context.ssl_context)

    async def start_over(self, event: XClient) -> None:
        """A trusted relay has named its client: greet that one."""
        caller = self._caller
        protocol = caller.channel.protocol
        protocol.accept()
        caller.session._apply_xclient(event.attributes)
        self._decide_trust()
        protocol.greet(await caller.ask_on_connect())

    def _decide_trust(self) -> None:
        """XCLIENT is allowed from `xclient_from` only.

        Decided again after XCLIENT, so that the client that it names does not inherit trust.
        """
        caller = self._caller
        relays = caller.context.relays
        caller.channel.protocol.trust(bool(relays) and is_within(caller.session.host, relays))

    async def _talks_early(self) -> bool:
        channel = self._caller.channel
        now = channel.now()
        try:
            data = await channel.receive(now + EARLY_TALK_WAIT, now)
        except SMTPTimeoutError:
            return False
        channel.protocol.receive_data(data)
        return bool(data)

    async def _shake_hands(self, context: ssl.SSLContext, *, is_done: bool = False) -> None:
        caller = self._caller
        channel, witness = caller.channel, caller.witness
        began = channel.now()
        try:
            tls = await channel.start_tls(context, is_done=is_done)
        except BaseException as exc:
            if witness is not None:
                witness.note_tls(began, None, exc)
            raise
        if witness is not None:
            witness.note_tls(began, tls)
        caller.session._apply_tls(tls)
        channel.protocol.start_tls(certificate_identity(tls))
        await caller.tell_on_tls()
