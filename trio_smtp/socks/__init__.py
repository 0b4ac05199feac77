"""SOCKS: ``open_client(..., connect=connect_through("socks5://…"))``. Needs ``pip install 'trio-smtp[socks]'``."""

from .._public import needs_extra as _needs_extra
from .._public import show_as_public as _show_as_public

with _needs_extra("trio_smtp.socks", "socks"):
    from ._through import connect_through as connect_through

__all__ = ["connect_through"]

_show_as_public(__name__, __all__, globals())
