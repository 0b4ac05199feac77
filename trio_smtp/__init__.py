"""SMTP as a first-class protocol for Trio: a server, a client and a client pool.

The whole public API is importable from here, except for the test kit in ``trio_smtp.testing``.
"""

from ._client.client import Client as Client
from ._client.client import open_client as open_client
from ._client.config import ClientConfig as ClientConfig
from ._client.push import OutgoingMessage as OutgoingMessage
from ._client.report import SendResult as SendResult
from ._pool.bulk import Job as Job
from ._pool.bulk import Outcome as Outcome
from ._pool.config import PoolConfig as PoolConfig
from ._pool.pool import Pool as Pool
from ._pool.pool import PoolStatistics as PoolStatistics
from ._pool.pool import open_pool as open_pool
from ._pool.trace import TraceEvent as TraceEvent
from ._protocol.envelope import DeliverBy as DeliverBy
from ._protocol.envelope import Envelope as Envelope
from ._protocol.envelope import Recipient as Recipient
from ._protocol.envelope import Sender as Sender
from ._protocol.errors import AuthenticationError as AuthenticationError
from ._protocol.errors import ConnectError as ConnectError
from ._protocol.errors import ConnectionLostError as ConnectionLostError
from ._protocol.errors import Delivery as Delivery
from ._protocol.errors import ExtensionNotSupportedError as ExtensionNotSupportedError
from ._protocol.errors import LocalProtocolError as LocalProtocolError
from ._protocol.errors import MessageAbortedError as MessageAbortedError
from ._protocol.errors import MessageRefusedError as MessageRefusedError
from ._protocol.errors import MessageTooLargeError as MessageTooLargeError
from ._protocol.errors import PoolClosedError as PoolClosedError
from ._protocol.errors import PoolFullError as PoolFullError
from ._protocol.errors import RecipientsRefusedError as RecipientsRefusedError
from ._protocol.errors import RemoteProtocolError as RemoteProtocolError
from ._protocol.errors import SenderRefusedError as SenderRefusedError
from ._protocol.errors import SMTPError as SMTPError
from ._protocol.errors import SMTPTimeoutError as SMTPTimeoutError
from ._protocol.errors import Stage as Stage
from ._protocol.errors import TLSError as TLSError
from ._protocol.errors import UnsupportedAuthError as UnsupportedAuthError
from ._protocol.extensions import Extensions as Extensions
from ._protocol.proxy import ProxyHeader as ProxyHeader
from ._protocol.replies import Reject as Reject
from ._protocol.replies import Reply as Reply
from ._protocol.sasl import Credentials as Credentials
from ._protocol.sasl import External as External
from ._protocol.sasl import OAuth as OAuth
from ._protocol.sasl import Password as Password
from ._protocol.sasl import XOAuth as XOAuth
from ._protocol.server.config import ServerConfig as ServerConfig
from ._protocol.server.extension import ServerExtension as ServerExtension
from ._server.body import Body as Body
from ._server.context import ServerStatistics as ServerStatistics
from ._server.handler import Discard as Discard
from ._server.handler import Handler as Handler
from ._server.server import Server as Server
from ._server.server import serve as serve
from ._server.session import Session as Session
from ._version import __version__ as __version__
from ._wire.listening import open_tcp_listeners as open_tcp_listeners
from ._wire.tls import TLSInfo as TLSInfo

__all__ = [
    "AuthenticationError",
    "Body",
    "Client",
    "ClientConfig",
    "ConnectError",
    "ConnectionLostError",
    "Credentials",
    "DeliverBy",
    "Delivery",
    "Discard",
    "Envelope",
    "ExtensionNotSupportedError",
    "Extensions",
    "External",
    "Handler",
    "Job",
    "LocalProtocolError",
    "MessageAbortedError",
    "MessageRefusedError",
    "MessageTooLargeError",
    "OAuth",
    "Outcome",
    "OutgoingMessage",
    "Password",
    "Pool",
    "PoolClosedError",
    "PoolConfig",
    "PoolFullError",
    "PoolStatistics",
    "ProxyHeader",
    "Recipient",
    "RecipientsRefusedError",
    "Reject",
    "RemoteProtocolError",
    "Reply",
    "SMTPError",
    "SMTPTimeoutError",
    "SendResult",
    "Sender",
    "SenderRefusedError",
    "Server",
    "ServerConfig",
    "ServerExtension",
    "ServerStatistics",
    "Session",
    "Stage",
    "TLSError",
    "TLSInfo",
    "TraceEvent",
    "UnsupportedAuthError",
    "XOAuth",
    "__version__",
    "open_client",
    "open_pool",
    "open_tcp_listeners",
    "serve",
]


def _show_as_public() -> None:
    """Let tracebacks, ``help()`` and pickles name the public objects by where they are imported from."""
    for name in __all__:
        thing = globals()[name]
        if isinstance(thing, type) or callable(thing):
            thing.__module__ = __name__


_show_as_public()
del _show_as_public
