# A private Postfix with a content filter: smtpd → the filter → smtpd → a mailbox, as its FILTER_README has it.
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from peer_daemons import need_root, open_directory, open_ports
from peer_mail import Mailbox
from peer_postfix import running_postfix

_MAIN = """
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
content_filter = smtp:[127.0.0.1]:{filter}
smtp_destination_concurrency_limit = 10
initial_destination_concurrency = 10
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
    with (
        open_directory("filter") as directory,
        open_ports(3) as (port, filter_port, behind),
        running_postfix(directory, _MAIN, _BEHIND, [port, behind], filter=filter_port, behind=behind) as mailbox,
    ):
        yield Filtered(port, filter_port, behind, mailbox)
