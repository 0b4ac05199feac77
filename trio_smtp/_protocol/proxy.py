# The header in which a proxy states the client's address, before all else (HAProxy's PROXY protocol, versions 1 and 2).
#
# Guarantees: the result does not depend on how the octets are cut; at most MAX_LENGTH octets after the fixed part are
# kept; octets after the header are not read. ProxyReader.wanted is the number of octets that can be read without
# reading past the header. A caller that reads no more has nothing to pass on to TLS or SMTP; for others the octets
# after the header are in `rest`. This module does not know which peers are trusted. The caller must not read a header
# from any other peer.
from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

from .errors import LocalProtocolError, RemoteProtocolError

MAX_LINE: Final = 107  # octets of a version 1 line with CR LF; specification §2.1
MAX_LENGTH: Final = 4096  # octets after the 16 of a version 2 header; the field could say 65535
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2; to an SMTP server, empty lines and an unknown command
AUTHORITY: Final = 0x02  # PP2_TYPE_AUTHORITY: the name the client asked the proxy for (SNI)

_WORD: Final = b"PROXY "
_FIXED: Final = 16
# The length of the shortest line for each start: this many octets may be read at once.
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
_OTHERS: Final = (0x00, 0x12, 0x22, 0x31, 0x32)  # unspecified, UDP, UNIX: valid, but not used here
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_UNIX_LENGTH: Final = 216
_OTHER_LENGTHS: Final = {0x00: 0, 0x12: 12, 0x22: 36, 0x31: _UNIX_LENGTH, 0x32: _UNIX_LENGTH}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A PROXY header: the addresses of the client behind a proxy.

    Attributes:
        source: the client's address and port. ``None`` if the proxy itself is the client or does not know (``LOCAL``,
            ``UNKNOWN``): use the addresses of the connection.
        destination: the address and port that the client connected to; ``None`` if `source` is.
        version: 1 (a line) or 2 (binary).
        tlvs: the further fields of a version 2 header, as pairs of type and octets.

    Raises:
        LocalProtocolError: an address is invalid, the addresses are of different families, a port is out of range, or
            `tlvs` are given for version 1, invalid or too long.
    """

    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    version: int = 2
    tlvs: tuple[tuple[int, bytes], ...] = ()

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise LocalProtocolError(f"the version of the PROXY protocol must be 1 or 2, not {self.version!r}")
        if (self.source is None) != (self.destination is None):
            raise LocalProtocolError("source and destination must both be given, or neither")
        for end in (self.source, self.destination):
            if end is not None and not _is_address(end):
                raise LocalProtocolError(f"{end!r} is not an address and a port")
        if len({ipaddress.ip_address(end[0]).version for end in (self.source, self.destination) if end}) > 1:
            raise LocalProtocolError("source and destination must be of one address family")
        if not isinstance(self.tlvs, tuple):
            raise TypeError(f"tlvs must be a tuple of pairs, not {self.tlvs!r:.80}")
        if self.tlvs and self.version == 1:
            raise LocalProtocolError("version 1 cannot carry tlvs")
        for pair in self.tlvs:
            if not _is_tlv(pair):
                raise LocalProtocolError(
                    f"each of tlvs must be a pair: a type of 0 to 255, and bytes; not {pair!r:.80}"
                )
        if len(self._addresses()[1]) + sum(3 + len(value) for _, value in self.tlvs) > MAX_LENGTH:
            raise LocalProtocolError(f"the header has more than {MAX_LENGTH} octets")

    @property
    def authority(self) -> str | None:
        """The host name that the client asked the proxy for, or ``None``."""
        for kind, value in self.tlvs:
            if kind == AUTHORITY:
                return value.decode("utf-8", "replace")
        return None

    def to_bytes(self) -> bytes:
        """The header as octets, to send before anything else."""
        if self.version == 1:
            return self._line()
        kind, addresses = self._addresses()
        rest = addresses + b"".join(struct.pack("!BH", tlv, len(value)) + value for tlv, value in self.tlvs)
        command = 0x21 if addresses else 0x20  # version 2, PROXY or LOCAL
        return SIGNATURE + struct.pack("!BBH", command, kind, len(rest)) + rest

    def _addresses(self) -> tuple[int, bytes]:
        """Version 2's octet for family and transport, and its addresses."""
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


def _is_tlv(pair: object) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2:
        return False
    kind, value = pair
    return isinstance(kind, int) and 0 <= kind <= 255 and isinstance(value, bytes)


def _is_address(end: object) -> bool:
    if not isinstance(end, tuple) or len(end) != 2:
        return False
    host, port = end
    # The header cannot carry a scope, and ip_address() accepts numbers too.
    if not isinstance(host, str) or "%" in host or not isinstance(port, int) or not 0 <= port <= 65535:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class ProxyReader:
    """Read a PROXY header of either version, from octets in pieces of any size.

    Attributes:
        wanted: octets that still belong to the header, at least; 0 once it is complete.
        rest: octets received after the header.
    """

    __slots__ = ("_buffer", "rest", "wanted")

    rest: bytes
    wanted: int

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.rest = b""
        self.wanted = _SHORTEST[-1][1]

    def receive_data(self, data: bytes | bytearray) -> ProxyHeader | None:
        """Take octets; return the header if they complete it.

        Raises:
            RemoteProtocolError: the octets are not a PROXY header.
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
    if match[1] is None:  # UNKNOWN: the rest of the line must be ignored
        return ProxyHeader(version=1)
    try:
        family = ipaddress.IPv4Address if match[1] == b"TCP4" else ipaddress.IPv6Address
        source, destination = (str(family(match[i].decode("ascii"))) for i in (2, 3))
        return ProxyHeader((source, int(match[4])), (destination, int(match[5])), 1)
    except ValueError as exc:
        raise RemoteProtocolError(f"a malformed PROXY line: {exc}") from exc


def _read_addresses(command: int, kind: int, data: bytes) -> ProxyHeader:
    if command == 0x20:  # LOCAL: the addresses must be ignored
        return ProxyHeader()
    layout = _ADDRESSES.get(kind)
    size = _OTHER_LENGTHS[kind] if layout is None else layout.size
    if len(data) < size:
        raise RemoteProtocolError("a PROXY header too short for its addresses")
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
            raise RemoteProtocolError("a PROXY header with an incomplete TLV")
        kind, length = struct.unpack_from("!BH", data)
        if len(data) < 3 + length:
            raise RemoteProtocolError("a PROXY header whose TLV is longer than the header")
        tlvs.append((kind, data[3 : 3 + length]))
        data = data[3 + length :]
    return tuple(tlvs)
