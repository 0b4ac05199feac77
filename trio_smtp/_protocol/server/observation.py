# What happens at a server, as a value: for metrics, spans and logs of one's own. trio_smtp/_server/trace.py makes them.
#
# A named tuple, since a message makes some ten of them: a frozen dataclass takes four times as long to make.
from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

ServerEventName: TypeAlias = Literal["connect", "tls", "auth", "command", "hook", "message", "refuse", "close"]
"""The names of a :class:`ServerEvent`."""


class ServerEvent(NamedTuple):
    """One thing that happened at a server, and is over; ``ServerConfig.trace`` is called with each.

    docs/observing.md has a table of what each event says.

    Attributes:
        name: ``"connect"`` (a connection has its session: it was greeted, or refused by ``on_connect``), ``"tls"`` (a
            handshake), ``"auth"`` (an AUTH exchange), ``"command"`` (a command was answered), ``"hook"`` (a hook has
            ended), ``"message"`` (a message whose content was asked for was accepted, refused or given up),
            ``"refuse"`` (a connection got no session), ``"close"`` (a session has ended).
        session: the :class:`Session` it is about; ``None`` for ``"refuse"``.
        seconds: how long it took; of a hook without its waiting for message data; of ``"close"`` the session's age.
        verb: the command in upper case; ``""`` if there was none, or none that the server has.
        code: of the reply; 0 if there was none.
        octets: of the command line, or of message content.
        detail: the text of the reply, the hook's name, the version of TLS, or the reason; see the table.
        error: what went wrong, or ``None``; a refusal is an answer, and no error here.
    """

    name: ServerEventName
    session: Any = None
    seconds: float = 0.0
    verb: str = ""
    code: int = 0
    octets: int = 0
    detail: str = ""
    error: BaseException | None = None
