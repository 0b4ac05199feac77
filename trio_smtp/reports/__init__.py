"""Delivery reports (RFC 3464, and RFC 6533 for addresses that are not ASCII).

:func:`make_report` makes one of the outcome of a message, :func:`parse_report` reads one. Nothing has to be installed.
"""

from .._public import show_as_public as _show_as_public
from ._making import make_report as make_report
from ._reading import parse_report as parse_report
from ._values import Action as Action
from ._values import Report as Report
from ._values import ReportedRecipient as ReportedRecipient
from ._values import ReportError as ReportError

__all__ = ["Action", "Report", "ReportError", "ReportedRecipient", "make_report", "parse_report"]

_show_as_public(__name__, __all__, globals())
