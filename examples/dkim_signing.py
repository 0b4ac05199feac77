"""Every message of a pool is signed.

pip install 'trio-smtp[dkim]'
openssl genpkey -algorithm ed25519 -out dkim.pem
python dkim_signing.py localhost 2525 dkim.pem
"""

import email.utils
import sys
from email.message import EmailMessage
from pathlib import Path

import trio

import trio_smtp
from trio_smtp.dkim import Signer


async def main(host: str, port: int, key: bytes) -> None:
    signer = Signer("example.com", "mail2026", key)
    message = EmailMessage()
    message["From"], message["To"] = "me@example.com", "you@example.org"
    message["Subject"] = "Hello"
    message["Date"] = email.utils.localtime()
    message.set_content("Hi!\n")
    async with trio_smtp.open_pool(host, port, sign=signer) as pool:
        await pool.send_message(message)


if __name__ == "__main__":
    host, port, path = sys.argv[1:]
    trio.run(main, host, int(port), Path(path).read_bytes())
