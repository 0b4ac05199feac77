"""An LMTP server for Postfix: each recipient gets its own reply after the message.

In Postfix's main.cf: ``virtual_transport = lmtp:inet:127.0.0.1:2424``
"""

import trio

import trio_smtp


class Mailboxes(trio_smtp.Handler):
    def __init__(self) -> None:
        self.mailboxes: dict[str, list[bytes]] = {"me@example.com": []}

    async def on_data(self, session, envelope, body):
        message = await body.read()
        replies = {}
        for recipient in envelope.recipients:
            mailbox = self.mailboxes.get(recipient.address)
            if mailbox is None:
                replies[recipient.address] = trio_smtp.Reply(550, "no such mailbox", "5.1.1")
            else:
                mailbox.append(message)
                replies[recipient.address] = trio_smtp.Reply(250, "stored", "2.1.5")
        return replies


CONFIG = trio_smtp.ServerConfig(lmtp=True)

if __name__ == "__main__":
    trio.run(lambda: trio_smtp.serve(Mailboxes(), 2424, host="127.0.0.1", config=CONFIG))
