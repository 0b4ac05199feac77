# A private Haraka: it takes mail for here.test into a mailbox, and relays ours.test, auth.test and lmtp.test to us.
from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from peer_daemons import PEERS, missing, open_directory, open_ports, running, tool
from peer_mail import Mailbox
from peer_servers import Peer, TLSFiles

_PACKAGE = PEERS / "node_modules" / "Haraka"
_FOLDER = Path(__file__).parent / "haraka"

_FILES = {
    "me": "haraka.test\n",
    "plugins": "tls\nauth/flat_file\npeer\n",
    "auth_flat_file.ini": "[core]\nmethods=PLAIN,LOGIN,CRAM-MD5\n[users]\nme=secret\n",
    "outbound.ini": "local_mx_ok=true\nalways_split=false\n",
    "log.ini": "[main]\nlevel=notice\n",
    # Without any of these sections Haraka fails at the first connection.
    "connection.ini": (
        "[main]\n[haproxy]\n[headers]\nmax_lines=1000\nmax_received=100\n[uuid]\nbanner_chars=6\n"
        "[max]\nbytes=40000000\nmime_parts=1000\nline_length=512\ndata_line_length=1000000\n"
        "[message]\nhelo=Haraka is at your service.\nclose=closing connection.\n"
    ),
}


@contextlib.contextmanager
def open_haraka(tls: TLSFiles) -> Iterator[Peer]:
    """Run Haraka until the end of the block."""
    node = tool("node")
    if not _PACKAGE.exists():
        missing("Haraka is not installed")
    with open_directory("haraka") as directory, open_ports(2) as (port, relay):
        for name in ("config", "plugins", "queue", "mailbox/new", "mailbox/tmp"):
            (directory / name).mkdir(parents=True)
        config = directory / "config"
        for name, text in _FILES.items():
            (config / name).write_text(text)
        (config / "smtp.ini").write_text(f"listen=127.0.0.1:{port}\nnodes=0\n")
        (config / "peer.json").write_text(json.dumps({"mailbox": str(directory / "mailbox"), "relay": relay}))
        shutil.copy(_FOLDER / "peer.js", directory / "plugins")
        shutil.copy(_FOLDER / "dhparams.pem", config)  # RFC 7919's ffdhe2048; else it looks for a prime of its own
        shutil.copy(tls.certificate, config / "tls_cert.pem")
        shutil.copy(tls.key, config / "tls_key.pem")
        with running([node, _PACKAGE / "bin" / "haraka", "-c", directory], directory, [port]):
            yield Peer(port, relay, Mailbox(directory / "mailbox"))


def haraka_version() -> str:
    """As its package says it."""
    if not _PACKAGE.exists():
        missing("Haraka is not installed")
    return str(json.loads((_PACKAGE / "package.json").read_text())["version"])
