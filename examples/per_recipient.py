"""Each recipient gets its own answer: 550 if unknown, 452 if its mailbox is full."""

import trio

import trio_smtp


class Mailboxes(trio_smtp.Handler):
    def __init__(self, quota: dict[str, int]) -> None:
        self.quota = quota  # octets left, by address

    async def on_rcpt(self, session, recipient):
        if recipient.address not in self.quota:
            raise trio_smtp.Reject(550, "no such mailbox", "5.1.1")
        # What the client announced with SIZE=, if it did:
        size = session.envelope.sender.size or 0
        if size > self.quota[recipient.address]:
            raise trio_smtp.Reject(452, "mailbox full", "4.2.2")

    async def on_data(self, session, envelope, body):
        message = await body.read()
        for recipient in envelope.recipients:
            self.quota[recipient.address] -= len(message)
            print(f"{len(message)} octets for {recipient.address}")


if __name__ == "__main__":
    mailboxes = Mailboxes({"me@example.com": 1_000_000, "full@example.com": 0})
    trio.run(trio_smtp.serve, mailboxes, 2525)
