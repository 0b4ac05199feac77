# The forms SASL has inside SMTP: base64 lines, fields, the GS2 header.
import pytest

from trio_smtp._protocol.errors import AuthenticationError
from trio_smtp._protocol.replies import Reply
from trio_smtp._protocol.sasl.wire import (
    SASLError,
    decode_challenge,
    decode_response,
    encode_challenge,
    identity_field,
    prepare_username,
    quote_saslname,
    split_gs2_header,
    text_field,
    unquote_saslname,
    username_field,
)


def code_of(function, *args, **kwargs):
    with pytest.raises(SASLError) as caught:
        function(*args, **kwargs)
    return caught.value.reply.code, caught.value.reply.enhanced


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", bytes(range(256)), bytearray(b"x" * 1000)])
def test_base64_there_and_back(data):
    line = encode_challenge(data)
    assert b"\n" not in line
    assert decode_response(line) == data


@pytest.mark.parametrize(
    "line",
    [
        b"*",
        b"=",
        b"YQ",
        b"YQ=",
        b"YQ===",
        b"=YQ=",
        b"Y Q==",
        b" YQ==",
        b"YQ== ",
        b"YQ==\r",
        b"YQ==YQ==",
        b"Y-_=",
        b"\xff\xfe",
        b"YQ==\0",
    ],
)
def test_what_is_not_strictly_base64_is_501(line):
    assert code_of(decode_response, line) == (501, "5.5.2")
    if line != b"=":
        assert code_of(decode_response, line, initial=True) == (501, "5.5.2")


def test_an_equals_sign_is_the_empty_initial_response_and_nothing_else():
    assert decode_response(b"=", initial=True) == b""
    assert decode_response(b"") == b""
    assert code_of(decode_response, b"", initial=True) == (501, "5.5.2")


def test_a_megabyte_of_base64_is_decoded_or_refused_at_once():
    assert len(decode_response(b"QUFB" * 250_000)) == 750_000
    assert code_of(decode_response, b"QUFB" * 250_000 + b"!") == (501, "5.5.2")


def test_challenge_of_a_server():
    assert decode_challenge(Reply(334, "VXNlcm5hbWU6")) == b"Username:"
    assert decode_challenge(Reply(334)) == b""
    assert decode_challenge(Reply(334, "VXNlcm5hbWU6 ")) == b"Username:"
    for reply in (Reply(334, "a\nb"), Reply(334, "Go ahead"), Reply(334, "é")):
        with pytest.raises(AuthenticationError) as caught:
            decode_challenge(reply)
        assert caught.value.reply is reply
        assert caught.value.stage == "auth"


def test_fields():
    assert text_field("grüße".encode(), "x") == "grüße"
    assert text_field(b"x" * 255, "x") == "x" * 255
    for raw in (b"x" * 256, "ü".encode() * 128, b"a\0b", b"\xff", b"\xed\xa0\x80"):
        assert code_of(text_field, raw, "x") == (501, "5.5.2")
        assert code_of(username_field, raw) == (501, "5.5.2")
        assert code_of(identity_field, raw) == (501, "5.5.2")


@pytest.mark.parametrize(
    "raw", [b"", b"a\nb", b"a\rb", b"\x7f", "\u200b".encode(), "\u00ad".encode(), "\ue000".encode()]
)
def test_user_names_that_nobody_has(raw):
    assert code_of(username_field, raw) == (501, "5.5.2")


def test_user_names_are_prepared_but_newer_and_mixed_ones_survive():
    assert username_field("I\u00adX".encode()) == "IX"
    assert username_field("\u2168".encode()) == "IX"
    assert username_field("a\u00a0b".encode()) == "a b"
    assert prepare_username("דוד@example.com") == "דוד@example.com"
    assert prepare_username("me😀@example.com") == "me😀@example.com"


@pytest.mark.parametrize("raw", ["a\nb", "a\rb", "\x01", "\x85", "\u2028"])
def test_identities_without_control_characters(raw):
    assert code_of(identity_field, raw.encode()) == (501, "5.5.2")


def test_saslname():
    assert quote_saslname("a,b=c") == b"a=2Cb=3Dc"
    assert unquote_saslname(b"a=2Cb=3Dc") == b"a,b=c"
    assert unquote_saslname(quote_saslname("=2C,=3D")) == b"=2C,=3D"
    for raw in (b"", b"a=b", b"a=2c", b"a=", b"a,b", b"a\0"):
        assert code_of(unquote_saslname, raw) == (501, "5.5.2")


def test_gs2_header():
    assert split_gs2_header(b"n,,rest,of,it") == (b"n,,", None, b"rest,of,it")
    assert split_gs2_header(b"y,a=me=2Cyou,") == (b"y,a=me=2Cyou,", "me,you", b"")
    assert code_of(split_gs2_header, b"p=tls-unique,,n=user") == (501, "5.5.4")
    for message in (b"", b"n", b"n,", b"x,,", b"N,,", b"p,,", b"n,b=x,", b"n,a=,", b"n,a=\xff,", b"n,a=a\nb,", b",,,"):
        assert code_of(split_gs2_header, message) == (501, "5.5.2")
