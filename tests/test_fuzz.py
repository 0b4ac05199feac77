"""The fuzz targets as property tests: their seed corpus, and inputs that Hypothesis makes of an SMTP vocabulary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz.client
import fuzz.server
from fuzz.runner import SEEDS, load_seeds

SERVER_WORDS = [
    b"EHLO x", b"HELO x", b"LHLO x", b"RSET", b"NOOP", b"QUIT", b"HELP", b"VRFY a", b"EXPN a",
    b"VRFY \xc3\xa4 SMTPUTF8", b"XDO",
    b"DATA", b".", b"..",
    b"MAIL FROM:<>", b"MAIL FROM:<a@a.test> BODY=BINARYMIME", b"MAIL FROM:<a@a.test> SMTPUTF8", b"RCPT TO:<b@b.test>",
    b"RCPT TO:<\xc3\xa4@b.test>", b"BDAT 3", b"BDAT 0 LAST", b"BDAT 301", b"BDAT -1", b"abc", b"a\nb",
    b"a\rb", b"\0", b"",
    b"AUTH PLAIN AG1lAHNlY3JldA==", b"AUTH LOGIN", b"AUTH SCRAM-SHA-256", b"*", b"AG1lAHNlY3JldA==", b"x" * 600,
    b"XCLIENT ADDR=192.0.2.7", b"XFORWARD IDENT=a", b"GET / HTTP/1.1",
]  # fmt: skip
CLIENT_LINES = [
    b"220 x", b"250 x", b"250-x", b"250 PIPELINING", b"250 AUTH PLAIN SCRAM-SHA-256", b"354 go", b"334 ", b"334 !",
    b"334 cj1hYmMscz1RVUpELGk9NDA5Ng==", b"235 ok", b"421 bye", b"450 4.2.0 x", b"550 5.1.1 x", b"552 x", b"2500 x",
    b"25", b"",
    b"250", b"250-", b"\xff\xfe", b"x" * 300,
]  # fmt: skip
header = st.binary(min_size=fuzz.server.HEADER, max_size=fuzz.server.HEADER)
line_end = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"", b"\r\r\n"])


def lines(words: list[bytes]) -> st.SearchStrategy[bytes]:
    line = st.tuples(st.sampled_from(words) | st.binary(max_size=8), line_end).map(b"".join)
    return st.lists(line, max_size=25).map(b"".join)


@pytest.mark.parametrize("name", sorted(path.name for path in (SEEDS / "server").iterdir()))
def test_the_servers_seeds(name: str) -> None:
    fuzz.server.check((SEEDS / "server" / name).read_bytes())


@pytest.mark.parametrize("name", sorted(path.name for path in (SEEDS / "client").iterdir()))
def test_the_clients_seeds(name: str) -> None:
    fuzz.client.check((SEEDS / "client" / name).read_bytes())


def test_the_seeds_reach_far() -> None:
    """A corpus whose sessions all end at their first command would be of little use."""
    accepted = sum(len(fuzz.server.talk(seed, 0).messages) for seed in load_seeds("server"))
    assert accepted >= 12
    answers = [answer for seed in load_seeds("client") for answer in fuzz.client.talk(seed, 1).answers]
    assert len({verb for verb, _ in answers}) >= 12


@given(header, lines(SERVER_WORDS))
def test_whatever_comes_the_server_core_holds(head: bytes, wire: bytes) -> None:
    fuzz.server.check(head + b"EHLO x\r\n" + wire)


@given(st.binary(min_size=2, max_size=2), lines(CLIENT_LINES))
def test_whatever_comes_the_client_core_holds(head: bytes, wire: bytes) -> None:
    fuzz.client.check(head + b"220 x\r\n" + wire)


@given(st.binary(max_size=400))
def test_any_octets(data: bytes) -> None:
    fuzz.server.check(data)
    fuzz.client.check(data)
