from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.errors import Delivery, LocalProtocolError
from trio_smtp._protocol.extensions import KNOWN_EXTENSIONS
from trio_smtp._protocol.parameter_text import (
    auth_mail_params,
    dsn_mail_params,
    dsn_rcpt_params,
    format_params,
    required_extensions,
)
from trio_smtp._protocol.parameters import ParameterContext, parse_mail, parse_rcpt

ALL = ParameterContext(KNOWN_EXTENSIONS, tls=True)


def test_format():
    assert format_params({}) == ""
    assert format_params({"size": 1234, "BODY": "8BITMIME", "SMTPUTF8": None}) == " SIZE=1234 BODY=8BITMIME SMTPUTF8"


@pytest.mark.parametrize("keyword", ["", "-X", "X Y", "X=", "X\r\n", "X\n", "é", "X_Y", "ſIZE", "X\0"])
def test_bad_keywords(keyword):
    with pytest.raises(LocalProtocolError, match="keyword") as info:
        format_params({keyword: None})
    assert info.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "a=b", "a\r\nDATA", "a\n", "a\0", "a\x7f", "\t", "a\x85", "a\u2028", "a\ud800"]
)
def test_bad_values(value):
    for smtputf8 in (False, True):
        with pytest.raises(LocalProtocolError, match="cannot be the value"):
            format_params({"X": value}, smtputf8=smtputf8)


def test_utf8_values_need_smtputf8():
    assert format_params({"X": "é"}, smtputf8=True) == " X=é"
    with pytest.raises(LocalProtocolError):
        format_params({"X": "é"})


def test_a_keyword_in_two_cases():
    with pytest.raises(LocalProtocolError, match="twice"):
        format_params({"SIZE": 1, "size": 1})


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=20))), st.booleans())
def test_what_is_written_arrives_as_it_was_meant(params, smtputf8):
    try:
        text = format_params(params, smtputf8=smtputf8)
    except LocalProtocolError:
        return
    items = text.split(" ")[1:]
    assert len(text.splitlines()) <= 1
    assert [item.partition("=")[0] for item in items] == [keyword.upper() for keyword in params]
    assert [item.partition("=")[2] for item in items] == ["" if v is None else str(v) for v in params.values()]


@pytest.mark.parametrize(
    ("command", "params", "extensions"),
    [
        ("MAIL", {}, set()),
        ("MAIL", {"size": 1, "RET": "FULL", "ENVID": "x"}, {"SIZE", "DSN"}),
        ("MAIL", {"BODY": "8BITMIME"}, {"8BITMIME"}),
        ("MAIL", {"body": "binarymime"}, {"8BITMIME", "BINARYMIME", "CHUNKING"}),
        ("MAIL", {"BY": "1;R", "HOLDFOR": "1"}, {"DELIVERBY", "FUTURERELEASE"}),
        ("MAIL", {"XOWN": None}, set()),
        ("RCPT", {"NOTIFY": "NEVER"}, {"DSN"}),
        ("RCPT", {"SIZE": 1}, set()),
    ],
)
def test_required_extensions(command, params, extensions):
    assert required_extensions(command, params) == extensions


def mail(params):
    return parse_mail(f"FROM:<a@b>{format_params(params)}".encode(), ALL)


def rcpt(params, smtputf8=False):
    text = format_params(params, smtputf8=smtputf8)
    return parse_rcpt(f"TO:<a@b>{text}".encode(), ALL, smtputf8=smtputf8)


def test_dsn_mail_params():
    assert dsn_mail_params() == {}
    sender = mail(dsn_mail_params(ret="hdrs", envid="a+b=c d"))
    assert (sender.ret, sender.envid) == ("HDRS", "a+b=c d")
    assert len(dsn_mail_params(envid="x" * 100)["ENVID"]) == 100
    assert dsn_mail_params(envid="x") == {"ENVID": "x"}


@pytest.mark.parametrize(
    "kwargs",
    [{"ret": "ALL"}, {"envid": ""}, {"envid": "x" * 101}, {"envid": "+" * 34}, {"envid": "é"}, {"envid": "\r\n"}],
)
def test_bad_dsn_mail_params(kwargs):
    with pytest.raises(LocalProtocolError):
        dsn_mail_params(**kwargs)


@pytest.mark.parametrize(
    ("notify", "text"),
    [("never", "NEVER"), (["success", "DELAY"], "SUCCESS,DELAY"), ("FAILURE", "FAILURE"), (("NEVER",), "NEVER")],
)
def test_notify(notify, text):
    params = dsn_rcpt_params(notify=notify)
    assert params == {"NOTIFY": text}
    assert rcpt(params).notify == set(text.split(","))


@pytest.mark.parametrize("notify", [[], "", "NEVER,SUCCESS", ["NEVER", "SUCCESS"], ["DELAY", "delay"], ["ALWAYS"]])
def test_bad_notify(notify):
    with pytest.raises(LocalProtocolError, match="NOTIFY"):
        dsn_rcpt_params(notify=notify)


@pytest.mark.parametrize(
    ("orcpt", "smtputf8", "text", "parsed"),
    [
        ("a+b@c", False, "rfc822;a+2Bb@c", ("rfc822", "a+b@c")),
        ("é@c", False, "utf-8;\\x{E9}@c", ("utf-8", "é@c")),
        ("é@c", True, "utf-8;é@c", ("utf-8", "é@c")),
        (("X400", "c=us"), False, "X400;c+3Dus", ("x400", "c=us")),
        (("UTF-8", "a+b@c"), False, "UTF-8;a\\x{2B}b@c", ("utf-8", "a+b@c")),
    ],
)
def test_orcpt(orcpt, smtputf8, text, parsed):
    params = dsn_rcpt_params(orcpt=orcpt, smtputf8=smtputf8)
    assert params == {"ORCPT": text}
    assert rcpt(params, smtputf8).orcpt == parsed


def test_orcpt_limit():
    assert dsn_rcpt_params(orcpt="é") == {"ORCPT": "utf-8;\\x{E9}"}
    assert len(dsn_rcpt_params(orcpt="a" * 493)["ORCPT"]) == 500
    with pytest.raises(LocalProtocolError, match="500"):
        dsn_rcpt_params(orcpt="a" * 494)


@pytest.mark.parametrize(
    "orcpt", ["", "a\r\nb", "é\0", ("rfc822", "é"), ("a b", "c"), ("", "c"), ("a;b", "c"), ("a=b", "c"), ("a\n", "c")]
)
def test_bad_orcpt(orcpt):
    with pytest.raises(LocalProtocolError):
        dsn_rcpt_params(orcpt=orcpt)


def test_auth_mail_params():
    assert auth_mail_params("") == {"AUTH": "<>"}
    assert mail(auth_mail_params("")).auth == ""
    assert mail(auth_mail_params("e=mc2@example.com")).auth == "e=mc2@example.com"
    with pytest.raises(LocalProtocolError, match="AUTH"):
        auth_mail_params("é@b")
