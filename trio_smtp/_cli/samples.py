# The messages that the demo sends: .eml files of the package, of different kinds, with CRLF line ends.
from __future__ import annotations

from dataclasses import dataclass
from email import message_from_string
from email.policy import SMTPUTF8
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Sample:
    """A message and the envelope from its header fields.

    Attributes:
        name: of the file, without its suffix.
        sender: from ``From``.
        recipients: from ``To`` and ``Cc``.
        content: the file, byte for byte.
    """

    name: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes


def load_samples() -> list[Sample]:
    """All messages of the package, sorted by name."""
    directory = files(__package__) / "messages"
    paths = [path for path in directory.iterdir() if path.name.endswith(".eml")]
    return [_sample(path.name.removesuffix(".eml"), path.read_bytes()) for path in sorted(paths, key=lambda p: p.name)]


def _sample(name: str, content: bytes) -> Sample:
    # Parsed as text, since the parser of bytes does not decode UTF-8 in addresses.
    header = message_from_string(content.decode("utf-8"), policy=SMTPUTF8)
    recipients = [address.addr_spec for field in ("to", "cc") if field in header for address in header[field].addresses]
    return Sample(name, header["from"].addresses[0].addr_spec, tuple(recipients), content)
