"""Every message of a pool is signed.

pip install 'trio-smtp[dkim]'
openssl genpkey -algorithm ed25519 -out dkim.pem
python dkim_signing.py mail.example.com dkim.pem
"""

import sys
from email.message import EmailMessage
from pathlib import Path

import trio

import trio_smtp
from trio_smtp.dkim import Signer


async def main(host: str, key: bytes, port: int = 25) -> None:
    signer = Signer("example.com", "mail2026", key)
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", "you@example.org", "Hello"
    message["Date"] = "Fri, 27 Nov 2026 12:00:00 +0000"
    message.set_content("Hi!\n")
    async with trio_smtp.open_pool(host, port, sign=signer) as pool:
        await pool.send_message(message)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]).read_bytes())
