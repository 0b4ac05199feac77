# A session of the server's core without tasks: for tests in which bytes are all that matters.
from __future__ import annotations

from trio_smtp import Reply, ServerConfig
from trio_smtp._protocol.server.events import Data, Signal
from trio_smtp._protocol.server.profile import ServerProfile
from trio_smtp._protocol.server.protocol import ServerProtocol

ENVELOPE = b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n"


class Core:
    """A session without tasks: an application that accepts everything and keeps whole messages."""

    def __init__(self, **options: object) -> None:
        offers = {name: bool(options.pop(name, False)) for name in ("starttls", "verify", "expand")}
        self.tls = bool(options.pop("tls", False))
        config = ServerConfig(hostname="mx.test", **options)  # type: ignore[arg-type]
        self.protocol = ServerProtocol(ServerProfile(config, auth=True, **offers), tls=self.tls)
        self.messages: list[bytes] = []
        self.text: bytes | None = None
        self.out = b""
        self.protocol.greet()
        self.protocol.data_to_send()

    def say(self, data: bytes) -> list[str]:
        """Send octets; the lines of the replies to them."""
        protocol = self.protocol
        protocol.receive_data(data)
        while True:
            event = protocol.next_event()
            if event is Signal.PAUSE:
                protocol.take_penalty()
            elif event in (Signal.NEED_DATA, Signal.EOF, Signal.CLOSE):
                break
            elif isinstance(event, Data):
                protocol.accept()
                self.text = b""
            elif isinstance(event, bytes):
                assert self.text is not None
                self.text += event
            elif event in (Signal.BODY_END, Signal.BODY_TOO_LARGE, Signal.BODY_ABORTED):
                if event is Signal.BODY_END and protocol.transfer.fault is None:
                    self.messages.append(self.text or b"")
                protocol.conclude(Reply(250, "OK", "2.0.0"))
            elif event is not Signal.FLUSH:
                protocol.accept()
        return bytes(protocol.data_to_send()).decode("utf-8").splitlines()

    def say_split(self, data: bytes, size: int) -> list[str]:
        """The same in pieces of `size` octets, 0 for whole."""
        step = size or len(data)
        return [line for at in range(0, len(data), step) for line in self.say(data[at : at + step])]


def codes(lines: list[str]) -> list[str]:
    return [line[:3] for line in lines if line[3:4] == " "]
