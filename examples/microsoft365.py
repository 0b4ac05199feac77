"""Send through Microsoft 365 or outlook.com with tokens that renew themselves.

Microsoft gives a new refresh token with each access token; the file has the latest.

    pip install 'trio-smtp[oauth]'
    CLIENT_ID=… python microsoft365.py refresh-token.txt me@example.com you@example.org
"""

import os
import sys
from email.message import EmailMessage

import trio

import trio_smtp
from trio_smtp.oauth import RefreshToken


async def main(token_file: str, sender: str, recipient: str) -> None:
    file = trio.Path(token_file)

    async def keep(refresh_token: str) -> None:
        part = file.with_suffix(".part")
        await part.write_text(refresh_token)
        await part.rename(file)

    refresh_token = (await file.read_text()).strip()
    # tenant="example.com" allows accounts of your own directory only.
    tokens = RefreshToken.microsoft365(
        os.environ["CLIENT_ID"], refresh_token, keep=keep
    )
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, recipient, "Hello"
    message.set_content("Hi!\n")
    login = trio_smtp.OAuth(sender, tokens)
    # Exchange Online allows 3 connections and 30 messages a minute for a mailbox.
    config = trio_smtp.PoolConfig(max_connections=2, rate_limit=(30, 60))
    async with trio_smtp.open_pool(
        "smtp.office365.com", 587, tls="starttls", auth=login, config=config
    ) as pool:
        result = await pool.send_message(message)
    print(result.reply)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
