# A private Postfix, with its own configuration, queue and port in a temporary directory. It discards every message.
#
# Postfix must be started by root and manages its own processes. `postfix stop` ends the master of this configuration
# directory, and the master ends its children. A Postfix of the system is not touched.
from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .environment import tool
from .process import BenchmarkError, free_port, greets

_MAIN = """
compatibility_level = 3.6
queue_directory = {home}/spool
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.test.example
mydestination = test.example
mynetworks = 127.0.0.2/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file_prefixes = {home}
maillog_file = {home}/maillog
alias_maps =
alias_database =
local_recipient_maps =
local_transport = discard:
default_transport = discard:
smtpd_relay_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
message_size_limit = 0
mailbox_size_limit = 0
in_flow_delay = 0
"""
_MASTER = """
127.0.0.1:{port} inet n - n - 100 smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
"""
_START_LIMIT = 20.0  # seconds
_COMMAND_LIMIT = 60.0


def why_not() -> str | None:
    """Why it cannot run here; ``None`` if it can."""
    if tool("postfix") is None or not Path("/usr/lib/postfix/sbin/smtpd").exists():
        return "Postfix is not installed"
    return None if os.geteuid() == 0 else "Postfix must be started by root"


@contextmanager
def private_postfix() -> Iterator[int]:
    """Run a private Postfix; the block's value is its port."""
    memory = Path("/dev/shm")  # avoids waiting for a disk
    home = Path(tempfile.mkdtemp(prefix="trio-smtp-postfix-", dir=memory if memory.is_dir() else None))
    port = free_port()
    try:
        home.chmod(0o755)
        for name in ("etc", "spool", "data"):
            (home / name).mkdir()
        shutil.chown(home / "data", "postfix")
        (home / "etc" / "main.cf").write_text(_MAIN.format(home=home), encoding="ascii")
        (home / "etc" / "master.cf").write_text(_MASTER.format(port=port), encoding="ascii")
        _postfix(home, "start")
        try:
            _wait(port, home)
            yield port
        finally:
            _postfix(home, "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _postfix(home: Path, command: str) -> None:
    argv = [tool("postfix") or "postfix", "-c", str(home / "etc"), command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_LIMIT, check=False)
    if done.returncode:
        raise BenchmarkError(f"postfix {command}: {(done.stderr or done.stdout).strip()[-300:]}")


def _wait(port: int, home: Path) -> None:
    end = time.monotonic() + _START_LIMIT
    while not greets("127.0.0.1", port):
        if time.monotonic() > end:
            log = home / "maillog"
            raise BenchmarkError("Postfix does not listen: " + (log.read_text("utf-8")[-300:] if log.exists() else ""))
        time.sleep(0.1)
