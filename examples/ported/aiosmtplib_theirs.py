from email.message import EmailMessage

import aiosmtplib


async def notify(host: str, port: int, message: EmailMessage) -> str:
    async with aiosmtplib.SMTP(hostname=host, port=port, timeout=30) as smtp:
        refused, response = await smtp.send_message(message)
    return f"{response}, refused: {sorted(refused)}"
