"""An outbox: messages are written down durably, sent once, and tried again, whatever crashes in between.

::

    import trio
    import trio_smtp
    from trio_smtp.outbox import open_outbox

    CONTENT = b"From: me@example.com\\r\\nTo: you@example.com\\r\\nSubject: order 4711\\r\\n\\r\\nThank you!\\r\\n"


    async def main():
        async with (
            open_outbox("sqlite:outbox.db") as outbox,
            trio_smtp.open_pool("localhost", 2525) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(outbox.work, pool)  # until cancelled; in any number of tasks and processes
            ticket = await outbox.put("me@example.com", ["you@example.com"], CONTENT, key="order-4711")
            print((await outbox.wait(ticket.id)).state)
            nursery.cancel_scope.cancel()


    trio.run(main)

The store is a file in SQLite, for one machine, or a Redis database, for any number of machines (``pip install
'trio-smtp[redis]'``). See docs/outbox.md for what is promised, and what each store promises.
"""

# Certainty is the promise: a message that was put is sent or its fate is known, for each recipient; none is sent twice
# unless `on_doubt="retry"` allows it. What is true if everything dies at a moment, and what a worker makes of it:
#
#     moment of the crash                               in the store             afterwards
#     in put(), before the commit                       nothing                  put() again
#     in put(), after the commit, before it returned    queued                   put() with the same key: the old ticket
#     while it waits                                    queued                   sent when it is due
#     claimed, connecting, MAIL, RCPT, text             sending                  lease ends: queued, at once
#     in before_end, before the commit                  sending                  lease ends: queued, at once
#     in before_end, after the commit                   sending, marked          lease ends: in doubt, although not sent
#     the end was sent, no reply yet                    sending, marked          lease ends: in doubt
#     the reply was read, before the commit             sending, marked          lease ends: in doubt
#     after the commit                                  its fate                 nothing to do
#
# So what may have been delivered is always in doubt, and what is in doubt may have been delivered, but for the one line
# where the crash came between the mark and the send: nothing can be between them that would tell.
#
# And if only the worker is slow (stopped, or cut off), and its lease ends:
#
#     before the mark       another claims the entry; the mark then raises LeaseLostError, and nothing is sent by it
#     after the mark        the entry is in doubt; if the worker comes back with the reply, that settles the doubt
#
# If only the store dies, calls raise StoreError; a worker keeps what it knows, and writes it down when that is back.
#
# The parts: states (what follows what; all changes of state), store (what a store must do), sqlite and redis (the two),
# work (a worker), outbox (the public face), records (what is put, checked), handler (for a server), hop_parameters
# (what the next server is told), reports (what the sender is told), dialogue (of the last try), transaction (put()
# inside an application's own SQLite transaction), rates (limits over all workers), damage (what cannot be read).

from .._public import show_as_public as _show_as_public
from ._config import OutboxConfig as OutboxConfig
from ._entry import Entry as Entry
from ._entry import RecipientState as RecipientState
from ._entry import State as State
from ._errors import DamagedEntry as DamagedEntry
from ._errors import LeaseLostError as LeaseLostError
from ._errors import StoreError as StoreError
from ._outbox import Outbox as Outbox
from ._outbox import OutboxStatistics as OutboxStatistics
from ._outbox import Ticket as Ticket
from ._outbox import open_outbox as open_outbox
from ._states import Action as Action
from ._trace import EventName as EventName
from ._trace import OutboxEvent as OutboxEvent
from ._transaction import put_in_transaction as put_in_transaction

__all__ = [
    "Action",
    "DamagedEntry",
    "Entry",
    "EventName",
    "LeaseLostError",
    "Outbox",
    "OutboxConfig",
    "OutboxEvent",
    "OutboxStatistics",
    "RecipientState",
    "State",
    "StoreError",
    "Ticket",
    "open_outbox",
    "put_in_transaction",
]

_show_as_public(__name__, __all__, globals())
