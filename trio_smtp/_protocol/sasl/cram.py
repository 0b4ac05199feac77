# The formula of CRAM-MD5 (RFC 2195), which both ends compute.
from __future__ import annotations

import hmac


def cram_md5_digest(password: str, challenge: bytes) -> bytes:
    """The digest as 32 lower-case hexadecimal digits (RFC 2195 section 2). The password is not prepared."""
    return hmac.digest(password.encode("utf-8", "surrogatepass"), challenge, "md5").hex().encode("ascii")
