"""OAuth: ``auth=OAuth(user, RefreshToken.google(...))``. Needs ``pip install 'trio-smtp[oauth]'``."""

from .._public import show_as_public as _show_as_public
from ._providers import ClientCredentials as ClientCredentials
from ._providers import RefreshToken as RefreshToken

__all__ = ["ClientCredentials", "RefreshToken"]

_show_as_public(__name__, __all__, globals())
