"""A submission server: TLS first, then a login, and mail from own addresses only.

python submission_server.py certificate.pem key.pem
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


UNKNOWN = new_user(os.urandom(16).hex())  # so that an unknown name takes as long as a wrong password


class Submission(trio_smtp.Handler):
    def __init__(self, users: dict[str, User]) -> None:
        self.users = users
        self.hashing = trio.CapacityLimiter(2)  # threads; further logins wait

    async def on_auth(self, session, credentials):
        user = self.users.get(credentials.username, UNKNOWN)
        hashed = await trio.to_thread.run_sync(hash_password, credentials.password, user.salt, limiter=self.hashing)
        return hmac.compare_digest(hashed, user.hashed) and credentials.username

    async def on_mail(self, session, sender):
        if sender.address not in self.users[session.identity].addresses:
            raise trio_smtp.Reject(553, "not your address", "5.7.1")

    async def on_data(self, session, envelope, body):
        message = await body.read()  # pass it on: see relay.py
        print(f"{session.identity} sends {len(message)} octets to {len(envelope.recipients)}")


CONFIG = trio_smtp.ServerConfig(auth="required", require_tls=True)


async def main(context: ssl.SSLContext, users: dict[str, User]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(trio_smtp.Server(Submission(users), config=CONFIG, ssl_context=context).serve, 587)
        implicit = trio_smtp.Server(Submission(users), config=CONFIG, ssl_context=context, implicit_tls=True)
        await nursery.start(implicit.serve, 465)


if __name__ == "__main__":
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    trio.run(main, context, {"me": new_user("secret", "me@example.com")})
