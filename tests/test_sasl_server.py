# The server's side: each mechanism by itself, with every malformed message a client may send.
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.sasl import (
    REVEALING_MECHANISMS,
    SERVER_MECHANISMS,
    Challenge,
    CredentialsReady,
    MechanismContext,
    SASLError,
    UnverifiedError,
    decode_response,
    encode_challenge,
)

CONTEXT = MechanismContext(hostname="mx.example.com", external_identity="CN=client")
BITS = [b"n,,", b"n=", b"r=", b"c=biws", b",", b"p=", b"a", b"\0", b"\x01", b"auth=", b"user=", b" "]
CLIENT_FIRST = ["PLAIN", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "SCRAM-SHA-1", "SCRAM-SHA-256"]


def server(name, context=CONTEXT):
    return SERVER_MECHANISMS[name](context)


def credentials(name, message):
    step = server(name).start(message)
    assert isinstance(step, CredentialsReady)
    return step.credentials


def refused(name, *messages):
    mechanism = server(name)
    step = mechanism.start
    for message in messages[:-1]:
        assert isinstance(step(message), Challenge)
        step = mechanism.respond
    with pytest.raises(SASLError) as caught:
        step(messages[-1])
    return caught.value.reply.code, caught.value.reply.enhanced


def test_which_mechanisms_there_are():
    assert set(SERVER_MECHANISMS) == {*CLIENT_FIRST, "LOGIN", "CRAM-MD5"}
    assert {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"} == REVEALING_MECHANISMS
    for name, make in SERVER_MECHANISMS.items():
        assert make(CONTEXT).name == name
    with pytest.raises(TypeError):
        SERVER_MECHANISMS["PLAIN"] = None  # type: ignore[index]


@pytest.mark.parametrize("name", CLIENT_FIRST)
def test_where_the_client_begins_an_empty_challenge_asks_for_it(name):
    assert server(name).start(None) == Challenge(b"")


# ---- PLAIN


def test_plain_by_the_examples_of_rfc_4616():
    mine = credentials("PLAIN", b"\0tim\0tanstaaftanstaaf")
    assert (mine.username, mine.password, mine.authorization_id) == ("tim", "tanstaaftanstaaf", None)
    acting = credentials("PLAIN", b"Ursel\0Kurt\0xipj3plmq")
    assert (acting.username, acting.password, acting.authorization_id) == ("Kurt", "xipj3plmq", "Ursel")
    assert (acting.mechanism, acting.token) == ("PLAIN", None)
    asked = server("PLAIN")
    asked.start(None)
    assert asked.respond(b"\0tim\0x").credentials.password == "x"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"tim",
        b"\0tim",
        b"tim\0secret",
        b"\0\0secret",
        b"\0tim\0",
        b"\0\0",
        b"\0tim\0secret\0",
        b"\0tim\0sec\0ret",
        b"\0\xff\0secret",
        b"\0tim\0\xff",
        b"\xff\0tim\0secret",
        b"\0" + b"u" * 256 + b"\0secret",
        b"a" * 256 + b"\0tim\0secret",
        b"\0tim\0" + b"p" * 4097,
        b"\0ti\nm\0secret",
        b"ad\rmin\0tim\0secret",
    ],
)
def test_malformed_plain(message):
    assert refused("PLAIN", message) == (501, "5.5.2")
    assert refused("PLAIN", None, message) == (501, "5.5.2")


def test_plain_takes_the_lengths_that_the_rfc_demands():
    mine = credentials("PLAIN", b"a" * 255 + b"\0" + b"u" * 255 + b"\0" + b"p" * 255)
    assert (len(mine.authorization_id), len(mine.username), len(mine.password)) == (255, 255, 255)


# ---- LOGIN


def test_login_asks_twice_in_the_usual_words():
    mechanism = server("LOGIN")
    first = mechanism.start(None)
    assert encode_challenge(first.data) == b"VXNlcm5hbWU6"
    second = mechanism.respond(b"me")
    assert encode_challenge(second.data) == b"UGFzc3dvcmQ6"
    mine = mechanism.respond(b"secret").credentials
    assert (mine.mechanism, mine.username, mine.password) == ("LOGIN", "me", "secret")


def test_login_with_the_user_name_as_initial_response():
    mechanism = server("LOGIN")
    assert mechanism.start(b"me") == Challenge(b"Password:")
    assert mechanism.respond(b"secret").credentials.username == "me"


