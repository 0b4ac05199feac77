# The one formula of CRAM-MD5 (RFC 2195), which both ends compute.
from __future__ import annotations

import hmac


def cram_md5_digest(password: str, challenge: bytes) -> bytes:
    """The 32 lower-case hexadecimal digits of RFC 2195 section 2, which knows no preparation of passwords."""
    return hmac.digest(password.encode("utf-8", "surrogatepass"), challenge, "md5").hex().encode("ascii")
