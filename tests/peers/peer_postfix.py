# A private Postfix: it takes mail for here.test into a mailbox, and relays ours.test, auth.test and lmtp.test to us.
#
# It checks passwords by asking a Dovecot.
from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from peer_daemons import need_root, open_directory, open_ports, output, running, tool
from peer_mail import Mailbox
from peer_servers import Peer, TLSFiles

# What each private Postfix has: its own directory, loopback, and a mailbox for here.test.
_BASE = """
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file_prefixes = {directory}
maillog_file = {directory}/log
alias_maps =
alias_database =
message_size_limit = 40000000
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ bad@here.test = 550 5.1.1 no such user }} }}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
virtual_mailbox_domains = here.test
virtual_mailbox_maps = static:mailbox/
virtual_mailbox_base = {directory}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
virtual_destination_concurrency_limit = 10
smtp_line_length_limit = 0
"""
_MAIN = """
mynetworks = 127.0.0.2/32
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_cert_file = {tls.certificate}
smtpd_tls_key_file = {tls.key}
smtpd_tls_security_level = may
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth_port}
smtpd_sasl_security_options = noanonymous

relay_domains = ours.test auth.test lmtp.test back.test
relay_transport = smtp:[127.0.0.1]:{relay}
transport_maps = inline:{{ lmtp.test=lmtp:inet:127.0.0.1:{relay} }}
default_transport = smtp:[127.0.0.1]:{relay}
default_destination_recipient_limit = 1000
smtp_destination_concurrency_limit = 1
smtp_connection_cache_destinations = 127.0.0.1
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{{ [127.0.0.1]:{relay}=me:secret }}
smtp_sasl_security_options =
smtp_tls_security_level = may
"""

_MASTER = """
127.0.0.1:{port} inet n - n - 20 smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
virtual unix - n n - - virtual
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
scache unix - - n - 1 scache
"""


@contextlib.contextmanager
def running_postfix(
    directory: Path, main: str, services: str, ports: Sequence[int], **settings: object
) -> Iterator[Mailbox]:
    """Run a private Postfix until the end of the block.

    Args:
        directory: an empty one.
        main: lines of main.cf beside those that each has.
        services: lines of master.cf beside those that each has.
        ports: where it listens; the first is for mail.
        settings: what is filled in.
    """
    postfix = tool("postfix")
    import pwd

    owner = pwd.getpwnam("postfix")
    for name in ("etc", "spool", "data", "mailbox"):
        (directory / name).mkdir()
    for name in ("data", "mailbox"):
        shutil.chown(directory / name, owner.pw_uid, owner.pw_gid)
    settings |= {"directory": directory, "port": ports[0], "uid": owner.pw_uid, "gid": owner.pw_gid}
    etc = directory / "etc"
    (etc / "main.cf").write_text((_BASE + main).format(**settings))
    (etc / "master.cf").write_text((_MASTER + services).format(**settings))
    output(postfix, "-c", etc, "check")
    with running(["/usr/lib/postfix/sbin/master", "-d", "-c", etc], directory, list(ports)):
        yield Mailbox(directory / "mailbox")


@contextlib.contextmanager
def open_postfix(tls: TLSFiles, auth_port: int) -> Iterator[Peer]:
    """Run Postfix until the end of the block."""
    need_root()
    with (
        open_directory("postfix") as directory,
        open_ports(2) as (port, relay),
        running_postfix(directory, _MAIN, "", [port], relay=relay, auth_port=auth_port, tls=tls) as mailbox,
    ):
        yield Peer(port, relay, mailbox)


def postfix_version() -> str:
    """As the program says it."""
    return output(tool("postconf"), "-d", "-h", "mail_version").strip()
