"""Send through Gmail with tokens that renew themselves.

The refresh token comes from the person's agreement, once, in a browser.

    pip install 'trio-smtp[oauth]'
    export CLIENT_ID=… CLIENT_SECRET=… REFRESH_TOKEN=…
    python gmail.py me@gmail.com you@example.com
"""

import os
import sys
from email.message import EmailMessage

import trio

import trio_smtp
from trio_smtp.oauth import RefreshToken


async def main(sender: str, recipient: str) -> None:
    secrets = os.environ
    tokens = RefreshToken.google(
        secrets["CLIENT_ID"], secrets["CLIENT_SECRET"], secrets["REFRESH_TOKEN"]
    )
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, "Hello"
    message.set_content("Hi!\n")
    login = trio_smtp.OAuth(sender, tokens)
    async with trio_smtp.open_pool(
        "smtp.gmail.com", 587, tls="starttls", auth=login, max_connections=2
    ) as pool:
        result = await pool.send_message(message)
    print(result.reply)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
