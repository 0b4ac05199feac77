"""OAuth: ``auth=OAuth(user, RefreshToken.google(...))``. Needs ``pip install 'trio-smtp[oauth]'``."""

from .._public import needs_extra as _needs_extra
from .._public import show_as_public as _show_as_public

with _needs_extra("trio_smtp.oauth", "oauth"):
    from ._providers import ClientCredentials as ClientCredentials
    from ._providers import RefreshToken as RefreshToken

__all__ = ["ClientCredentials", "RefreshToken"]

_show_as_public(__name__, __all__, globals())
