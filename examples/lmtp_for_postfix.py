"""An LMTP server for Postfix: each recipient gets its own reply after the message.

In Postfix's main.cf: ``virtual_transport = lmtp:inet:127.0.0.1:2424``
"""

import trio

import trio_smtp

QUOTA = 10_000_000  # octets in a mailbox


class Mailboxes(trio_smtp.Handler):
    def __init__(self) -> None:
        names = ("me@example.com", "you@example.com")
        self.mailboxes: dict[str, list[bytes]] = {name: [] for name in names}

    async def on_rcpt(self, session, recipient):
        # Postfix asks this before it accepts a message itself.
        if recipient.address not in self.mailboxes:
            raise trio_smtp.Reject(550, "no such mailbox", "5.1.1")

    async def on_data(self, session, envelope, body):
        message = await body.read()
        replies = {}
        for recipient in envelope.recipients:
            mailbox = self.mailboxes[recipient.address]
            if sum(map(len, mailbox)) + len(message) > QUOTA:
                reply = trio_smtp.Reply(452, "mailbox full", "4.2.2")
            else:
                mailbox.append(message)
                reply = trio_smtp.Reply(250, "stored", "2.1.5")
            replies[recipient.address] = reply
        return replies


CONFIG = trio_smtp.ServerConfig(lmtp=True)

if __name__ == "__main__":
    trio.run(
        lambda: trio_smtp.serve(Mailboxes(), 2424, host="127.0.0.1", config=CONFIG)
    )
