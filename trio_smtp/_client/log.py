# The dialogue, in the logger "trio_smtp" at level DEBUG: commands without secrets, replies, never a message's text.
from __future__ import annotations

from .._logging import logger as logger
