# The dialogue about one message, as lines of text for its caller: which server, and each command and reply.
#
# Commands of a message name its transaction. So what else goes over the connection, such as other messages in flight or
# a login, is never in its dialogue. Nor is the message's text.
from __future__ import annotations

from .._observer import Observer
from .._protocol.client.transaction import Transaction
from .connection import ClientConnection


def begin_transcript(transcript: Observer[str], connection: ClientConnection, transaction: Transaction) -> None:
    """Tell where a transaction takes place, and from now on what is said in it."""
    tls = connection.wire.tls
    transcript.tell(f"-- {connection.name}, {f'{tls.version} {tls.cipher}' if tls is not None else 'no TLS'}")
    function = transcript.function

    def tell(who: str, said: object) -> None:
        line = f"{who}: {said}"
        try:  # as Observer.tell(), a call less for each line
            function(line)
        except Exception:
            transcript.note_failure()

    transaction.listener = tell
