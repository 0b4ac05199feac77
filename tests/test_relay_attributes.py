"""The attributes of XCLIENT and XFORWARD: a table, and a parser that bounds each."""

from __future__ import annotations

import pytest

from trio_smtp import Reject
from trio_smtp._protocol.relay_attributes import MAX_VALUE, XCLIENT, XFORWARD, parse_attributes


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        (b"NAME=mx.test ADDR=192.0.2.1", {"NAME": "mx.test", "ADDR": "192.0.2.1"}),
        (b"name=mx.test  addr=ipv6:2001:DB8::1 ", {"NAME": "mx.test", "ADDR": "2001:db8::1"}),
        (b"NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] PORT=0025", {"NAME": None, "ADDR": None, "PORT": "25"}),
        (b"PROTO=esmtp LOGIN=a+20b", {"PROTO": "ESMTP", "LOGIN": "a b"}),
    ],
)
def test_what_is_read(argument: bytes, attributes: dict[str, str | None]) -> None:
    assert parse_attributes(argument, XCLIENT) == attributes


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b" ",
        b"FOO=1",
        b"NAME",
        b"NAME=two+20words",
        b"ADDR=mx.test",
        b"ADDR=IPV6:1",
        b"PORT=65536",
        b"PORT=x",
        b"PROTO=LMTP",
        b"LOGIN=+zz",
        b"LOGIN=" + b"x" * (MAX_VALUE + 1),
        b"LOGIN=" + b"+41" * (MAX_VALUE + 1),
    ],
)
def test_what_is_refused(argument: bytes) -> None:
    with pytest.raises(Reject) as caught:
        parse_attributes(argument, XCLIENT)
    assert caught.value.reply.code == 501


def test_each_command_has_attributes_of_its_own() -> None:
    assert parse_attributes(b"IDENT=1 SOURCE=local", XFORWARD) == {"IDENT": "1", "SOURCE": "LOCAL"}
    with pytest.raises(Reject, match="LOGIN"):
        parse_attributes(b"IDENT=1", XCLIENT)
    assert parse_attributes(b"LOGIN=" + b"x" * MAX_VALUE, XCLIENT) == {"LOGIN": "x" * MAX_VALUE}
