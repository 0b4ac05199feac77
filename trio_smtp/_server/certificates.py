# The identity in a client's certificate, for AUTH EXTERNAL (RFC 4422 appendix A).
from __future__ import annotations

from .._wire.tls import TLSInfo


def certificate_identity(tls: TLSInfo) -> str | None:
    """The mailbox in a verified client certificate (the first rfc822Name), else its common name, else ``None``."""
    certificate = tls.peer_certificate
    if not tls.verified or certificate is None:
        return None
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]
    # The last common name is the most specific (RFC 6125 §6.4.4).
    names += [value for rdn in reversed(certificate.get("subject", ())) for kind, value in rdn if kind == "commonName"]
    return next((name for name in names if isinstance(name, str) and name and name.isprintable()), None)
