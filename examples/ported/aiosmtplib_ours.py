from email.message import EmailMessage

import trio

import trio_smtp


async def notify(host: str, port: int, message: EmailMessage) -> str:
    with trio.fail_after(30):
        async with trio_smtp.open_client(host, port) as client:
            result = await client.send_message(message)
    return f"{result.reply.text}, refused: {sorted(result.refused)}"
