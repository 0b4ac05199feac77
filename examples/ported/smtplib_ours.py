from email.message import EmailMessage

import trio

import trio_smtp


async def notify(host: str, port: int, message: EmailMessage) -> list[str]:
    """Send; return who did not get it."""
    with trio.fail_after(30):
        async with trio_smtp.open_client(host, port) as client:
            try:
                result = await client.send_message(message)
            except trio_smtp.RecipientsRefusedError as exc:
                return sorted(exc.refused)
            return sorted(result.refused)
