# The header that a proxy puts in front of a connection to say who the client is (HAProxy's PROXY protocol, 1 and 2).
#
# Guarantees. One octet at a time is read as the whole is. Nothing is kept beyond MAX_LENGTH octets. What follows the
# header is not looked at: ProxyReader.wanted says how many octets can be read without reading past it, so that a
# caller who reads no more than that has nothing to hand on to TLS or SMTP; for others it is in `rest`.
# This file does not know whom to believe. A header from anybody but a trusted proxy is a lie to be refused unread.
from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from .errors import RemoteProtocolError

Address: TypeAlias = tuple[str, int]

MAX_LINE: Final = 107  # octets of a version 1 line with CR LF; specification §2.1
MAX_LENGTH: Final = 4096  # octets after the 16 of a version 2 header; the field could say 65535
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2; in SMTP three empty lines and nonsense
AUTHORITY: Final = 0x02  # PP2_TYPE_AUTHORITY: the name the client asked the proxy for (SNI)

_WORD: Final = b"PROXY "
_FIXED: Final = 16
# The shortest lines there are, by how they begin: as much may be read without a look.
_SHORTEST: Final = (
    (b"PROXY TCP4 ", len(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n")),
    (b"PROXY TCP6 ", len(b"PROXY TCP6 :: :: 1 1\r\n")),
    (b"", len(b"PROXY UNKNOWN\r\n")),
)
_PORT: Final = rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|(TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) %b %b)\r\n" % (_PORT, _PORT)
)
_TCP4, _TCP6 = 0x11, 0x21  # family and transport in one octet
_OTHERS: Final = (0x00, 0x12, 0x22, 0x31, 0x32)  # unspecified, UDP, UNIX: known, of no use here
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_UNIX_LENGTH: Final = 216
_OTHER_LENGTHS: Final = {0x00: 0, 0x12: 12, 0x22: 36, 0x31: _UNIX_LENGTH, 0x32: _UNIX_LENGTH}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Who is at the other end of a proxy.

    Attributes:
        source: the client's address and port; ``None`` where the proxy speaks for itself or does not know (``LOCAL``,
            ``UNKNOWN``): then the connection's own addresses are the right ones.
        destination: the address and port that the client connected to, ``None`` together with `source`.
        version: 1 (a line) or 2 (binary).
        tlvs: what else a version 2 header says, as pairs of type and octets.

    Raises:
        ValueError: addresses of different families or none, a port out of range, or `tlvs` in version 1 or that are
            too long or none.
    """

    source: Address | None = None
    destination: Address | None = None
    version: int = 2
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ValueError(f"there is no version {self.version!r} of the PROXY protocol")
        if (self.source is None) != (self.destination is None):
            raise ValueError("source and destination go together")
        for end in (self.source, self.destination):
            if end is not None and not _is_address(end):
                raise ValueError(f"{end!r} is no address and port")
        if self.source is not None and self.destination is not None:
            families = {ipaddress.ip_address(host).version for host, _ in (self.source, self.destination)}
            if len(families) != 1:
                raise ValueError("source and destination are of different families")
        if self.tlvs and self.version == 1:
            raise ValueError("version 1 has no room for tlvs")
        for kind, value in self.tlvs:
            if not 0 <= kind <= 255 or not isinstance(value, bytes):
                raise ValueError(f"{kind!r} with {value!r:.20} is no octet and octets")
        if len(self._addresses()[1]) + sum(3 + len(value) for _, value in self.tlvs) > MAX_LENGTH:
            raise ValueError(f"the header has more than {MAX_LENGTH} octets")

    @property
    def authority(self) -> str | None:
        """The host name that the client asked the proxy for, if it says so."""
        for kind, value in self.tlvs:
            if kind == AUTHORITY:
                return value.decode("utf-8", "replace")
        return None

    def to_bytes(self) -> bytes:
        """The header as it goes over the wire, before anything else."""
        if self.version == 1:
            return self._line()
        kind, addresses = self._addresses()
        rest = addresses + b"".join(struct.pack("!BH", tlv, len(value)) + value for tlv, value in self.tlvs)
        command = 0x21 if addresses else 0x20  # version 2, PROXY or LOCAL
        return SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest

    def _addresses(self) -> tuple[int, bytes]:
        """Family and transport, and the addresses that version 2 has for them."""
        if self.source is None or self.destination is None:
            return 0x00, b""
        hosts = [ipaddress.ip_address(host).packed for host, _ in (self.source, self.destination)]
        kind = _TCP4 if len(hosts[0]) == 4 else _TCP6
        return kind, _ADDRESSES[kind].pack(*hosts, self.source[1], self.destination[1])

    def _line(self) -> bytes:
        if self.source is None or self.destination is None:
            return b"PROXY UNKNOWN\r\n"
        (source, sport), (destination, dport) = self.source, self.destination
        family = ipaddress.ip_address(source).version
        return f"PROXY TCP{family} {source} {destination} {sport} {dport}\r\n".encode("ascii")


def _is_address(end: Address) -> bool:
    host, port = end
    # A scope would be lost, and ip_address() takes numbers too.
    return isinstance(host, str) and "%" not in host and isinstance(port, int) and 0 <= port <= 65535


class ProxyReader:
    """A PROXY header of either version from octets in any pieces.

    Attributes:
        wanted: octets that certainly still belong to the header; 0 once it is complete.
        rest: what came after it.
    """

    __slots__ = ("_buffer", "rest", "wanted")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.rest = b""
        self.wanted = _SHORTEST[-1][1]

    def receive_data(self, data: bytes | bytearray) -> ProxyHeader | None:
        """Take octets; returns the header when they complete it.

        Raises:
            RemoteProtocolError: they are no PROXY header.
        """
        buffer = self._buffer
        buffer += data
        if SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
            return self._read_binary()
        if not _WORD.startswith(buffer[: len(_WORD)]):
            raise RemoteProtocolError("not a PROXY header")
        end = buffer.find(b"\n", 0, MAX_LINE)
        if end >= 0:
            return self._finish(end + 1, _read_line(bytes(buffer[: end + 1])))
        if len(buffer) >= MAX_LINE:
            raise RemoteProtocolError("a PROXY line without an end")
        shortest = next(length for start, length in _SHORTEST if buffer.startswith(start))
        self.wanted = max(shortest - len(buffer), 1 if buffer.endswith(b"\r") else 2)
        return None

    def _read_binary(self) -> ProxyHeader | None:
        buffer = self._buffer
        if len(buffer) < _FIXED:
            self.wanted = (_FIXED if buffer else _SHORTEST[-1][1]) - len(buffer)
            return None
        command, kind, length = struct.unpack_from("!BBH", buffer, len(SIGNATURE))
        if length > MAX_LENGTH:
            raise RemoteProtocolError(f"a PROXY header of more than {MAX_LENGTH} octets")
        if command not in (0x20, 0x21) or (kind not in _ADDRESSES and kind not in _OTHERS):
            raise RemoteProtocolError("a PROXY header of an unknown kind")
        self.wanted = max(0, _FIXED + length - len(buffer))
        if self.wanted:
            return None
        end = _FIXED + length
        return self._finish(end, _read_addresses(command, kind, bytes(buffer[_FIXED:end])))

    def _finish(self, end: int, header: ProxyHeader) -> ProxyHeader:
        self.wanted = 0
        self.rest = bytes(self._buffer[end:])
        self._buffer.clear()
        return header


def _read_line(line: bytes) -> ProxyHeader:
    match = _LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError("a malformed PROXY line")
    if match[1] is None:  # UNKNOWN: whatever stands behind it is to be ignored
        return ProxyHeader(version=1)
    try:
        family = ipaddress.IPv4Address if match[1] == b"TCP4" else ipaddress.IPv6Address
        source, destination = (str(family(match[i].decode("ascii"))) for i in (2, 3))
        return ProxyHeader((source, int(match[4])), (destination, int(match[5])), 1)
    except ValueError as exc:
        raise RemoteProtocolError(f"a malformed PROXY line: {exc}") from exc


def _read_addresses(command: int, kind: int, data: bytes) -> ProxyHeader:
    if command == 0x20:  # LOCAL: the addresses, whatever they are, must be discarded
        return ProxyHeader()
    layout = _ADDRESSES.get(kind)
    size = _OTHER_LENGTHS[kind] if layout is None else layout.size
    if len(data) < size:
        raise RemoteProtocolError("a PROXY header without its addresses")
    tlvs = _read_tlvs(data[size:])
    if layout is None:
        return ProxyHeader(tlvs=tlvs)
    source, destination, sport, dport = layout.unpack_from(data)
    family = ipaddress.IPv4Address if kind == _TCP4 else ipaddress.IPv6Address
    return ProxyHeader((str(family(source)), sport), (str(family(destination)), dport), 2, tlvs)


def _read_tlvs(data: bytes) -> tuple[tuple[int, bytes], ...]:
    tlvs: list[tuple[int, bytes]] = []
    while data:
        if len(data) < 3:
            raise RemoteProtocolError("a PROXY header with a piece of a TLV")
        kind, length = struct.unpack_from("!BH", data)
        if len(data) < 3 + length:
            raise RemoteProtocolError("a PROXY header whose TLV ends outside of it")
        tlvs.append((kind, data[3 : 3 + length]))
        data = data[3 + length :]
    return tuple(tlvs)
