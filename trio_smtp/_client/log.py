# The dialogue, in the logger "trio_smtp" at level DEBUG: commands without secrets, replies, never a message's text.
from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("trio_smtp")


def is_on() -> bool:
    """Whether the dialogue is wanted; a look into a dict when it is not."""
    return logger.isEnabledFor(logging.DEBUG)
