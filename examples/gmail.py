"""Send through Gmail, or Microsoft 365, with tokens that renew themselves.

The refresh token comes from the person's agreement, once, in a browser; the rest happens here.

    pip install 'trio-smtp[oauth]'
    CLIENT_ID=… CLIENT_SECRET=… REFRESH_TOKEN=… python gmail.py me@gmail.com you@example.com
"""

import os
import sys
from email.message import EmailMessage

import trio

import trio_smtp
from trio_smtp.oauth import RefreshToken


def login(user: str) -> trio_smtp.OAuth:
    secrets = os.environ
    if user.endswith("@gmail.com"):
        tokens = RefreshToken.google(secrets["CLIENT_ID"], secrets["CLIENT_SECRET"], secrets["REFRESH_TOKEN"])
    else:
        tokens = RefreshToken.microsoft365(secrets["CLIENT_ID"], secrets["REFRESH_TOKEN"])
    return trio_smtp.OAuth(user, tokens)


async def main(sender: str, recipient: str) -> None:
    host = "smtp.gmail.com" if sender.endswith("@gmail.com") else "smtp.office365.com"
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, "Hello"
    message.set_content("Hi!\n")
    async with trio_smtp.open_pool(host, 587, tls="starttls", auth=login(sender), max_connections=2) as pool:
        await pool.send_message(message)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
