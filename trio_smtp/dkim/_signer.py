# DKIM signatures (RFC 6376) by dkimpy, with RSA or Ed25519 (RFC 8463); keys are read by cryptography.
#
# Guarantees: the key, the names and the identity are checked when a signer is made, so that what can go wrong with a
# message is the message's fault. From is signed once more than it is there, so that no other can be put above it
# (RFC 6376 section 8.15). A signer never changes, and may be used in several threads.
from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import dkim
import idna
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from trio_smtp import Delivery, LocalProtocolError

# RFC 6376 §5.4.1, and what unsubscribing by one click wants signed (RFC 8058 §4).
DEFAULT_HEADERS: Final[tuple[str, ...]] = (
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
)
"""The header fields that :class:`Signer` signs if it is not told which (RFC 6376 section 5.4.1)."""
_NEVER: Final = ("return-path", "received", "comments", "keywords", "bcc", "resent-bcc", "dkim-signature")
_LEAST_BITS: Final = 1024  # of an RSA key: verifiers must not take fewer (RFC 8301 §3.2)
_TOKEN: Final = 53  # octets of a name that dkimpy does not fold in the middle, where verifiers take that for a space
_RELAXED: Final = (b"relaxed", b"relaxed")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_FIELD_NAME: Final = re.compile(r"[!-9;-~]+").fullmatch
_LOCAL_PART: Final = re.compile(r"[!#-'*+\-./0-9?A-Z^-~]*").fullmatch  # what needs no quoting in a tag
# What dkimpy reads as a header section, and every verifier as the same.
_HEADER: Final = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+(?=\r\n|\Z)").match
_NAMES: Final = re.compile(rb"^([!-9;-~]+):", re.MULTILINE).findall


class Signer:
    """Signs messages for one domain, as ``sign=`` of :func:`trio_smtp.open_client` and :func:`trio_smtp.open_pool`.

    The signature is made with relaxed/relaxed canonicalization and has no ``l=`` and no ``x=``. The public key belongs
    into the DNS, at ``<selector>._domainkey.<domain>``.

    Args:
        domain: the signing domain (``d=``); one that is not ASCII is signed for by its A-labels (RFC 8616).
        selector: which of the domain's keys this is (``s=``).
        private_key: as PEM, not encrypted: RSA of 1024 bits or more, which gives ``rsa-sha256``, or Ed25519, which
            gives ``ed25519-sha256``. Never shown by ``repr``.
        headers: names of the fields to sign, where the message has them; by default :data:`DEFAULT_HEADERS`. Each field
            of a name is signed. From is signed in any case. From, and a name that is given twice, is signed once more
            than it is there, so that another field of it breaks the signature.
        identity: the agent or user on whose behalf it is signed (``i=``): an address in the domain or below it; by
            default ``@domain``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: one is not what it should be. The error never shows the key.
    """

    __slots__ = ("_algorithm", "_domain", "_headers", "_identity", "_key", "_make", "_selector")

    def __init__(
        self,
        domain: str,
        selector: str,
        private_key: bytes | str,
        *,
        headers: Iterable[str] | None = None,
        identity: str | None = None,
    ) -> None:
        self._domain: Final = _domain(domain)
        self._selector: Final = _selector(selector)
        self._algorithm, self._key = _read_key(private_key)
        self._headers: Final = _headers(DEFAULT_HEADERS if headers is None else headers)
        self._identity: Final = f"@{self._domain}" if identity is None else _identity(identity, self._domain)
        longest = max(map(len, (self._identity, self._selector, *self._headers)))
        self._make: Final = dkim.DKIM if longest <= _TOKEN else _Unfolded

    def __repr__(self) -> str:
        return f"<trio_smtp.dkim.Signer {self._selector}._domainkey.{self._domain}, {self._algorithm.decode()}>"

    def sign(self, message: bytes, /) -> bytes:
        """Make the DKIM-Signature field for a message.

        Args:
            message: all of it, with CR LF line ends.

        Returns:
            The field, folded, with its last CR LF.

        Raises:
            LocalProtocolError: the message has no From, or a header section that is not one. Its ``delivery`` is
                ``"not_sent"``.
        """
        if not isinstance(message, bytes):
            raise TypeError(f"the message must be bytes, not {type(message).__name__}")
        found = _HEADER(message)
        if found is None:
            raise _unsigned("its header section is not one of fields and their continuation lines")
        present = Counter(name.lower().decode("ascii") for name in _NAMES(found[0]))
        if "from" not in present:
            raise _unsigned("it has no From field, which must be signed (RFC 6376 section 5.4)")
        names: list[str] = []
        for name, more in self._headers.items():
            names += [name] * (present[name] + more)
        signing = self._make(message, signature_algorithm=self._algorithm)
        try:
            field: bytes = signing.sign(
                self._selector.encode(),
                self._domain.encode(),
                self._key,
                identity=self._identity.encode(),
                canonicalize=_RELAXED,
                include_headers=[name.encode() for name in names],
            )
        except dkim.DKIMException as exc:
            raise _unsigned(str(exc)) from exc
        return field


