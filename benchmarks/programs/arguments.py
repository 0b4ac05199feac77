# The arguments of every server program: where to listen and how to use TLS.
from __future__ import annotations

import argparse
import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class Listening:
    """A server program's arguments."""

    port: int
    tls: str  # "none", "starttls" or "implicit"
    variant: str
    context: ssl.SSLContext | None


def listening() -> Listening:
    """Parse the command line: ``PORT [--tls starttls|implicit --certificate FILE] [--variant WORD]``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--tls", choices=["none", "starttls", "implicit"], default="none")
    parser.add_argument("--certificate", help="a PEM file with the key and the certificate")
    parser.add_argument("--variant", default="")
    options = parser.parse_args()
    context = None
    if options.tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
    return Listening(options.port, options.tls, options.variant, context)
