from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.extensions import (
    EXTENSIONS,
    KNOWN_EXTENSIONS,
    OPT_IN_EXTENSIONS,
    Extension,
    Extensions,
    Limits,
    Offer,
    always,
    resolve_extensions,
    server_keywords,
)


def offered(*lines):
    return Extensions.from_lines(["mail.example.com at your service", *lines])


# --- client --------------------------------------------------------------------------------------------------------


def test_a_mapping():
    extensions = offered("PIPELINING", "size 1000", "X-Own a  b ", "8BITMIME")
    assert dict(extensions) == {"PIPELINING": "", "SIZE": "1000", "X-OWN": "a  b", "8BITMIME": ""}
    assert extensions["pipelining"] == ""
    assert extensions.get("X-own") == "a  b"
    assert "Size" in extensions
    assert "CHUNKING" not in extensions
    assert 5 not in extensions
    assert len(extensions) == 4
    assert isinstance(extensions, Mapping)
    assert extensions == offered("8bitmime", "PIPELINING", "SIZE 1000", "X-OWN a  b")
    assert "SIZE" in repr(extensions)
    with pytest.raises(KeyError):
        extensions["CHUNKING"]
    with pytest.raises(TypeError):
        extensions["X"] = ""  # type: ignore[index]


def test_the_first_line_is_the_greeting():
    assert dict(Extensions.from_lines(["SIZE 1000"])) == {}
    assert dict(Extensions.from_lines([])) == {}
    assert dict(Extensions()) == {}
    assert Extensions({"size": "5"}).size == 5


def test_lines_without_sense_offer_nothing():
    assert dict(offered("", " ", "-X", "X-EXPS=LOGIN", "é", "A_B", "SMTPUTF8")) == {"SMTPUTF8": ""}


def test_white_space_around_a_keyword_hides_none():
    """smtplib strips it too. A client that did not see STARTTLS would go on in clear."""
    lines = offered(" STARTTLS", "\tSIZE 5", "AUTH PLAIN ", "  AUTH=LOGIN", "PIPELINING\t")
    assert dict(lines) == {"STARTTLS": "", "SIZE": "5", "AUTH": "PLAIN LOGIN", "PIPELINING": ""}


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([], None),
        (["SIZE"], None),
        (["SIZE 0"], None),
        (["SIZE 1"], 1),
        (["SIZE " + "9" * 20], 10**20 - 1),
        (["SIZE " + "9" * 21], None),
        (["SIZE -1"], None),
        (["SIZE 10MB"], None),
        (["SIZE ٣"], None),
    ],
)
def test_size(lines, size):
    assert offered(*lines).size == size
    assert ("SIZE" in offered(*lines)) is bool(lines)


@pytest.mark.parametrize(
    ("lines", "auth"),
    [
        ([], ()),
        (["AUTH"], ()),
        (["AUTH PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["AUTH plain"], ("PLAIN",)),
        (["AUTH=PLAIN LOGIN"], ("PLAIN", "LOGIN")),
        (["auth=login"], ("LOGIN",)),
        (["AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN"], ("LOGIN", "PLAIN")),
        (["AUTH=LOGIN", "AUTH PLAIN LOGIN"], ("LOGIN", "PLAIN")),
        (["AUTH=", "AUTH PLAIN"], ("PLAIN",)),
        (["AUTH PLAIN", "AUTH SCRAM-SHA-256"], ("PLAIN", "SCRAM-SHA-256")),
    ],
)
def test_auth(lines, auth):
    assert offered(*lines).auth == auth


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", Limits()),
        ("MAILMAX=1", Limits(1)),
        ("RCPTMAX=999999 MAILMAX=5 RCPTDOMAINMAX=2", Limits(5, 999_999, 2)),
        ("rcptmax=7", Limits(None, 7)),
        ("RCPTMAX=1000000 MAILMAX=5", Limits(5)),
        ("RCPTMAX=0 MAILMAX=5", Limits(5)),
        ("RCPTMAX=01 MAILMAX=5", Limits(5)),
        ("RCPTMAX=x MAILMAX=5", Limits(5)),
        ("RCPTMAX=-1 MAILMAX=5", Limits(5)),
        ("RCPTMAX MAILMAX=5", Limits(5)),
        ("FUTURE=a/b,c FLAG MAILMAX=5", Limits(5)),
        ("MAILMAX=5 RCPTMAX=", Limits()),
        ("MAILMAX=5 =5", Limits()),
        ("MAILMAX=5 a;b", Limits()),
        ("MAILMAX=5 X=a;b", Limits()),
        ("MAILMAX=5 X=é", Limits()),
        ("MAILMAX=5 A.B=1", Limits()),
    ],
)
def test_limits(text, limits):
    assert offered(f"LIMITS {text}").limits == limits


def test_no_limits():
    assert offered().limits == Limits(None, None, None)


@given(st.lists(st.one_of(st.text(max_size=30), st.builds("LIMITS {}".format, st.text()))))
def test_any_lines_are_read(lines):
    extensions = Extensions.from_lines(lines)
    assert all(keyword.isascii() and keyword == keyword.upper() for keyword in extensions)


# --- server --------------------------------------------------------------------------------------------------------

DEFAULT = resolve_extensions()