class _Unfolded(dkim.DKIM):  # type: ignore[misc]
    """Folds between tags only, as dkimpy's ARC headers can be. That writes names in lower case."""

    def gen_header(self, *args: Any, **options: Any) -> bytes:
        value: bytes = super().gen_header(*args, **{**options, "standardize": True})
        return value.replace(b"; ", b";\r\n ")


def _unsigned(why: str) -> LocalProtocolError:
    return LocalProtocolError(f"the message cannot be signed: {why}", delivery=Delivery.NOT_SENT)


def _domain(domain: str) -> str:
    if not isinstance(domain, str):
        raise TypeError(f"the domain must be a str, not {type(domain).__name__}")
    name = domain
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as exc:
            raise ValueError(f"{domain!r} is not a domain: {exc}") from None
    if not _NAME(name) or "." not in name or len(name) > 253:
        raise ValueError(f"{domain!r} is not a domain to sign for")
    return name.lower()


def _selector(selector: str) -> str:
    if not isinstance(selector, str):
        raise TypeError(f"the selector must be a str, not {type(selector).__name__}")
    if not _NAME(selector) or len(selector) > 253:
        raise ValueError(f"{selector!r} is not a selector")
    return selector


def _identity(identity: str, domain: str) -> str:
    if not isinstance(identity, str):
        raise TypeError(f"the identity must be a str or None, not {type(identity).__name__}")
    local_part, at, name = identity.rpartition("@")
    if not at or not _LOCAL_PART(local_part):
        raise ValueError(f"{identity!r} is not an identity: an ASCII address, with or without its local part")
    name = _domain(name)
    if name != domain and not name.endswith("." + domain):  # RFC 6376 §3.5
        raise ValueError(f"the identity {identity!r} is not in {domain}")
    if len(local_part) + len(name) >= _TOKEN and local_part != local_part.lower():
        raise ValueError(f"an identity of more than {_TOKEN} characters is in lower case, not {identity!r}")
    return f"{local_part}@{name}"


def _headers(names: Iterable[str]) -> dict[str, int]:
    """Names in lower case, with how many fields more than there are shall be signed."""
    if isinstance(names, str | bytes):
        raise TypeError("headers must be an iterable of names, not one name")
    if not isinstance(names, Iterable):
        raise TypeError(f"headers must be an iterable of names, not {names!r:.80}")
    found: dict[str, int] = {"from": 1}
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be a str, not {type(name).__name__}")
        lower = name.lower()
        if not _FIELD_NAME(name) or ";" in name:
            raise ValueError(f"{name!r} is not the name of a header field")
        if lower in _NEVER:
            raise ValueError(f"{name} must not be signed: it changes, or goes, on the way (RFC 6376 section 5.4)")
        found[lower] = 1 if lower in found else 0
    found["from"] = 1
    return found


def _read_key(private_key: bytes | str) -> tuple[bytes, bytes]:
    """The algorithm and the key, as dkimpy takes them."""
    if isinstance(private_key, str):
        private_key = private_key.encode("utf-8", "replace")
    if not isinstance(private_key, bytes):
        raise TypeError(f"the private key is PEM, as bytes or str, not {type(private_key).__name__}")
    if b"-----BEGIN" not in private_key:
        raise ValueError("the private key is not PEM: it is the text of the file, not its name")
    try:
        key = load_pem_private_key(private_key, password=None)
    except TypeError:
        raise ValueError("the private key is encrypted") from None
    except Exception:  # of many kinds, whose text may show more than is good
        raise ValueError("the private key cannot be read") from None
    if isinstance(key, RSAPrivateKey):
        if key.key_size < _LEAST_BITS:
            raise ValueError(f"an RSA key must have at least {_LEAST_BITS} bits (RFC 8301), not {key.key_size}")
        return b"rsa-sha256", key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    if isinstance(key, Ed25519PrivateKey):
        return b"ed25519-sha256", base64.b64encode(key.private_bytes_raw())
    raise ValueError("the private key is neither RSA nor Ed25519")
