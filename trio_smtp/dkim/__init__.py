"""DKIM: ``open_client(..., sign=Signer(...))``. Needs ``pip install 'trio-smtp[dkim]'``."""

from .._public import needs_extra as _needs_extra
from .._public import show_as_public as _show_as_public

with _needs_extra("trio_smtp.dkim", "dkim"):
    from ._signer import DEFAULT_HEADERS as DEFAULT_HEADERS
    from ._signer import Signer as Signer

__all__ = ["DEFAULT_HEADERS", "Signer"]

_show_as_public(__name__, __all__, globals())
