"""A newsletter to 10,000 readers, with a progress bar and a report of what failed.

At most 100 messages are sent in a second.

pip install 'trio-smtp[cli]'
python newsletter.py localhost 2525 readers.txt
"""

import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import trio
from rich.progress import track

import trio_smtp


def letters(readers: list[str]) -> Iterator[EmailMessage]:
    """The messages, made one by one while others are being sent."""
    for reader in readers:
        message = EmailMessage()
        message["From"] = "News <news@example.com>"
        message["To"] = reader
        message["Subject"] = "What is new"
        message["List-Unsubscribe"] = "<mailto:leave@example.com>"
        message.set_content("Nothing much.\n")
        yield message


async def main(host: str, port: int, readers: list[str]) -> dict[str, Exception]:
    """Send to every reader; return the error of each that did not get it."""
    failed: dict[str, Exception] = {}
    config = trio_smtp.PoolConfig(
        max_connections=10, rate_limit=(100, 1), retry_temporary=2
    )
    async with (
        trio_smtp.open_pool(host, port, config=config) as pool,
        pool.send_many(letters(readers)) as outcomes,
    ):
        for _ in track(readers, "Sending"):
            outcome = await anext(outcomes)
            if outcome.error is not None:
                failed[outcome.job["To"]] = outcome.error
    return failed


if __name__ == "__main__":
    host, port, path = sys.argv[1:]
    readers = Path(path).read_text(encoding="utf-8").split()
    failed = trio.run(main, host, int(port), readers)
    for reader, error in failed.items():
        # "refused": strike the address off the list if it is permanent.
        # "not_sent": send again.
        # "unknown": the reader may have it; sending again may be twice.
        fate = error.delivery if isinstance(error, trio_smtp.SMTPError) else "not_sent"
        print(f"{reader}: {fate}: {error}")
