"""An order and its mail in one SQLite transaction: either both are there, or neither.

    python order_mail.py shop.db you@example.com
    trio-smtp outbox --store sqlite:shop.db work --server mail.example.com:587 --auth me

The application writes the order and puts its mail into the outbox in the same file, in
the same transaction. After a crash at any moment there is no order without its mail,
and no mail without its order. Some worker sends it, later.
"""

from __future__ import annotations

import sqlite3
import sys
from email.message import EmailMessage

import trio

from trio_smtp.outbox import Ticket, open_outbox, put_in_transaction


def confirmation(customer: str, number: int, item: str) -> EmailMessage:
    """The mail that belongs to an order."""
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", customer
    message["Subject"] = f"Your order {number}"
    message.set_content(f"We have your order of one {item}.\n")
    return message


def place_order(
    connection: sqlite3.Connection, customer: str, item: str
) -> tuple[int, Ticket]:
    """Write an order and its mail; both are there once this has returned."""
    with connection:  # commits at its end, rolls back on an exception
        cursor = connection.execute(
            "INSERT INTO orders (customer, item) VALUES (?, ?)", (customer, item)
        )
        number = cursor.lastrowid
        assert number is not None
        message = confirmation(customer, number, item)
        ticket = put_in_transaction(
            connection, None, None, message, key=f"order-{number}"
        )
    return number, ticket


async def main(path: str, customer: str) -> None:
    """Place one order, and show what the outbox knows of its mail."""
    # This makes the outbox's tables, if they are missing.
    async with open_outbox(f"sqlite:{path}") as outbox:
        connection = sqlite3.connect(path)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (number INTEGER PRIMARY KEY, customer TEXT, item TEXT)"
        )
        number, ticket = place_order(connection, customer, "teapot")
        connection.close()
        entry = await outbox.get(ticket.id)
        print(
            f"order {number}: mail {entry.id} to {', '.join(entry.recipients)}"
            f" is {entry.state}"
        )


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
