# The replies of a server's core that never vary.
from __future__ import annotations

from typing import Final

from ..replies import Reply

OK: Final = Reply(250, "OK", "2.0.0")
HELLO_ACCEPTED: Final = Reply(250)  # where the application has no text of its own
NOT_TRUSTED: Final = Reply(550, "insufficient authorization", "5.7.0")  # to XCLIENT and XFORWARD

# the order of commands (RFC 5321 §4.1.4)
HELLO_FIRST: Final = Reply(503, "send EHLO first", "5.5.1")
LHLO_FIRST: Final = Reply(503, "send LHLO first", "5.5.1")
MAIL_FIRST: Final = Reply(503, "send MAIL first", "5.5.1")
RCPT_FIRST: Final = Reply(503, "send RCPT first", "5.5.1")
NESTED: Final = Reply(503, "a transaction is in progress", "5.5.1")
NOT_NOW: Final = Reply(503, "not during a transaction", "5.5.1")
TLS_FIRST: Final = Reply(530, "must issue a STARTTLS command first", "5.7.0")  # RFC 3207 §4
AUTH_FIRST: Final = Reply(530, "authentication required", "5.7.0")  # RFC 4954 §6

# AUTH (RFC 4954 §6)
AUTH_SUCCESS: Final = Reply(235, "authentication succeeded", "2.7.0")
AUTH_REFUSED: Final = Reply(535, "authentication failed", "5.7.8")
AUTH_CANCELLED: Final = Reply(501, "authentication cancelled", "5.7.0")
AUTH_BAD_ENDING: Final = Reply(501, "unexpected response", "5.5.2")

# messages
TOO_LARGE: Final = Reply(552, "the message is too large", "5.3.4")  # RFC 1870 §6.3
BARE_NEWLINE: Final = Reply(550, "the message has a bare CR or LF", "5.6.11")  # RFC 5321 §2.3.8
NUL_IN_TEXT: Final = Reply(550, "the message has a NUL, which needs BODY=BINARYMIME", "5.6.11")  # RFC 2045 §2.7, §2.8

# lines that are no command of ours
UNKNOWN: Final = Reply(500, "command not recognized", "5.5.1")
NOT_IMPLEMENTED: Final = Reply(502, "command not implemented", "5.5.1")  # RFC 5321 §4.2.4: known, but not done here
FOREIGN_PROTOCOL: Final = Reply(554, "this is SMTP", "5.5.1", close=True)
TLS_UNEXPECTED: Final = Reply(554, "TLS does not start by itself on this port", "5.5.1", close=True)
OUT_OF_TURN: Final = Reply(554, "pipelining was not offered", "5.5.1", close=True)
BARE_LINE: Final = Reply(500, "lines end with CR LF", "5.5.2")
BARE_LINE_CLOSE: Final = Reply(500, "lines end with CR LF", "5.5.2", close=True)
CONTROL: Final = Reply(501, "control character in a command", "5.5.2")

# limits
TOO_MANY_ERRORS: Final = Reply(421, "too many errors", "4.7.0", close=True)
TOO_MANY_FAILURES: Final = Reply(421, "too many failed authentications", "4.7.0", close=True)
TOO_MANY_FAILURES_OF_HOST: Final = Reply(454, "too many failed authentications, try again later", "4.7.0")
TOO_MANY_MESSAGES: Final = Reply(421, "too many messages on this connection", "4.7.0", close=True)
TOO_MANY_RECIPIENTS: Final = Reply(452, "too many recipients", "4.5.3")  # RFC 5321 §4.5.3.1.10

# VRFY and EXPN
CANNOT_VERIFY: Final = Reply(252, "cannot verify the user, but will take mail for it", "2.5.0")  # RFC 5321 §3.5.3
CANNOT_EXPAND: Final = Reply(252, "cannot expand the list", "2.5.0")
UTF8_LOOKUP: Final = Reply(553, "a non-ASCII address needs SMTPUTF8", "5.6.7")  # RFC 6531 §3.7.4.2