@pytest.mark.parametrize("bad", [b"", b"\xff", b"a\0b", b"x" * 5000])
def test_malformed_login(bad):
    assert refused("LOGIN", bad) == (501, "5.5.2")
    assert refused("LOGIN", None, bad) == (501, "5.5.2")
    assert refused("LOGIN", None, b"me", bad) == (501, "5.5.2")


# ---- CRAM-MD5


def test_cram_md5():
    mechanism = server("CRAM-MD5")
    challenge = mechanism.start(None).data
    assert challenge.startswith(b"<")
    assert challenge.endswith(b"@mx.example.com>")
    assert challenge != server("CRAM-MD5").start(None).data
    mine = mechanism.respond(b"first last " + b"0123456789ABCDEF" * 2).credentials
    assert mine.username == "first last"
    assert mine.password is None
    assert not mine.check_password("secret")
    with pytest.raises(UnverifiedError):
        mechanism.verdict(True)


def test_cram_md5_takes_no_initial_response():
    assert refused("CRAM-MD5", b"me digest") == (501, "5.7.0")
    assert refused("CRAM-MD5", b"") == (501, "5.7.0")


@pytest.mark.parametrize(
    "bad", [b"", b"me", b"me ", b"me " + b"0" * 31, b"me " + b"g" * 32, b" " + b"0" * 32, b"0" * 32]
)
def test_malformed_cram_md5(bad):
    assert refused("CRAM-MD5", None, bad) == (501, "5.5.2")


# ---- EXTERNAL


def test_external():
    mine = credentials("EXTERNAL", b"")
    assert (mine.username, mine.authorization_id, mine.password, mine.token) == ("CN=client", None, None, None)
    assert credentials("EXTERNAL", "jürgen".encode()).authorization_id == "jürgen"
    for bad in (b"\0", b"\xff", b"a\r\nb", b"x" * 256):
        assert refused("EXTERNAL", bad) == (501, "5.5.2")


def test_external_without_a_certificate():
    for message in (b"", b"boss"):
        with pytest.raises(SASLError) as caught:
            server("EXTERNAL", MechanismContext()).start(message)
        assert caught.value.reply.code == 535


# ---- XOAUTH2, OAUTHBEARER

BEARER = (
    b"bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI"
    b"HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)
XOAUTH2 = (
    b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbV"
    b"RjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
)


def test_oauthbearer_by_the_example_of_rfc_7628():
    mine = credentials("OAUTHBEARER", decode_response(BEARER))
    assert mine.mechanism == "OAUTHBEARER"
    assert mine.username == mine.authorization_id == "user@example.com"
    assert mine.token == "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
    assert mine.password is None


def test_xoauth2_by_the_example_of_google():
    mine = credentials("XOAUTH2", decode_response(XOAUTH2))
    assert (mine.username, mine.authorization_id) == ("someuser@example.com", None)
    assert mine.token == "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"


def test_oauthbearer_without_a_name_leaves_it_to_the_token():
    mine = credentials("OAUTHBEARER", b"n,,\x01auth=bearer  t\x01\x01")
    assert (mine.username, mine.authorization_id, mine.token) == ("", None, "t")
    assert credentials("OAUTHBEARER", b"y,a=a=2Cb,\x01auth=Bearer t\x01\x01").username == "a,b"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"\x01\x01",
        b"auth=Bearer t\x01\x01",
        b"n,,auth=Bearer t\x01\x01",
        b"n,,\x01auth=Bearer t\x01",
        b"n,,\x01auth=Bearer t",
        b"n,,\x01\x01",
        b"n,,\x01host=x\x01\x01",
        b"n,,\x01auth=Bearer\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Basic dTpw\x01\x01",
        b"n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth=Bearer t\x01x\x01\x01",
        b"n,,\x01auth=Bearer t\x01k y=x\x01\x01",
        b"n,,\x01auth=Bearer t\x01port=x\x01\x01",
        b"n,,\x01auth=Bearer t\x01x=\xff\x01\x01",
        b"n,,\x01auth=Bearer t\x01x=a\0b\x01\x01",
        "n,,\x01auth=Bearer t\x01x=ü\x01\x01".encode(),
        b"n,,\x01auth=Bearer t\x01\x01\x01",
        b"n,a=,\x01auth=Bearer t\x01\x01",
        b"n,a=a\nb,\x01auth=Bearer t\x01\x01",
    ],
)
def test_malformed_oauthbearer(message):
    assert refused("OAUTHBEARER", message) == (501, "5.5.2")


