import trio

import trio_smtp


class Save(trio_smtp.Handler):
    async def on_data(self, session, envelope, body):
        print("Message from:", envelope.sender.address)
        print("Message to:", [recipient.address for recipient in envelope.recipients])
        async with await trio.open_file("message.txt", "wb") as file:
            async for chunk in body:
                await file.write(chunk)
        print("Incoming message saved to message.txt")
        return "ABC1"  # the queue id to be told to the client


if __name__ == "__main__":
    trio.run(trio_smtp.serve, Save(), 25)
