# The servers that are compared: their command lines and features.
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from .environment import Environment, tool

TLS = ("starttls", "implicit")


@dataclass(frozen=True)
class Server:
    """One contender.

    Attributes:
        name: its name in the report.
        command: makes the command line from the environment, the port and the kind of TLS.
        tls: the kinds of TLS that it supports.
        needs: packages and programs that it requires.
    """

    name: str
    command: Callable[[Environment, int, str], list[str]]
    tls: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=())

    def why_not(self, environment: Environment, tls: str) -> str | None:
        """Why it cannot take part; ``None`` if it can."""
        if tls != "none" and tls not in self.tls:
            return f"no {tls} TLS"
        return next(
            (f"{name}: {environment.missing[name]}" for name in self.needs if name in environment.missing), None
        )


def _python(program: str, variant: str = "") -> Callable[[Environment, int, str], list[str]]:
    def command(environment: Environment, port: int, tls: str) -> list[str]:
        arguments = ["--tls", tls, "--certificate", environment.certificate, "--variant", variant]
        return environment.python_program(program, port, *arguments)

    return command


def _node(program: str) -> Callable[[Environment, int, str], list[str]]:
    def command(environment: Environment, port: int, tls: str) -> list[str]:
        return environment.node_program(program, port, tls, environment.certificate)

    return command


def _smtp_sink(environment: Environment, port: int, tls: str) -> list[str]:
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [tool("smtp-sink") or "smtp-sink", *user, "-m", "15000", f"127.0.0.1:{port}", "4096"]


OURS = "trio_smtp"
FLOOR = "floor: SocketStream"  # over TLS: SSLStream
SERVERS = (
    Server(OURS, _python("serve_trio_smtp"), TLS),
    Server(FLOOR, _python("serve_floor"), TLS),
    Server("floor: descriptor", _python("serve_floor", "descriptor")),
    Server("aiosmtpd", _python("serve_aiosmtpd"), TLS, ("aiosmtpd",)),
    Server("aiosmtpd, uvloop", _python("serve_aiosmtpd", "uvloop"), TLS, ("aiosmtpd", "uvloop")),
    Server("smtp-server", _node("serve_smtp_server.cjs"), TLS, ("smtp-server",)),
    Server("simplesmtp", _node("serve_simplesmtp.cjs"), (), ("simplesmtp",)),
    Server("smtp-sink", _smtp_sink, (), ("smtp-sink",)),
)
