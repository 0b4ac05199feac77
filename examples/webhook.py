"""Mail arrives; a web service hears of it.

Each message becomes a POST with its subject, text and attachments' names. The mail is
accepted (250) only if the web service has taken it. Otherwise the client is told to try
again later (451), and nothing is lost.

    pip install 'trio-smtp[cli]' httpx
    python webhook.py https://example.com/hook
"""

import email
import email.policy
import sys

import httpx
import trio

import trio_smtp


class Webhook(trio_smtp.Handler):
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self.http = http

    async def on_rcpt(self, session, recipient):
        if recipient.domain != "example.com":
            raise trio_smtp.Reject(550, "no such domain here", "5.1.2")

    async def on_data(self, session, envelope, body):
        message = email.message_from_bytes(
            await body.read(), policy=email.policy.default
        )
        text = message.get_body(("plain", "html"))
        report = {
            "from": envelope.sender.address,
            "to": [recipient.address for recipient in envelope.recipients],
            "subject": message["Subject"],
            "text": text.get_content() if text else "",
            "attachments": [part.get_filename() for part in message.iter_attachments()],
        }
        try:
            answer = await self.http.post(self.url, json=report)
            answer.raise_for_status()
        except httpx.HTTPError as exc:
            raise trio_smtp.Reject(451, "try again later", "4.3.0") from exc


async def main(url: str, port: int = 2525) -> None:
    async with httpx.AsyncClient() as http:
        await trio_smtp.serve(Webhook(url, http), port)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
