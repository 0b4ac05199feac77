# Which refusals are about the connection, and not about the message: the one place that knows.
#
# Some servers limit the messages of a connection, or give an idle one up, and say so by an ordinary refusal of MAIL. On
# another connection the message is taken. They are told by the enhanced code, or, where there is none that says so, by
# their words.
from __future__ import annotations

import re
from typing import Final

from .._protocol.errors import SMTPError, Stage

_IS_TIMEOUT: Final = "4.4.2"  # Amazon SES: 451 4.4.2 Timeout waiting for data from client
_WHAT: Final = r"\b(e-?)?(messages?|mails?|transactions?)\b"
_TOO_MANY: Final = re.compile(
    rf"too many {_WHAT}|{_WHAT}.*\b(per|in|on|for) (an?|one|the|this)? ?(smtp )?(connection|session)\b", re.IGNORECASE
).search


def is_about_connection(error: SMTPError | None) -> bool:
    """Whether this refusal says that the connection has had its share, or its time."""
    if error is None or error.reply is None or error.stage is not Stage.MAIL or not error.reply.is_temporary:
        return False
    return error.reply.enhanced == _IS_TIMEOUT or _TOO_MANY(error.reply.text) is not None
