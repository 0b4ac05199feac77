"""An inbox for developers: it takes all mail, shows it on a page, and lets programs and tests ask for it.

::

    async with open_inbox() as inbox:
        await sign_up("me@example.com", smtp=(inbox.host, inbox.smtp_port))
        message = await inbox.wait_for(to="me@example.com", subject="Welcome")

The page is at ``inbox.url``, and so is an HTTP interface: that of Mailpit, and waiting, events, faults and dialogues of
our own. ``trio-smtp inbox`` is the same as a command, :func:`run_inbox` the same for tests that are not async. pytest
finds the fixtures ``smtp_inbox`` and ``threaded_smtp_inbox`` by itself.

``pip install 'trio-smtp[inbox]'`` brings what it needs: Starlette, Hypercorn and what makes certificates.
"""

from .._public import show_as_public as _show_as_public
from ._inbox import Inbox as Inbox
from ._inbox import ThreadedInbox as ThreadedInbox
from ._inbox import find_codes as find_codes
from ._inbox import find_links as find_links
from ._inbox import open_inbox as open_inbox
from ._inbox import run_inbox as run_inbox

__all__ = ["Inbox", "ThreadedInbox", "find_codes", "find_links", "open_inbox", "run_inbox"]

_show_as_public(__name__, __all__, globals())
