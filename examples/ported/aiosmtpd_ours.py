import trio_smtp


class Inbox(trio_smtp.Handler):
    def __init__(self):
        self.messages = []

    async def on_rcpt(self, session, recipient):
        if recipient.domain != "example.com":
            raise trio_smtp.Reject(550, "not relaying to that domain", "5.1.2")

    async def on_data(self, session, envelope, body):
        recipients = [recipient.address for recipient in envelope.recipients]
        self.messages.append((envelope.sender.address, recipients, await body.read()))
        return trio_smtp.Reply(250, "accepted")


async def main(nursery, port):
    return await nursery.start(trio_smtp.serve, Inbox(), port)
