"""A submission server: TLS first, then a login, and mail from own addresses only.

python submission_server.py cert.pem key.pem             # ports 587 and 465
python submission_server.py cert.pem key.pem 2587 2465   # for a trial
"""

import hashlib
import hmac
import os
import ssl
import sys
from dataclasses import dataclass

import trio

import trio_smtp


@dataclass(frozen=True)
class User:
    salt: bytes
    hashed: bytes
    addresses: frozenset[str]


def hash_password(password: str, salt: bytes) -> bytes:
    """Slow on purpose: 50 ms and 16 MiB, so that a stolen table is of little use."""
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def new_user(password: str, *addresses: str) -> User:
    salt = os.urandom(16)
    return User(salt, hash_password(password, salt), frozenset(addresses))


# An unknown name takes as long as a wrong password.
UNKNOWN = new_user(os.urandom(16).hex())


class Submission(trio_smtp.Handler):
    def __init__(self, users: dict[str, User]) -> None:
        self.users = users
        self.hashing = trio.CapacityLimiter(2)  # threads; further logins wait

    async def on_auth(self, session, credentials):
        user = self.users.get(credentials.username, UNKNOWN)
        hashed = await trio.to_thread.run_sync(
            hash_password, credentials.password, user.salt, limiter=self.hashing
        )
        return hmac.compare_digest(hashed, user.hashed) and credentials.username

    async def on_mail(self, session, sender):
        if sender.address not in self.users[session.identity].addresses:
            raise trio_smtp.Reject(553, "not your address", "5.7.1")

    async def on_data(self, session, envelope, body):
        message = await body.read()  # pass it on: see relay.py
        count = len(envelope.recipients)
        print(f"{session.identity} sends {len(message)} octets to {count}")


CONFIG = trio_smtp.ServerConfig(auth="required", require_tls=True)


async def main(
    context: ssl.SSLContext, users: dict[str, User], starttls: int, implicit: int
) -> None:
    async with trio.open_nursery() as nursery:
        for port in (starttls, implicit):
            server = trio_smtp.Server(
                Submission(users),
                config=CONFIG,
                ssl_context=context,
                implicit_tls=port == implicit,
            )
            await nursery.start(server.serve, port)


if __name__ == "__main__":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    starttls, implicit = map(int, sys.argv[3:] or (587, 465))
    users = {"me": new_user("secret", "me@example.com")}
    trio.run(main, context, users, starttls, implicit)
