# The client's side: what it says, and what it does not believe.
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_smtp._protocol.errors import AuthenticationError, LocalProtocolError
from trio_smtp._protocol.replies import Reply
from trio_smtp._protocol.sasl import (
    MAX_ROUNDS,
    DeriveKey,
    External,
    OAuth,
    Password,
    XOAuth,
    client_mechanism,
    encode_challenge,
)

BITS = [b"r=", b"NONCE", b"x", b",s=c2FsdA==", b",i=4096", b"v=", b"e=", b","]
ME = Password("me", "secret")
EVERYTHING: dict[str, Any] = {
    "PLAIN": ME,
    "LOGIN": ME,
    "CRAM-MD5": ME,
    "SCRAM-SHA-1": ME,
    "SCRAM-SHA-256": ME,
    "XOAUTH2": OAuth("me", "token"),
    "OAUTHBEARER": OAuth("me", "token"),
    "XOAUTH": XOAuth("R0VUIGh0dHBz"),
    "EXTERNAL": External(),
}


def client(name, **kwargs):
    return client_mechanism(name, EVERYTHING[name], **kwargs)


def test_plain():
    mechanism = client_mechanism("PLAIN", Password("tim", "tanstaaftanstaaf"))
    assert mechanism.initial_response == b"\0tim\0tanstaaftanstaaf"
    assert mechanism.command() == b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm"
    mechanism.finish()


@pytest.mark.parametrize(
    "prompts", [(b"Username:", b"Password:"), (b"", b""), (b"User Name\0", b"?"), (b"\xff", b"\xfe")]
)
def test_login_with_any_prompts(prompts):
    mechanism = client("LOGIN")
    assert mechanism.initial_response is None
    assert mechanism.command() == b"AUTH LOGIN"
    assert mechanism.respond(prompts[0]) == b"me"
    with pytest.raises(AuthenticationError, match="before LOGIN was complete"):
        mechanism.finish()
    assert mechanism.respond(prompts[1]) == b"secret"
    mechanism.finish()
    with pytest.raises(AuthenticationError, match="after its end"):
        mechanism.respond(b"Once more:")


def test_cram_md5_by_the_example_of_rfc_2195():
    mechanism = client_mechanism("CRAM-MD5", Password("tim", "tanstaaftanstaaf"))
    assert mechanism.command() == b"AUTH CRAM-MD5"
    with pytest.raises(AuthenticationError):
        mechanism.finish()
    answer = mechanism.respond(b"<1896.697170952@postoffice.reston.mci.net>")
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"
    mechanism.finish()


def test_external():
    assert client("EXTERNAL").command() == b"AUTH EXTERNAL ="
    mechanism = client_mechanism("EXTERNAL", External("boss"))
    assert mechanism.initial_response == b"boss"
    mechanism.finish()


def test_oauthbearer_by_the_example_of_rfc_7628():
    auth = OAuth("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")
    mechanism = client_mechanism("OAUTHBEARER", auth, host="server.example.com", port=587)
    assert mechanism.initial_response == (
        b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
    )
    mechanism.finish()
    bare = client_mechanism("OAUTHBEARER", OAuth("a,b", "t"), host="h\x01x")
    assert bare.initial_response == b"n,a=a=2Cb,\x01auth=Bearer t\x01\x01"


def test_xoauth2_by_the_example_of_google():
    auth = OAuth("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    assert encode_challenge(client_mechanism("XOAUTH2", auth).initial_response) == (  # type: ignore[arg-type]
        b"dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhk"
        b"SFJoZG1semRHRXVZMjl0Q2cBAQ=="
    )


@pytest.mark.parametrize(("name", "answer"), [("XOAUTH2", b""), ("OAUTHBEARER", b"\x01"), ("XOAUTH", b"")])
def test_the_error_of_a_token_is_acknowledged_and_kept(name, answer):
    mechanism = client(name)
    text = '{"status":"401","scope":"https://mail.example.com/"}'
    assert mechanism.respond(text.encode()) == answer
    assert mechanism.error_detail == text
    reply = Reply(535, "no", "5.7.8")
    error = mechanism.refused(reply)
    assert error.reply is reply
    assert error.stage == "auth"
    assert text in str(error)
    with pytest.raises(AuthenticationError):
        mechanism.finish()
    with pytest.raises(AuthenticationError):
        mechanism.respond(b"again")


def test_xoauth_sends_what_it_was_given():
    assert client("XOAUTH").command() == b"AUTH XOAUTH R0VUIGh0dHBz"
    assert client_mechanism("XOAUTH", XOAuth(lambda: None), token="eHh4").initial_response == b"xxx"  # type: ignore[arg-type, return-value]


def test_an_initial_response_too_long_for_a_command_waits_to_be_asked_for():
    auth = OAuth("me", "t" * 2000)
    mechanism = client_mechanism("XOAUTH2", auth)
    assert mechanism.command() == b"AUTH XOAUTH2"
    with pytest.raises(AuthenticationError):
        mechanism.finish()
    assert mechanism.respond(b"") == mechanism.initial_response
    mechanism.finish()
    assert mechanism.respond(b"{}") == b""
    assert mechanism.error_detail == "{}"
    other = client_mechanism("XOAUTH2", auth)
    other.command()
    with pytest.raises(AuthenticationError, match="must send"):
        other.respond(b"{}")
    longest = client_mechanism("PLAIN", Password("me", "p" * 370))
    assert len(longest.command()) + 2 <= 512
    assert client_mechanism("PLAIN", Password("me", "p" * 374)).command() == b"AUTH PLAIN"


def test_the_error_says_the_mechanism_and_the_reply_but_no_secret():
    error = client("PLAIN").refused(Reply(535, "bad credentials", "5.7.8"))
    assert str(error) == "PLAIN was refused: 535 5.7.8 bad credentials"


def test_a_token_is_checked_whoever_brought_it():
    for name in ("XOAUTH2", "OAUTHBEARER"):
        with pytest.raises(LocalProtocolError):
            client(name, token="to\r\nken")
    with pytest.raises(LocalProtocolError):
        client("XOAUTH", token="not base64")
    with pytest.raises(ValueError, match="token callable"):
        client_mechanism("XOAUTH2", OAuth("me", lambda: None))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("name", "auth"),
    [
        ("XOAUTH2", ME),
        ("PLAIN", EVERYTHING["XOAUTH2"]),
        ("XOAUTH", EVERYTHING["XOAUTH2"]),
        ("XOAUTH2", EVERYTHING["XOAUTH"]),
        ("PLAIN", External()),
        ("NTLM", ME),
    ],
)
def test_mechanisms_that_do_not_go_with_what_was_given(name, auth):
    with pytest.raises(ValueError, match="does not fit"):
        client_mechanism(name, auth)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(EVERYTHING)),
    st.lists(
        st.binary() | st.lists(st.sampled_from(BITS)).map(b"".join) | st.just(b"r=NONCEx,s=c2FsdA==,i=4096"),
        max_size=MAX_ROUNDS,
    ),
)
def test_whatever_a_server_sends_is_answered_or_an_authentication_error(name, challenges):
    mechanism = client(name)
    nonce = (mechanism.initial_response or b"").rpartition(b"r=")[2]
    error = None
    try:
        for challenge in challenges:
            step = mechanism.respond(challenge.replace(b"NONCE", nonce))
            while isinstance(step, DeriveKey):
                step = mechanism.derived(step())
            assert isinstance(step, bytes)
    except AuthenticationError as exc:
        error = exc
    if error is not None:
        assert error.stage == "auth"
        assert "secret" not in str(error)
        with pytest.raises(AuthenticationError):
            mechanism.finish()
