"""SMTP as a first-class protocol for Trio: a server, a client and a client pool.

The whole public API is importable from here, except for the test kit in ``trio_smtp.testing``.
"""

from ._client.client import Client as Client
from ._client.client import open_client as open_client
from ._client.config import ClientConfig as ClientConfig
from ._client.content import ContentLike as ContentLike
from ._client.message import Params as Params
from ._client.opening import TLSMode as TLSMode
from ._client.prepared import PreparedMessage as PreparedMessage
from ._client.prepared import prepare_message as prepare_message
from ._client.push import OutgoingMessage as OutgoingMessage
from ._client.reaching import Connect as Connect
from ._client.report import SendResult as SendResult
from ._client.signing import MessageSigner as MessageSigner
from ._client.trace import ClientEvent as ClientEvent
from ._client.trace import ClientEventName as ClientEventName
from ._pool.bulk import Job as Job
from ._pool.bulk import Outcome as Outcome
from ._pool.bulk import Outcomes as Outcomes
from ._pool.config import PoolConfig as PoolConfig
from ._pool.hosts import Host as Host
from ._pool.hosts import HostsLike as HostsLike
from ._pool.opening import open_pool as open_pool
from ._pool.pool import Pool as Pool
from ._pool.statistics import PoolStatistics as PoolStatistics
from ._pool.trace import TraceEvent as TraceEvent
from ._pool.trace import TraceName as TraceName
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
from ._protocol.extensions import Limits as Limits
from ._protocol.proxy import ProxyHeader as ProxyHeader
from ._protocol.replies import Reject as Reject
from ._protocol.replies import Reply as Reply
from ._protocol.sasl import Auth as Auth
from ._protocol.sasl import Credentials as Credentials
from ._protocol.sasl import External as External
from ._protocol.sasl import OAuth as OAuth
from ._protocol.sasl import Password as Password
from ._protocol.sasl import TokenSource as TokenSource
from ._protocol.sasl import XOAuth as XOAuth
from ._protocol.server.config import ServerConfig as ServerConfig
from ._protocol.server.extension import ServerExtension as ServerExtension
from ._protocol.server.observation import ServerEvent as ServerEvent
from ._protocol.server.observation import ServerEventName as ServerEventName
from ._public import show_as_public as _show_as_public
from ._relay.forward import forward as forward
from ._server.body import Body as Body
from ._server.context import ServerStatistics as ServerStatistics
from ._server.handler import Discard as Discard
from ._server.handler import Handler as Handler
from ._server.server import Server as Server
from ._server.server import serve as serve
from ._server.session import Session as Session
from ._server.unix_listening import UnixListener as UnixListener
from ._server.unix_listening import open_unix_listener as open_unix_listener
from ._version import __version__ as __version__
from ._wire.inherited import inherited_listeners as inherited_listeners
from ._wire.listening import open_tcp_listeners as open_tcp_listeners
from ._wire.renewal import watch_certificates as watch_certificates
from ._wire.tls import TLSInfo as TLSInfo

__all__ = [
    "Auth",
    "AuthenticationError",
    "Body",
    "Client",
    "ClientConfig",
    "ClientEvent",
    "ClientEventName",
    "Connect",
    "ConnectError",
    "ConnectionLostError",
    "ContentLike",
    "Credentials",
    "DeliverBy",
    "Delivery",
    "Discard",
    "Envelope",
    "ExtensionNotSupportedError",
    "Extensions",
    "External",
    "Handler",
    "Host",
    "HostsLike",
    "Job",
    "Limits",
    "LocalProtocolError",
    "MessageAbortedError",
    "MessageRefusedError",
    "MessageSigner",
    "MessageTooLargeError",
    "OAuth",
    "Outcome",
    "Outcomes",
    "OutgoingMessage",
    "Params",
    "Password",
    "Pool",
    "PoolClosedError",
    "PoolConfig",
    "PoolFullError",
    "PoolStatistics",
    "PreparedMessage",
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
    "ServerEvent",
    "ServerEventName",
    "ServerExtension",
    "ServerStatistics",
    "Session",
    "Stage",
    "TLSError",
    "TLSInfo",
    "TLSMode",
    "TokenSource",
    "TraceEvent",
    "TraceName",
    "UnixListener",
    "UnsupportedAuthError",
    "XOAuth",
    "__version__",
    "forward",
    "inherited_listeners",
    "open_client",
    "open_pool",
    "open_tcp_listeners",
    "open_unix_listener",
    "prepare_message",
    "serve",
    "watch_certificates",
]

_show_as_public(__name__, __all__, globals())
