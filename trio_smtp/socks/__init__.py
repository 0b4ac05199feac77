"""SOCKS: ``open_client(..., connect=connect_through("socks5://…"))``. Needs ``pip install 'trio-smtp[socks]'``."""

from .._public import show_as_public as _show_as_public
from ._through import connect_through as connect_through

__all__ = ["connect_through"]

_show_as_public(__name__, __all__, globals())
