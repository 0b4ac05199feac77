"""A small SMTP server at the other end of memory streams, which counts what it has accepted for each recipient.

It speaks through the testing kit's scripted peer, and uses nothing else of the library: SCRAM is written out here.
Recipients tell it what to do with them: ``no…`` is refused, ``full…`` is refused at the end of the message by LMTP.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass

import trio
from tls_support import certificates

from trio_smtp.testing import ScriptedPeer

USER, PASSWORD = "me", "secret"
_SALT, _ITERATIONS, _NONCE = b"0123456789abcdef", 4096, "server"


@dataclass(frozen=True)
class Manner:
    """What a server offers and how it behaves."""

    offers: tuple[str, ...] = ("PIPELINING",)
    tls: str = "none"
    auth: str = ""
    lmtp: bool = False
    most_recipients: int = 1000


class Ledger:
    """What all servers of a run have accepted: (text, recipient), counted."""

    def __init__(self) -> None:
        self.accepted: Counter[tuple[bytes, str]] = Counter()
        self.order: list[bytes] = []
        self.mails: Counter[int] = Counter()  # MAIL commands by connection

    def enter(self, text: bytes, recipients: list[str]) -> None:
        self.order.append(text)
        self.accepted.update((text, recipient) for recipient in recipients)

    def who_has(self, text: bytes) -> set[str]:
        return {recipient for own, recipient in self.accepted if own == text}


@functools.cache
def _salted() -> bytes:
    return hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), _SALT, _ITERATIONS)


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, "sha256").digest()


class Session:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream, number: int, manner: Manner, ledger: Ledger) -> None:
        self.peer = ScriptedPeer(stream, certificates=certificates())
        self.number = number
        self.manner = manner
        self.ledger = ledger
        self.recipients: list[str] = []
        self.text = b""

    async def run(self) -> None:
        try:
            if self.manner.tls == "implicit":
                await self.peer.start_tls()
            await self.peer.say("220 mail.test ESMTP")
            while await self.command(await self.peer.line()):
                pass
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def command(self, line: str) -> bool:
        verb, _, rest = line.partition(" ")
        match verb:
            case "EHLO" | "LHLO":
                under_tls = isinstance(self.peer.stream, trio.SSLStream)
                offers = list(self.manner.offers)
                if self.manner.tls == "starttls" and not under_tls:
                    offers.append("STARTTLS")
                elif self.manner.auth:
                    offers.append(f"AUTH {self.manner.auth}")
                await self.peer.offer(*offers)
            case "STARTTLS":
                await self.peer.say("220 go")
                await self.peer.start_tls()
            case "AUTH":
                await self.log_in(*rest.split(" "))
            case "MAIL":
                self.ledger.mails[self.number] += 1
                self.recipients, self.text = [], b""
                await self.peer.say("250 ok")
            case "RCPT":
                recipient = rest[rest.index("<") + 1 : rest.index(">")]
                if recipient.startswith("no"):
                    await self.peer.say("550 5.1.1 no such user")
                elif len(self.recipients) == self.manner.most_recipients:
                    await self.peer.say("452 4.5.3 too many recipients")
                else:
                    self.recipients.append(recipient)
                    await self.peer.say("250 ok")
            case "DATA" if self.recipients:
                await self.peer.say("354 go")
                text = (b"\r\n" + await self.peer.text()).replace(b"\r\n..", b"\r\n.")
                await self.accept(text[2:])
            case "BDAT":
                size, _, last = rest.partition(" ")
                self.text += await self.peer.octets(int(size))
                if not self.recipients:
                    await self.peer.say("503 nobody")
                elif last:
                    await self.accept(self.text)
                else:
                    await self.peer.say("250 chunk")
            case "DATA":
                await self.peer.say("503 nobody")
            case "QUIT":
                await self.peer.say("221 bye")
                return False
            case "RSET" | "NOOP":
                await self.peer.say("250 ok")
            case _:
                raise AssertionError(f"the server does not know {line!r}")
        return True

    async def accept(self, text: bytes) -> None:
        """Accepted when it is written down, which is before anybody can hear of it."""
        recipients, self.recipients = self.recipients, []
        if not self.manner.lmtp:
            self.ledger.enter(text, recipients)
            await self.peer.say("250 accepted")
            return
        self.ledger.enter(text, [recipient for recipient in recipients if not recipient.startswith("full")])
        for recipient in recipients:
            await self.peer.say("452 4.2.2 full" if recipient.startswith("full") else "250 accepted")

    async def log_in(self, mechanism: str, initial: str) -> None:
        first = base64.b64decode(initial).decode()
        if mechanism == "PLAIN":
            assert first == f"\0{USER}\0{PASSWORD}"
        else:
            assert mechanism == "SCRAM-SHA-256"
            bare = first.removeprefix("n,,")
            nonce = bare.partition(",r=")[2] + _NONCE
            challenge = f"r={nonce},s={base64.b64encode(_SALT).decode()},i={_ITERATIONS}"
            final = (await self.ask(challenge)).decode()
            without_proof, _, proof = final.rpartition(",p=")
            signed = f"{bare},{challenge},{without_proof}".encode()
            key = _mac(_salted(), b"Client Key")
            mask = _mac(hashlib.sha256(key).digest(), signed)
            assert base64.b64decode(proof) == bytes(a ^ b for a, b in zip(key, mask, strict=True))
            signature = _mac(_mac(_salted(), b"Server Key"), signed)
            assert await self.ask(f"v={base64.b64encode(signature).decode()}") == b""
        await self.peer.say("235 welcome")

    async def ask(self, challenge: str) -> bytes:
        await self.peer.say(f"334 {base64.b64encode(challenge.encode()).decode()}")
        return base64.b64decode(await self.peer.line())
