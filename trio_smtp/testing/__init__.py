"""What tests of programs that send or receive mail need: servers, scripted peers, faults, certificates, a network.

::

    async def test_the_newsletter_goes_to_everybody():
        async with trio_smtp.testing.open_sink() as sink:
            await send_newsletter(sink.host, sink.port)
        assert [message.recipients for message in sink.messages] == [("a@example.com",), ("b@example.com",)]

* :func:`open_sink` keeps what it gets, and refuses, cuts off or stalls where it is told to;
  :func:`open_server` runs a handler of yours. :func:`run_sink` is the sink for tests that are not async, and
  :func:`run_in_thread` does the same for all else.
* :func:`open_script` and :class:`ScriptedPeer` say and expect exactly the lines of a transcript.
* :class:`FaultyStream` lets any stream fail at an octet: :class:`Cut`, :class:`Stall`, :class:`Split`.
* :func:`virtual_network` takes the place of sockets and of the DNS, so that names, refused connections and time limits
  can be tested under ``trio.testing.MockClock``, without a real port.
* :func:`make_certificates` makes throw-away certificates.

Nothing but Trio is needed, except for certificates: ``pip install 'trio-smtp[testing]'``. That also brings what the
pytest plugin's fixtures need: ``smtp_sink``, ``smtp_tls_sink``, ``smtp_implicit_tls_sink``, ``threaded_smtp_sink``,
``smtp_certificates``.
"""

from .._public import show_as_public as _show_as_public
from ._certificates import Certificates as Certificates
from ._certificates import make_certificates as make_certificates
from ._faults import Cut as Cut
from ._faults import Fault as Fault
from ._faults import FaultyStream as FaultyStream
from ._faults import Split as Split
from ._faults import Stall as Stall
from ._network import Network as Network
from ._network import virtual_network as virtual_network
from ._peer import ScriptedPeer as ScriptedPeer
from ._points import FaultPoint as FaultPoint
from ._points import PointStage as PointStage
from ._script import Script as Script
from ._script import ScriptedServer as ScriptedServer
from ._script import open_script as open_script
from ._server import RunningServer as RunningServer
from ._server import ServerTLS as ServerTLS
from ._server import Wrap as Wrap
from ._server import open_server as open_server
from ._sink import Sink as Sink
from ._sink import SinkAuth as SinkAuth
from ._sink import open_sink as open_sink
from ._sink_handler import Keep as Keep
from ._sink_handler import ReceivedMessage as ReceivedMessage
from ._thread import ThreadedSink as ThreadedSink
from ._thread import TrioThread as TrioThread
from ._thread import run_in_thread as run_in_thread
from ._thread import run_sink as run_sink

__all__ = [
    "Certificates",
    "Cut",
    "Fault",
    "FaultPoint",
    "FaultyStream",
    "Keep",
    "Network",
    "PointStage",
    "ReceivedMessage",
    "RunningServer",
    "Script",
    "ScriptedPeer",
    "ScriptedServer",
    "ServerTLS",
    "Sink",
    "SinkAuth",
    "Split",
    "Stall",
    "ThreadedSink",
    "TrioThread",
    "Wrap",
    "make_certificates",
    "open_script",
    "open_server",
    "open_sink",
    "run_in_thread",
    "run_sink",
    "virtual_network",
]

_show_as_public(__name__, __all__, globals())
