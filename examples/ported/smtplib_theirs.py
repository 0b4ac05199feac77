import smtplib
from email.message import EmailMessage


def notify(host: str, port: int, message: EmailMessage) -> list[str]:
    """Send; return who did not get it."""
    with smtplib.SMTP(host, port, timeout=30) as smtp:
        try:
            return sorted(smtp.send_message(message))
        except smtplib.SMTPRecipientsRefused as exc:
            return sorted(exc.recipients)