def test_oauthbearer_refuses_channel_binding():
    assert refused("OAUTHBEARER", b"p=tls-unique,,\x01auth=Bearer t\x01\x01") == (501, "5.5.4")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"user=me\x01\x01",
        b"auth=Bearer t\x01\x01",
        b"user=\x01auth=Bearer t\x01\x01",
        b"user=me\x01auth=Bearer t\x01",
        b"user=me\x01user=you\x01auth=Bearer t\x01\x01",
        b"user=m\ne\x01auth=Bearer t\x01\x01",
        b"user=m\0e\x01auth=Bearer t\x01\x01",
        b"user=" + b"m" * 256 + b"\x01auth=Bearer t\x01\x01",
        b"user=me\x01auth=t\x01\x01",
    ],
)
def test_malformed_xoauth2(message):
    assert refused("XOAUTH2", message) == (501, "5.5.2")


def test_a_user_name_beyond_ascii():
    assert credentials("XOAUTH2", "user=jürgen@exämple.com\x01auth=Bearer t\x01\x01".encode()).username == (
        "jürgen@exämple.com"
    )


def test_a_long_token():
    token = b"e" * 8000
    assert credentials("XOAUTH2", b"user=me\x01auth=Bearer " + token + b"\x01\x01").token == token.decode()


@pytest.mark.parametrize(
    ("name", "message", "status", "acknowledgement"),
    [
        ("OAUTHBEARER", b"n,a=me,\x01auth=Bearer t\x01\x01", "invalid_token", b"\x01"),
        ("XOAUTH2", b"user=me\x01auth=Bearer t\x01\x01", "401", b""),
    ],
)
def test_a_refused_token_is_explained(name, message, status, acknowledgement):
    mechanism = server(name)
    mechanism.start(message)
    assert json.loads(mechanism.verdict(False))["status"] == status
    assert mechanism.closing_response(acknowledgement)
    assert not mechanism.closing_response(b"something else")
    accepted = server(name)
    accepted.start(message)
    assert accepted.verdict(True) is None


def test_a_client_without_a_token_learns_what_would_be_wanted():
    mechanism = server("OAUTHBEARER")
    step = mechanism.start(b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=\x01\x01")
    assert json.loads(step.data) == {"status": "invalid_token"}
    with pytest.raises(SASLError) as caught:
        mechanism.respond(b"\x01")
    assert caught.value.reply.code == 535


# ---- all of them


@pytest.mark.parametrize("name", SERVER_MECHANISMS)
def test_used_in_the_wrong_order(name):
    mechanism = server(name)
    with pytest.raises(RuntimeError):
        mechanism.respond(b"")
    with pytest.raises(RuntimeError):
        mechanism.verdict(True)
    mechanism.start(None)
    with pytest.raises(RuntimeError):
        mechanism.start(None)
    with pytest.raises(RuntimeError):
        mechanism.verdict(False)


def test_nothing_after_the_credentials_or_an_error():
    mechanism = server("PLAIN")
    mechanism.start(b"\0me\0secret")
    with pytest.raises(RuntimeError):
        mechanism.respond(b"")
    assert mechanism.verdict(True) is None
    mechanism = server("PLAIN")
    with pytest.raises(SASLError):
        mechanism.start(b"")
    with pytest.raises(RuntimeError):
        mechanism.respond(b"\0me\0secret")
    with pytest.raises(RuntimeError):
        mechanism.verdict(True)


@given(
    st.sampled_from(sorted(SERVER_MECHANISMS)),
    st.none() | st.binary(),
    st.lists(
        st.binary() | st.lists(st.sampled_from(BITS)).map(b"".join),
        max_size=4,
    ),
)
def test_whatever_a_client_sends_ends_in_credentials_or_a_refusal(name, initial, responses):
    mechanism = server(name)
    refusal = None
    try:
        step = mechanism.start(initial)
        for response in responses:
            if isinstance(step, CredentialsReady):
                break
            step = mechanism.respond(response)
    except SASLError as exc:
        refusal = exc.reply
    assert refusal.is_permanent if refusal else isinstance(step, Challenge | CredentialsReady)


def test_nothing_of_a_secret_in_a_repr():
    mechanism = server("LOGIN")
    mechanism.start(b"me")
    step = mechanism.respond(b"s3cret")
    assert "s3cret" not in repr(step)
    assert "s3cret" not in repr(mechanism)
    assert "s3cret" not in repr(Challenge(b"s3cret"))
