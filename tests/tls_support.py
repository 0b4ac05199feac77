# Certificates for tests, of the testing kit: one throw-away authority per run, made only when a test wants it.
from __future__ import annotations

import functools
import ssl

import trustme

from trio_smtp.testing import Certificates, make_certificates

NAME = "mx.test"


@functools.cache
def certificates() -> Certificates:
    return make_certificates(NAME)


def authority() -> trustme.CA:
    return certificates().authority


def server_context(*, verify_clients: bool = False) -> ssl.SSLContext:
    return certificates().server_context(verify_clients=verify_clients)


def client_context(*identities: str) -> ssl.SSLContext:
    return certificates().client_context(*identities)
