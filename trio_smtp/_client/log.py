# The logger "trio_smtp".
from __future__ import annotations

from .._logging import logger as logger
