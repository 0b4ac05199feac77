# The clients that are compared: their command lines and features.
from __future__ import annotations

from dataclasses import dataclass

from .environment import Environment


@dataclass(frozen=True)
class Client:
    """One contender.

    Attributes:
        name: its name in the report.
        program: its program in programs/.
        variant: of the program.
        needs: packages that it requires.
        one_connection: it uses one connection only.
        streams: it can send a message without holding all of it.
        bdat: it sends by BDAT only.
        depth: messages in flight on one connection.
    """

    name: str
    program: str
    variant: str = ""
    needs: tuple[str, ...] = ()
    one_connection: bool = False
    streams: bool = False
    bdat: bool = False
    depth: int = 1

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot take part; ``None`` if it can."""
        return next(
            (f"{name}: {environment.missing[name]}" for name in self.needs if name in environment.missing), None
        )

    def command(self, environment: Environment, port: int, options: dict[str, int]) -> list[str]:
        """The command line, with the options of programs/sending.py."""
        if self.program.endswith(".cjs"):
            return environment.node_client(self.program, port, options)
        words: list[object] = [port, "--variant", self.variant, "--depth", self.depth]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            if name in ("streamed", "prose"):
                words += [flag] * value
            else:
                words += [flag, value]
        return environment.python_program(self.program, *words)


OUR_CLIENT = "trio_smtp client"
OUR_POOL = "trio_smtp pool"
OUR_DEPTH = "trio_smtp pool, depth 4"
LOCK_STEP = "floor: lock-step"
PIPELINED = "floor: pipelined"
BDAT = "floor: BDAT"
CLIENTS = (
    Client(OUR_POOL, "send_trio_smtp", "pool", streams=True),
    Client("trio_smtp send_many", "send_trio_smtp", "bulk"),
    Client(OUR_DEPTH, "send_trio_smtp", "pool", depth=4),
    Client(OUR_CLIENT, "send_trio_smtp", "client", one_connection=True, streams=True),
    Client(LOCK_STEP, "send_floor", "lock-step"),
    Client(PIPELINED, "send_floor", "pipelined", streams=True),
    Client(BDAT, "send_floor", "bdat", bdat=True),
    Client("aiosmtplib", "send_aiosmtplib", needs=("aiosmtplib",)),
    Client("smtplib", "send_smtplib", "threads"),
    Client("smtplib, in turn", "send_smtplib", "in turn"),
    Client("smtpproto", "send_smtpproto", needs=("smtpproto",)),
    Client("nodemailer pool", "send_nodemailer.cjs", needs=("nodemailer",), streams=True),
)
