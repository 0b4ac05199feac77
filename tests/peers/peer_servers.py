# What the tests know of any server: where it listens, to which port of ours it sends, where its mailbox is.
from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from peer_mail import Mailbox


@dataclass(frozen=True)
class TLSFiles:
    """A certificate for servers, and what clients trust."""

    certificate: Path
    key: Path
    authority: Path

    def client_context(self) -> ssl.SSLContext:
        """A context that trusts nothing else."""
        return ssl.create_default_context(cafile=self.authority)


def write_certificate(directory: Path) -> TLSFiles:
    """Make a certificate for localhost. Servers read the key as users of their own."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = TLSFiles(directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    for number, pem in enumerate(issued.cert_chain_pems):
        pem.write_to_path(str(files.certificate), append=number > 0)
    issued.private_key_pem.write_to_path(str(files.key))
    authority.cert_pem.write_to_path(str(files.authority))
    files.key.chmod(0o644)
    return files


@dataclass(frozen=True)
class Peer:
    """A running server.

    Attributes:
        port: where it takes mail.
        relay: the port of 127.0.0.1 to which it sends mail for ours.test, auth.test and lmtp.test.
        mailbox: where mail for here.test goes; a server without one only relays.
        lmtp: it speaks LMTP on its port.
        auth: it takes mail only after a login.
        proxy: it hands on what it gets, below a PROXY header.
        flush: a command that makes it try again what it could not deliver.
    """

    port: int
    relay: int
    mailbox: Mailbox | None = None
    lmtp: bool = False
    auth: bool = False
    proxy: bool = False
    flush: list[str] = field(default_factory=list)
