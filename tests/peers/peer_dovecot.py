# A private Dovecot: LMTP into mailboxes, submission that relays to us, and the passwords of Postfix.
from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from peer_daemons import missing, need_root, open_directory, open_ports, output, running, tool
from peer_mail import Mailbox
from peer_servers import Peer, TLSFiles

_CONFIGURATION = """
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {directory}/log
protocols = {protocols}
listen = 127.0.0.1
ssl = yes
ssl_cert = <{tls.certificate}
ssl_key = <{tls.key}
mail_location = maildir:{directory}/mail/%Lu
first_valid_uid = 1
auth_mechanisms = plain login scram-sha-256
disable_plaintext_auth = no
auth_failure_delay = 0
hostname = dovecot.test
recipient_delimiter =
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={directory}/mail/%Lu allow_all_users=yes
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth}
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {submission}
  }}
  inet_listener submissions {{
    port = 0
  }}
}}
lmtp_user_concurrency_limit = 0
submission_max_mail_size = 40M
submission_relay_host = 127.0.0.1
submission_relay_port = {relay}
submission_relay_ssl = {relay_ssl}
submission_relay_ssl_verify = no
{login}
"""


@dataclass(frozen=True)
class Dovecot:
    """Its two servers, and the port on which it answers for passwords."""

    lmtp: Peer
    submission: Peer
    auth_port: int


@contextlib.contextmanager
def open_dovecot(tls: TLSFiles, *, relay_tls: bool = False, relay_auth: bool = False) -> Iterator[Dovecot]:
    """Run Dovecot until the end of the block.

    Args:
        tls: its certificate.
        relay_tls: it says STARTTLS to us.
        relay_auth: it logs in with us.
    """
    need_root()
    dovecot = tool("dovecot")
    for protocol in ("lmtp", "submission"):
        if not shutil.which(f"/usr/lib/dovecot/{protocol}"):
            missing(f"dovecot-{protocol}d is not installed")
    with open_directory("dovecot") as directory, open_ports(4) as (auth, lmtp, submission, relay):
        (directory / "mail").mkdir()
        shutil.chown(directory / "mail", "nobody", "nogroup")
        (directory / "mail" / "bad@here.test").mkdir(mode=0o700)  # of root: this user's mail cannot be stored
        configuration = directory / "dovecot.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                protocols="lmtp submission",
                tls=tls,
                auth=auth,
                lmtp=lmtp,
                submission=submission,
                relay=relay,
                relay_ssl="starttls" if relay_tls else "no",
                login="submission_relay_user = me\nsubmission_relay_password = secret" if relay_auth else "",
            )
        )
        with running([dovecot, "-F", "-c", configuration], directory, [auth, lmtp, submission]):
            mailbox = Mailbox(directory / "mail", each=True)
            yield Dovecot(
                Peer(lmtp, 0, mailbox, lmtp=True),
                Peer(submission, relay, auth=True),
                auth,
            )


def dovecot_version() -> str:
    """As the program says it."""
    return output(tool("dovecot"), "--version").split()[0]
