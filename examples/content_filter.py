"""A content filter between two Postfix ports: each message is sent on or refused.

Postfix hands mail over on port 10025, and takes it back on port 10026. What the second
port answers is what the first one hears, so nothing is stored here, and nothing can be
lost here.

In master.cf::

    smtp            inet n - n - - smtpd -o smtpd_proxy_filter=127.0.0.1:10025
    127.0.0.1:10026 inet n - n - - smtpd -o smtpd_proxy_filter=
        -o smtpd_authorized_xforward_hosts=127.0.0.0/8
"""

import trio

import trio_smtp


class Filter(trio_smtp.Handler):
    def __init__(self, pool: trio_smtp.Pool) -> None:
        self.pool = pool

    async def on_data(self, session, envelope, body):
        message = await body.read()
        if b"X-Spam: yes" in message.split(b"\r\n\r\n", 1)[0]:
            raise trio_smtp.Reject(550, "no, thank you", "5.7.1")
        recipients = [recipient.address for recipient in envelope.recipients]
        try:
            result = await self.pool.send(envelope.sender.address, recipients, message)
        except trio_smtp.SMTPError as exc:
            if exc.reply is not None:
                return exc.reply
            raise trio_smtp.Reject(451, "the next server is not well", "4.4.1") from exc
        return result.reply


async def main(
    port: int = 10025, next_port: int = 10026, *, task_status=trio.TASK_STATUS_IGNORED
) -> None:
    async with trio_smtp.open_pool("127.0.0.1", next_port, max_connections=20) as pool:
        await trio_smtp.serve(
            Filter(pool), port, host="127.0.0.1", task_status=task_status
        )


if __name__ == "__main__":
    trio.run(main)
