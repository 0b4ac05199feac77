# A private HAProxy before our server: PROXY protocol of both versions, and health checks.
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from peer_daemons import open_directory, open_ports, output, running, tool

_CONFIGURATION = """
global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 0
listen v1
  bind 127.0.0.1:{v1}
  server ours 127.0.0.1:{relay} send-proxy
listen v2
  bind 127.0.0.1:{v2}
  server ours 127.0.0.1:{relay} send-proxy-v2
listen both
  bind 127.0.0.1:{told} accept-proxy
  server ours 127.0.0.1:{relay} send-proxy-v2
listen checked
  bind 127.0.0.1:{checked}
  option smtpchk EHLO check.test
  server ours 127.0.0.1:{relay} send-proxy-v2 check inter 100ms fall 1 rise 2
"""


@dataclass(frozen=True)
class HAProxy:
    """Ports, all of which lead to ours.

    Attributes:
        relay: ours.
        v1: it says who the client is with a header of version 1.
        v2: of version 2.
        told: it reads a header itself, and hands on what that says.
        checked: it is open while our server answers its checks.
    """

    relay: int
    v1: int
    v2: int
    told: int
    checked: int


@contextlib.contextmanager
def open_haproxy() -> Iterator[HAProxy]:
    """Run HAProxy until the end of the block."""
    haproxy = tool("haproxy")
    with open_directory("haproxy") as directory, open_ports(5) as ports:
        names = ("relay", "v1", "v2", "told", "checked")
        settings = dict(zip(names, ports, strict=True))
        configuration = directory / "haproxy.cfg"
        configuration.write_text(_CONFIGURATION.format(**settings))
        with running([haproxy, "-db", "-f", configuration], directory, [settings["checked"]]):
            yield HAProxy(**settings)


def haproxy_version() -> str:
    """As the program says it."""
    return str(re.findall(r"HAProxy version ([\d.]+)", output(tool("haproxy"), "-v"))[0])
