# A server's rules as tables: which command is allowed where, and the replies that never vary.
from __future__ import annotations

from typing import Final

from ..replies import Reply
from .auth import SUCCESS
from .events import (
    Authenticate,
    Command,
    Expand,
    Extra,
    Hello,
    Introduction,
    Mail,
    Rcpt,
    StartTLS,
    State,
    Verify,
)

# ---- the order of commands (RFC 5321 §4.1.4): what is allowed where; the command itself says where its success leads

HELLO: Final = (b"EHLO", b"HELO", b"LHLO")
ALWAYS: Final = frozenset(
    # BDAT: its octets come whether it is allowed or not
    (*HELLO, b"NOOP", b"HELP", b"VRFY", b"EXPN", b"BDAT", b"RSET", b"STARTTLS", b"QUIT")
)
ALLOWED: Final[dict[State, frozenset[bytes]]] = {
    State.GREETED: ALWAYS | {b"XCLIENT", b"XFORWARD"},
    State.READY: ALWAYS | {b"MAIL", b"AUTH", b"XCLIENT", b"XFORWARD"},
    State.MAIL: ALWAYS | {b"RCPT"},
    State.RCPT: ALWAYS | {b"RCPT", b"DATA"},
    State.CHUNKING: ALWAYS,
}

HELLO_FIRST: Final = Reply(503, "send EHLO first", "5.5.1")
LHLO_FIRST: Final = Reply(503, "send LHLO first", "5.5.1")
MAIL_FIRST: Final = Reply(503, "send MAIL first", "5.5.1")
RCPT_FIRST: Final = Reply(503, "send RCPT first", "5.5.1")
NESTED: Final = Reply(503, "a transaction is in progress", "5.5.1")
NOT_NOW: Final = Reply(503, "not during a transaction", "5.5.1")
_RELAYS: Final = {b"XCLIENT": NOT_NOW, b"XFORWARD": NOT_NOW}  # XCLIENT_README: 503 mail transaction in progress
MISPLACED: Final[dict[State, dict[bytes, Reply]]] = {
    State.GREETED: dict.fromkeys((b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH"), HELLO_FIRST),
    State.READY: dict.fromkeys((b"RCPT", b"DATA", b"BDAT"), MAIL_FIRST),
    State.MAIL: {b"MAIL": NESTED, b"AUTH": NOT_NOW, b"DATA": RCPT_FIRST, b"BDAT": RCPT_FIRST, **_RELAYS},
    State.RCPT: {b"MAIL": NESTED, b"AUTH": NOT_NOW, **_RELAYS},
    State.CHUNKING: {**dict.fromkeys((b"MAIL", b"RCPT", b"DATA", b"AUTH"), NESTED), **_RELAYS},
}

UNKNOWN: Final = Reply(500, "command not recognized", "5.5.1")
NOT_IMPLEMENTED: Final = Reply(502, "command not implemented", "5.5.1")  # RFC 5321 §4.2.4: known, but not done here
UNIMPLEMENTED: Final = frozenset((b"EXPN", b"ETRN", b"ATRN", b"TURN", b"SEND", b"SOML", b"SAML", b"BURL"))
# Browsers and forged requests speak to SMTP servers (ALPACA): the first word gives them away, and the end is at once.
# So does a proxy that is not in proxy_protocol_from: nothing that follows its header can be believed.
FOREIGN: Final = frozenset(
    (
        b"PROXY",
        b"GET",
        b"POST",
        b"PUT",
        b"HEAD",
        b"CONNECT",
        b"OPTIONS",
        b"DELETE",
        b"PATCH",
        b"TRACE",
        b"HOST:",
        b"USER-AGENT:",
    )
)
FOREIGN_REPLY: Final = Reply(554, "this is SMTP", "5.5.1", close=True)
TLS_REPLY: Final = Reply(554, "TLS does not start by itself on this port", "5.5.1", close=True)
OUT_OF_TURN: Final = Reply(554, "pipelining was not offered", "5.5.1", close=True)
BARE_LINE: Final = Reply(500, "lines end with CR LF", "5.5.2")
BARE_LINE_CLOSE: Final = Reply(500, "lines end with CR LF", "5.5.2", close=True)
CONTROL: Final = Reply(501, "control character in a command", "5.5.2")
TLS_FIRST: Final = Reply(530, "must issue a STARTTLS command first", "5.7.0")  # RFC 3207 §4
NEEDS_TLS: Final = frozenset((b"MAIL", b"RCPT", b"DATA"))
AUTH_FIRST: Final = Reply(530, "authentication required", "5.7.0")  # RFC 4954 §6
TOO_MANY_ERRORS: Final = Reply(421, "too many errors", "4.7.0", close=True)
TOO_MANY_FAILURES: Final = Reply(421, "too many failed authentications", "4.7.0", close=True)
TOO_MANY_FAILURES_OF_HOST: Final = Reply(454, "too many failed authentications, try again later", "4.7.0")
TOO_MANY_MESSAGES: Final = Reply(421, "too many messages on this connection", "4.7.0", close=True)
TOO_MANY_RECIPIENTS: Final = Reply(452, "too many recipients", "4.5.3")  # RFC 5321 §4.5.3.1.10
VRFY: Final = Reply(252, "cannot verify the user, but will take mail for it", "2.5.0")  # RFC 5321 §3.5.3
UTF8_LOOKUP: Final = Reply(553, "a non-ASCII address needs SMTPUTF8", "5.6.7")  # RFC 6531 §3.7.4.2
END_WITH_DOT: Final = Reply(354, "end data with <CR><LF>.<CR><LF>")
OK: Final = Reply(250, "OK", "2.0.0")
DEFAULTS: Final[dict[type[Command], Reply]] = {
    Hello: Reply(250),
    StartTLS: Reply(220, "ready to start TLS"),
    Authenticate: SUCCESS,
    Mail: Reply(250, "OK", "2.1.0"),
    Rcpt: Reply(250, "OK", "2.1.5"),
    Verify: VRFY,
    Expand: Reply(252, "cannot expand the list", "2.5.0"),
    Introduction: OK,
    Extra: OK,
}
