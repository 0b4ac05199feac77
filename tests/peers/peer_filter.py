# A private Postfix with a content filter: smtpd → the filter → smtpd → a mailbox, as its FILTER_README has it.
from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from peer_daemons import need_root, open_directory, open_ports, output, running, tool
from peer_mail import Mailbox
from peer_postfix import MASTER

_MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
maillog_file_prefixes = {directory}
maillog_file = {directory}/log
alias_maps =
alias_database =
message_size_limit = 40000000
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ bad@here.test = 550 5.1.1 no such user }} }}
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
content_filter = smtp:[127.0.0.1]:{filter}
smtp_line_length_limit = 0
smtp_destination_concurrency_limit = 10
initial_destination_concurrency = 10
virtual_mailbox_domains = here.test
virtual_mailbox_maps = static:mailbox/
virtual_mailbox_base = {directory}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
virtual_destination_concurrency_limit = 10
"""
_BEHIND = """
127.0.0.1:{behind} inet n - n - 50 smtpd
  -o content_filter=
  -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
"""


@dataclass(frozen=True)
class Filtered:
    """A running Postfix.

    Attributes:
        port: where mail comes in.
        filter: where it wants its filter to listen.
        behind: where it takes mail back.
        mailbox: where mail for here.test arrives.
    """

    port: int
    filter: int
    behind: int
    mailbox: Mailbox


@contextlib.contextmanager
def open_filtered() -> Iterator[Filtered]:
    """Run it until the end of the block."""
    need_root()
    postfix = tool("postfix")
    with open_directory("filter") as directory, open_ports(3) as (port, filter_port, behind):
        import pwd

        owner = pwd.getpwnam("postfix")
        for name in ("etc", "spool", "data", "mailbox"):
            (directory / name).mkdir()
        for name in ("data", "mailbox"):
            shutil.chown(directory / name, owner.pw_uid, owner.pw_gid)
        settings = {"directory": directory, "port": port, "filter": filter_port, "behind": behind}
        etc = directory / "etc"
        (etc / "main.cf").write_text(_MAIN.format(uid=owner.pw_uid, gid=owner.pw_gid, **settings))
        (etc / "master.cf").write_text(MASTER.format(**settings) + _BEHIND.format(**settings))
        output(postfix, "-c", etc, "check")
        with running(["/usr/lib/postfix/sbin/master", "-d", "-c", etc], directory, [port, behind]):
            yield Filtered(port, filter_port, behind, Mailbox(directory / "mailbox"))
