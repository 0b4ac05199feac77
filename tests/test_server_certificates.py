"""The identity in a client's certificate: a mailbox before a name, and nothing from one that was not verified."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from trio_smtp import TLSInfo
from trio_smtp._server.certificates import certificate_identity

NAMES = (("DNS", "mx.test"), ("email", "me@example.com"), ("email", "other@example.com"))
SUBJECT = ((("commonName", "general"),), (("organizationName", "x"),), (("commonName", "special"),))


def info(certificate: dict[str, Any] | None, *, verified: bool = True) -> TLSInfo:
    return cast("TLSInfo", SimpleNamespace(peer_certificate=certificate, verified=verified))


@pytest.mark.parametrize(
    ("certificate", "identity"),
    [
        ({"subjectAltName": NAMES, "subject": SUBJECT}, "me@example.com"),
        ({"subjectAltName": NAMES[:1], "subject": SUBJECT}, "special"),
        ({"subject": ((("commonName", "a\nb"),),)}, None),
        ({"subject": ((("commonName", ""),),)}, None),
        ({}, None),
        (None, None),
    ],
)
def test_identity(certificate: dict[str, Any] | None, identity: str | None) -> None:
    assert certificate_identity(info(certificate)) == identity


def test_a_certificate_that_was_not_verified_has_none() -> None:
    assert certificate_identity(info({"subjectAltName": NAMES}, verified=False)) is None
