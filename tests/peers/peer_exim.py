# A private Exim: it takes mail for here.test into a mailbox, and relays ours.test, auth.test and lmtp.test to us.
from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator

from peer_daemons import PEERS, need_root, open_directory, open_ports, output, running, tool
from peer_mail import Mailbox
from peer_servers import Peer, TLSFiles

_CONFIGURATION = """
exim_path = {program}
exim_user = nobody
exim_group = nogroup
never_users = daemon
deliver_drop_privilege = true
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/spool/exim.pid
primary_hostname = exim.test
domainlist local_domains = here.test
domainlist relay_domains = ours.test : auth.test : lmtp.test : back.test
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
disable_ipv6 = true
message_size_limit = 40M
smtp_accept_max = 0
smtp_accept_max_per_connection = {max_messages}
smtp_accept_queue_per_connection = 0
tls_advertise_hosts = *
tls_certificate = {tls.certificate}
tls_privatekey = {tls.key}
dsn_advertise_hosts = *
acl_smtp_rcpt = rcpt
acl_smtp_data = data
chunking_advertise_hosts = {chunking}
begin acl
rcpt:
  deny local_parts = bad
       domains = here.test
       message = no such user
  accept domains = +local_domains : +relay_domains
  deny message = relay not permitted
data:
  accept
begin routers
ours:
  driver = manualroute
  domains = !+local_domains
  transport = ${{if eq{{$domain}}{{lmtp.test}}{{lmtp}}{{smtp}}}}
  route_list = * 127.0.0.1
  self = send
local:
  driver = accept
  transport = mailbox
begin transports
mailbox:
  driver = appendfile
  directory = {directory}/mailbox
  maildir_format = true
  batch_max = 1000
  envelope_to_add = true
  return_path_add = true
smtp:
  driver = smtp
  port = {relay}
  allow_localhost = true
  message_linelength_limit = 1000000
  hosts_try_auth = *
  tls_tempfail_tryclear = false
lmtp:
  driver = smtp
  protocol = lmtp
  port = {relay}
  allow_localhost = true
  message_linelength_limit = 1000000
begin retry
* * F,2h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{me}}}}{{eq{{$auth3}}{{secret}}}}}}}}
  server_set_id = $auth2
  client_send = ^me^secret
"""


def exim_program() -> str:
    """The program, unpacked beside Postfix or installed."""
    need_root()
    return tool("exim4", "exim", PEERS / "exim/usr/sbin/exim4")


@contextlib.contextmanager
def open_exim(tls: TLSFiles, *, max_messages: int = 1000, chunking: bool = True) -> Iterator[Peer]:
    """Run Exim until the end of the block.

    Args:
        tls: its certificate.
        max_messages: on one connection; MAIL for the next one gets 421.
        chunking: offer CHUNKING.
    """
    program = exim_program()
    with open_directory("exim") as directory, open_ports(2) as (port, relay):
        for name in ("spool", "log", "mailbox"):
            (directory / name).mkdir()
            shutil.chown(directory / name, "nobody", "nogroup")
        configuration = directory / "exim.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                program=program,
                directory=directory,
                port=port,
                relay=relay,
                tls=tls,
                max_messages=max_messages,
                chunking="*" if chunking else "",
            )
        )
        flush = [program, "-C", configuration, "-qqff"]
        with running([program, "-C", configuration, "-bdf", "-oX", str(port)], directory, [port]):
            yield Peer(port, relay, Mailbox(directory / "mailbox"), flush=[str(part) for part in flush])


def exim_version() -> str:
    """As the program says it."""
    return str(re.findall(r"Exim version (\S+)", output(exim_program(), "-C", "/dev/null", "-bV"))[0])
