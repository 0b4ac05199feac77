"""Direct delivery: look up the recipient's MX records, try the hosts in order.

pip install trio-smtp dnspython
python direct_to_mx.py me@example.com you@example.org letter.eml
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.resolver
import trio

import trio_smtp


def mail_hosts(
    domain: str, resolver: dns.asyncresolver.Resolver
) -> Callable[[], Awaitable[list[str]]]:
    """What a pool asks for hosts each time it connects (RFC 5321 section 5.1)."""

    async def look_up() -> list[str]:
        try:
            answer = await resolver.resolve(domain, "MX")
        except dns.resolver.NoAnswer:
            return [domain]  # no MX: the domain itself
        except dns.exception.DNSException as exc:
            raise OSError(f"cannot look up the mail hosts of {domain}: {exc}") from exc
        hosts = [
            str(mx.exchange).rstrip(".")
            for mx in sorted(answer, key=lambda mx: mx.preference)
        ]
        if hosts == [""]:
            raise OSError(f"{domain} takes no mail")  # a null MX, RFC 7505
        return hosts

    return look_up


async def main(
    sender: str, recipient: str, content: bytes, port: int = 25
) -> trio_smtp.SendResult:
    domain = recipient.rpartition("@")[2]
    hosts = mail_hosts(domain, dns.asyncresolver.Resolver())
    async with trio_smtp.open_pool(
        hosts, port, tls="opportunistic", max_connections=1
    ) as pool:
        return await pool.send(sender, [recipient], content)


if __name__ == "__main__":
    print(trio.run(main, sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