def test_names():
    assert {"DSN", "REQUIRETLS", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY"} == OPT_IN_EXTENSIONS
    assert DEFAULT == KNOWN_EXTENSIONS - OPT_IN_EXTENSIONS
    assert len(KNOWN_EXTENSIONS) == len(EXTENSIONS)


def test_resolve():
    assert resolve_extensions(enabled=["dsn"]) == DEFAULT | {"DSN"}
    assert resolve_extensions(disabled=["pipelining"]) == DEFAULT - {"PIPELINING"}
    assert resolve_extensions(enabled=["DSN"], disabled=["DSN"]) == DEFAULT


def test_resolve_drops_what_lacks_its_requirement():
    assert resolve_extensions(disabled=["8BITMIME"]) == DEFAULT - {"8BITMIME", "SMTPUTF8", "BINARYMIME"}
    assert resolve_extensions(disabled=["CHUNKING"]) == DEFAULT - {"CHUNKING", "BINARYMIME"}
    chain = [Extension("XA", always, requires=("XB",)), Extension("XB", always, requires=("CHUNKING",))]
    assert resolve_extensions(extra=chain) == DEFAULT | {"XA", "XB"}
    assert resolve_extensions(disabled=["CHUNKING"], extra=chain) == DEFAULT - {"CHUNKING", "BINARYMIME"}


@pytest.mark.parametrize("where", ["enabled", "disabled"])
def test_unknown_names(where):
    with pytest.raises(ValueError, match="PIPELINE, XYZ"):
        resolve_extensions(**{where: ["xyz", "PIPELINE", "DSN"]})  # type: ignore[arg-type]


def test_the_least_offer():
    assert server_keywords(DEFAULT, Offer()) == [
        "PIPELINING",
        "SIZE 0",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "STARTTLS",
        "CHUNKING",
        "BINARYMIME",
        "VRFY",
        "EXPN",
    ]
    assert server_keywords((), Offer()) == []


def test_the_whole_offer():
    offer = Offer(
        tls=True,
        auth=("PLAIN", "LOGIN"),
        max_message_size=1000,
        max_recipients=100,
        max_messages=10,
        max_hold=3600,
        max_hold_until=datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        min_deliver_by=30,
        xclient=("NAME", "ADDR"),
    )
    assert server_keywords(KNOWN_EXTENSIONS, offer) == [
        "PIPELINING",
        "SIZE 1000",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "AUTH PLAIN LOGIN",
        "CHUNKING",
        "BINARYMIME",
        "LIMITS MAILMAX=10 RCPTMAX=100",
        "DSN",
        "REQUIRETLS",
        "MT-PRIORITY",
        "DELIVERBY 30",
        "FUTURERELEASE 3600 2030-01-01T00:00:00Z",
        "XCLIENT NAME ADDR",
        "VRFY",
        "EXPN",
    ]


def test_starttls():
    assert "STARTTLS" in server_keywords(DEFAULT, Offer())
    assert "STARTTLS" not in server_keywords(DEFAULT, Offer(tls=True))
    assert "STARTTLS" not in server_keywords(DEFAULT - {"STARTTLS"}, Offer())


def test_requiretls_is_offered_inside_tls_only():
    assert "REQUIRETLS" not in server_keywords(KNOWN_EXTENSIONS, Offer(tls=False))
    assert "REQUIRETLS" in server_keywords(KNOWN_EXTENSIONS, Offer(tls=True))


@pytest.mark.parametrize(
    ("offer", "line"),
    [
        (Offer(max_recipients=999_999), "LIMITS RCPTMAX=999999"),
        (Offer(max_messages=1, max_recipients=1_000_000), "LIMITS MAILMAX=1"),
        (Offer(max_recipients=1_000_000), None),
        (Offer(max_recipients=0), None),
        (Offer(), None),
    ],
)
def test_offered_limits(offer, line):
    lines = [line for line in server_keywords(DEFAULT, offer) if line.startswith("LIMITS")]
    assert lines == ([line] if line else [])


def test_futurerelease_always_names_both_maxima():
    assert "FUTURERELEASE 999999999 9999-12-31T23:59:59Z" in server_keywords({"FUTURERELEASE"}, Offer())
    assert server_keywords({"DELIVERBY"}, Offer()) == ["DELIVERBY"]


def test_an_application_offers_its_own():
    own = [Extension("XOWN", lambda offer: "a b"), Extension("XTLS", lambda offer: "" if offer.tls else None)]
    in_force = resolve_extensions(extra=own)
    assert server_keywords(in_force, Offer(), own)[-1] == "XOWN a b"
    assert server_keywords(in_force, Offer(tls=True), own)[-2:] == ["XOWN a b", "XTLS"]
    assert resolve_extensions(disabled=["xown"], extra=own) == DEFAULT | {"XTLS"}


def test_a_client_reads_what_a_server_offers():
    offer = Offer(
        auth=("PLAIN",),
        max_message_size=5,
        max_recipients=2,
        max_messages=3,
        max_hold_until=datetime(2030, 1, 1, tzinfo=UTC),
    )
    lines = server_keywords(KNOWN_EXTENSIONS, offer)
    extensions = offered(*lines)
    assert extensions.size == 5
    assert extensions.auth == ("PLAIN",)
    assert extensions.limits == Limits(3, 2)
    assert [f"{keyword} {text}".rstrip() for keyword, text in extensions.items()] == lines
