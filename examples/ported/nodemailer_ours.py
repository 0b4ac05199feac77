import sys
from email.message import EmailMessage

import trio

import trio_smtp


def letter(to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "me@example.com", to, "Hello"
    message.set_content("Hi!\n")
    return message


async def main(host, port):
    async with trio_smtp.open_pool(host, port, max_connections=5) as pool:
        async with pool.send_many(
            letter(to) for to in ("a@example.com", "b@example.com")
        ) as outcomes:
            async for outcome in outcomes:
                print(outcome.error or outcome.result)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
