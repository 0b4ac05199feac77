# The HTTP server: Starlette on Hypercorn's Trio worker, behind the fence.
#
# The one module that knows Hypercorn. Without the extra `inbox` it cannot be imported.
from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import hypercorn.trio
import trio
from hypercorn.config import Config, Sockets
from starlette.applications import Starlette

from trio_smtp.testing import Sink

from ._box import Box
from ._guard import Guard
from ._mailpit import MailpitAPI
from ._own import OwnAPI
from ._rules import Rules

MAX_HEADER: Final = 64 * 1024  # octets of a request's line and header
GRACE: Final = 0.2  # seconds that requests have when the inbox ends


def make_app(box: Box, sink: Sink, rules: Rules, *, about: dict[str, Any], allow_hosts: Iterable[str]) -> Guard:
    """The ASGI application."""
    routes = [*OwnAPI(box, sink, rules, about).routes(), *MailpitAPI(box, sink).routes()]
    return Guard(Starlette(routes=routes), allow_hosts=allow_hosts)


async def serve_app(
    app: Guard,
    listener: trio.SocketListener,
    *,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.

    Args:
        app: the application.
        listener: owned from now on.
        task_status: told once clients can connect.
    """
    config = Config()
    # Not as "fd://", which is left open where this is cancelled before Hypercorn has made a socket of it.
    listening = socket.socket(fileno=listener.socket.detach())
    config.create_sockets = lambda: Sockets([], [listening], [])  # type: ignore[method-assign]
    config.h11_max_incomplete_size = MAX_HEADER
    config.websocket_max_message_size = 4096  # clients only listen
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.graceful_timeout = GRACE
    config.keep_alive_timeout = 30  # also for a request whose header does not come to an end
    application: Any = app  # Hypercorn has types of its own for the same
    serve: Any = partial(hypercorn.trio.serve, application, config, mode="asgi")
    with listening:
        await serve(task_status=task_status)
