# Throw-away certificates for tests: an authority that lives as long as the object, and nowhere but in memory.
#
# trustme makes them, and is imported only when one is wanted: without TLS the kit needs nothing but Trio.
from __future__ import annotations

import ssl
from functools import cached_property
from typing import TYPE_CHECKING

from .._public import NoPublicConstructor, needs_extra

if TYPE_CHECKING:
    import trustme

_ALWAYS = ("localhost", "127.0.0.1", "::1")


class Certificates(metaclass=NoPublicConstructor):
    """An authority and a server's certificate from it, made by :func:`make_certificates`.

    Attributes:
        names: host names that the certificate is for.
        authority: the :class:`trustme.CA`, for further certificates: of clients, expired ones, ones for other names.
    """

    names: tuple[str, ...]
    authority: trustme.CA
    _certificate: trustme.LeafCert

    @classmethod
    def _create(cls, authority: trustme.CA, names: tuple[str, ...]) -> Certificates:
        self = cls.__new__(cls)
        self.names = names
        self.authority = authority
        self._certificate = authority.issue_cert(*names)
        return self

    @property
    def authority_pem(self) -> str:
        """The authority's certificate, which is all that a client has to trust."""
        return self.authority.cert_pem.bytes().decode("ascii")

    def server_context(self, *, verify_clients: bool = False) -> ssl.SSLContext:
        """A new context for a server that has the certificate and its key.

        Args:
            verify_clients: ask clients for a certificate of this authority; those without one are served, too.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certificate.configure_cert(context)
        if verify_clients:
            context.verify_mode = ssl.CERT_OPTIONAL
            self.authority.configure_trust(context)
        return context

    def client_context(self, *identities: str) -> ssl.SSLContext:
        """A new context for a client that trusts this authority alone, and verifies as strictly as usual.

        Args:
            identities: mailboxes or names in a certificate that the client shows, as for AUTH EXTERNAL.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if identities:
            self.authority.issue_cert(*identities).configure_cert(context)
        self.authority.configure_trust(context)
        return context

    @cached_property
    def peer_context(self) -> ssl.SSLContext:
        """The one context of all scripted peers, since making one takes a millisecond and a half. Not to be changed."""
        return self.server_context()

    def __repr__(self) -> str:
        return f"<trio_smtp.testing.Certificates for {', '.join(self.names)}>"


def make_certificates(*names: str) -> Certificates:
    """Make a certificate for ``localhost``, the loopback addresses and `names`, by an authority of its own.

    Clients that trust another authority, or connect to another name, get to see what a wrong certificate does.

    Args:
        names: further host names and IP addresses.

    Raises:
        ModuleNotFoundError: trustme is missing; ``pip install 'trio-smtp[testing]'`` brings it.
    """
    with needs_extra("a certificate for tests", "testing"):
        import trustme
    return Certificates._create(trustme.CA(), tuple(dict.fromkeys((*_ALWAYS, *names))))
