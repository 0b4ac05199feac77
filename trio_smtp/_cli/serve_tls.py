# TLS of `trio-smtp serve`: its options, and the context that they ask for.
from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import click

from .certificates import load_certificate, make_certificate
from .errors import CommandError, Status, reason


@dataclass(frozen=True, kw_only=True)
class TLSOptions:
    """TLS, and where its certificate comes from: the fields are named as the options are."""

    tls_cert: str | None
    tls_key: str | None
    tls_self_signed: bool
    tls_cert_out: str | None
    implicit_tls: bool
    require_tls: bool

    @property
    def wanted(self) -> bool:
        """There is TLS."""
        return bool(self.tls_cert or self.tls_self_signed)

    @property
    def kind(self) -> str:
        """As a client's option says it."""
        return "implicit" if self.implicit_tls else "starttls" if self.wanted else "none"

    @property
    def certificate(self) -> tuple[str, str | None] | None:
        """The files of certificate and key, where there are some."""
        return None if self.tls_cert is None else (self.tls_cert, self.tls_key)

    def check(self) -> None:
        """Check that there is TLS where it is to be used."""
        if (self.implicit_tls or self.require_tls) and not self.wanted:
            raise click.UsageError("--implicit-tls and --require-tls need --tls-cert or --tls-self-signed.")

    def open(self, names: list[str]) -> tuple[ssl.SSLContext | None, str]:
        """The context for a server of these names, and that in words."""
        kind = "TLS" if self.implicit_tls else "STARTTLS"
        if self.tls_cert and self.tls_self_signed:
            raise click.UsageError("--tls-cert and --tls-self-signed exclude each other.")
        if self.tls_key and not self.tls_cert:
            raise click.UsageError("--tls-key needs --tls-cert.")
        if self.tls_cert_out and not self.tls_self_signed:
            raise click.UsageError("--tls-cert-out needs --tls-self-signed.")
        if self.tls_cert:
            return _load_certificate(self.tls_cert, self.tls_key), kind
        if not self.tls_self_signed:
            return None, "no TLS"
        certificate = make_certificate(names)
        if self.tls_cert_out:
            try:
                Path(self.tls_cert_out).write_text(certificate.pem, encoding="ascii")
            except OSError as exc:
                raise CommandError(f"cannot write {self.tls_cert_out}: {exc.strerror}", Status.SYSTEM) from exc
        return certificate.server_context, f"{kind} with a throw-away certificate"


def _load_certificate(certificate: str, key: str | None) -> ssl.SSLContext:
    try:
        return load_certificate(certificate, key)
    except (OSError, ValueError) as exc:
        files = certificate if key is None else f"{certificate} and {key}"
        raise CommandError(f"cannot use {files} for TLS: {reason(exc)}", Status.NO_INPUT) from exc
