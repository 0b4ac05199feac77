# Everything about a client that is a number, a word or a switch. Pure data, checked when made.
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .._protocol.checks import check_choice, check_count, check_flag, check_function, check_seconds, check_text
from .._protocol.nul import CLIENT_NUL_POLICIES
from .trace import ClientEvent


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """How a client and a pool's connections behave. Every field is checked when the object is made.

    Times are in seconds, and ``None`` lifts a limit. The defaults are those of RFC 5321 section 4.5.3.2.

    Attributes:
        connect_timeout: for looking up the host's name and connecting to it.
        greeting_timeout: for the server's 220.
        submission_greeting_timeout: the same on ports 465 and 587, if it is less. No server greets late there on
            purpose; one that is silent most often waits for a TLS handshake.
        tls_handshake_timeout: for a TLS handshake, of either kind.
        command_timeout: for the reply to each command.
        data_timeout: for handing over each block of a message.
        end_timeout: for the reply to the end of a message. Waiting less than ten minutes makes duplicates.
        end_grace: how long a cancelled caller still waits for that reply, shielded.
        quit_timeout: for the reply to QUIT.
        newlines: bare CR and LF in a message are made CR LF (``"normalize"``), or the message is not sent
            (``"reject"``).
        nul: a NUL in a message, which neither 7-bit nor 8-bit text may have and some servers drop: the message is not
            sent (``"reject"``), or goes without it (``"drop"``) or with it (``"keep"``). With ``BODY=BINARYMIME`` it is
            kept.
        max_reply_size: octets one reply may have.
        local_address: the address to connect from (``None``: the system's choice).
        chunking: use BDAT where the server offers CHUNKING (RFC 3030).
        pipelining: send commands in groups where the server offers PIPELINING (RFC 2920).
        early_text: a small message may leave in one write with its envelope where the server offers PIPELINING and
            CHUNKING: one round trip, not two. Only for servers that are known to swallow the chunk of a BDAT they
            refuse (RFC 3030 section 2). One that does not takes the text of a message whose recipients it has refused
            for commands: the author of that text speaks in our session then.
        trace: called with a :class:`ClientEvent` for each thing that happens; must be synchronous and quick. What it
            raises is logged, the first time.
        add_missing: a message object without Date or Message-ID is sent with one (RFC 5322 section 3.6), the same one
            if it is sent again. The object stays as it is. Bytes, str, files and streams get nothing added.

    Raises:
        ValueError, TypeError: naming the field.
    """

    connect_timeout: float | None = 60
    greeting_timeout: float | None = 300
    submission_greeting_timeout: float | None = 30
    tls_handshake_timeout: float | None = 60
    command_timeout: float | None = 300
    data_timeout: float | None = 180
    end_timeout: float | None = 600
    end_grace: float = 10
    quit_timeout: float = 5
    newlines: Literal["normalize", "reject"] = "normalize"
    nul: Literal["reject", "drop", "keep"] = "reject"
    max_reply_size: int = 65536
    local_address: str | None = None
    chunking: bool = True
    pipelining: bool = True
    early_text: bool = False
    trace: Callable[[ClientEvent], None] | None = None
    add_missing: bool = False

    def __post_init__(self) -> None:
        for name in (
            "connect_timeout",
            "greeting_timeout",
            "submission_greeting_timeout",
            "tls_handshake_timeout",
            "command_timeout",
            "data_timeout",
            "end_timeout",
        ):
            check_seconds(name, getattr(self, name))
        for name in ("end_grace", "quit_timeout"):
            value = getattr(self, name)
            if value is None:
                raise TypeError(f"{name} cannot be None: it bounds what happens under cancellation")
            check_seconds(name, value, zero=True)
            if value == math.inf:
                raise ValueError(f"{name} cannot be infinite: it bounds what happens under cancellation")
        check_choice("newlines", self.newlines, ("normalize", "reject"))
        check_choice("nul", self.nul, CLIENT_NUL_POLICIES)
        check_count("max_reply_size", self.max_reply_size, least=512, optional=False)
        check_flag("chunking", self.chunking)
        check_flag("pipelining", self.pipelining)
        check_flag("early_text", self.early_text)
        check_flag("add_missing", self.add_missing)
        if self.local_address is not None:
            check_text("local_address", self.local_address, word=True)
            try:
                self.local_address.encode("idna")
            except UnicodeError as exc:
                raise ValueError(f"local_address: {self.local_address!r:.80} cannot be looked up ({exc})") from None
        check_function("trace", self.trace)
