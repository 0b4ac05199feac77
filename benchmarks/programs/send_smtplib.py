# Under test: the standard library's smtplib, which blocks.
#
# Variants: "threads" has a thread for each connection, the only way to send on all of them at one time; "in turn" uses
# one connection after the other, so only one message is in flight.
from __future__ import annotations

import itertools
import smtplib
from concurrent.futures import ThreadPoolExecutor

from .sending import SENDER, done, ready, sending


def main() -> None:
    """Warm up, send, wait."""
    options = sending()
    content = options.content
    clients = [
        smtplib.SMTP("127.0.0.1", options.port, local_hostname="client.test.example")
        for _ in range(options.connections)
    ]

    def work(client: smtplib.SMTP, messages: int) -> None:
        for _ in range(messages):
            client.sendmail(SENDER, options.recipients, content)

    def send(messages: int) -> None:
        if options.variant == "threads" and len(clients) > 1:
            list(threads.map(work, clients, options.shares(messages)))
        else:
            for client in itertools.islice(itertools.cycle(clients), messages):
                work(client, 1)

    with ThreadPoolExecutor(len(clients)) as threads:
        send(options.warm_up)
        began = ready()
        send(options.messages)
        done(began)
    for client in clients:
        client.quit()


if __name__ == "__main__":
    main()
