# The dialogue, in the logger "trio_smtp" at level DEBUG: commands without secrets, replies, never a message's text.
from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("trio_smtp")
