# The client's ``auth`` argument: refused early, shown never.
import copy
import pickle

import pytest

from trio_smtp._protocol.errors import LocalProtocolError
from trio_smtp._protocol.sasl import External, OAuth, Password, XOAuth, as_auth
from trio_smtp._protocol.sasl.auth import check_bearer_token, decode_ready_token


async def provider():
    raise AssertionError("only stored")


@pytest.mark.parametrize(
    "auth",
    [Password("me", "s3cret"), OAuth("me", "s3cret"), XOAuth("czNjcmV0"), OAuth("me", provider), XOAuth(provider)],
)
def test_repr_hides_secrets(auth):
    for text in (repr(auth), str(auth), f"{(auth,)}"):
        assert "s3cret" not in text
        assert "czNjcmV0" not in text
        assert "provider" not in text


def test_repr_of_a_password_hides_what_was_derived_from_it():
    auth = Password("me", "s3cret")
    auth._cache_key("sha256", b"salt", 4096, b"derived")
    assert repr(auth) == "Password(username='me', mechanisms=None)"


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\0b", "\ud800", ""])
def test_password_refuses_what_cannot_be_sent(bad):
    for make in (lambda: Password(bad, "x"), lambda: Password("x", bad), lambda: OAuth(bad, "x")):
        with pytest.raises(LocalProtocolError) as caught:
            make()
        assert not bad or bad not in str(caught.value)
    if bad:
        with pytest.raises(LocalProtocolError):
            External(bad)


def test_types():
    for make in (
        lambda: Password(b"x", "x"),  # type: ignore[arg-type]
        lambda: Password("x", None),  # type: ignore[arg-type]
        lambda: Password("x", "x", "PLAIN"),
        lambda: OAuth("x", None),  # type: ignore[arg-type]
        lambda: OAuth("x", b"token"),  # type: ignore[arg-type]
        lambda: XOAuth(3),  # type: ignore[arg-type]
        lambda: External(None),  # type: ignore[arg-type]
        lambda: as_auth("me:secret"),  # type: ignore[arg-type]
        lambda: as_auth(("me",)),  # type: ignore[arg-type]
        lambda: as_auth(None),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            make()


def test_mechanisms_of_a_password():
    assert Password("a", "b").mechanisms is None
    assert Password("a", "b", ["plain", "CRAM-MD5"]).mechanisms == ("PLAIN", "CRAM-MD5")
    for bad in (["XOAUTH2"], ["PLAIN", "NTLM"], []):
        with pytest.raises(LocalProtocolError):
            Password("a", "b", mechanisms=bad)


def test_tokens():
    assert check_bearer_token("ya29.a0-_~+/==") == "ya29.a0-_~+/=="
    for bad in ("", "two words", "a\x01b", "a\n", "a=b", "töken"):
        with pytest.raises(LocalProtocolError):
            check_bearer_token(bad)
        with pytest.raises(LocalProtocolError):
            OAuth("me", bad)
    with pytest.raises(LocalProtocolError):
        OAuth("me\x01auth=Bearer other", "token")
    with pytest.raises(TypeError):
        check_bearer_token(None)
    assert decode_ready_token("R0VUIA==") == b"GET "
    for bad in ("", "R0VUIA", "not base64", "\ud800", "é"):
        with pytest.raises(LocalProtocolError):
            XOAuth(bad)
    with pytest.raises(TypeError):
        decode_ready_token(b"R0VUIA==")


def test_as_auth():
    assert as_auth(("me", "secret")) == Password("me", "secret")
    for auth in (Password("a", "b"), OAuth("a", provider), XOAuth(provider), External()):
        assert as_auth(auth) is auth


def test_values_compare_copy_and_stay_as_they_are():
    auth = Password("me", "secret", ["PLAIN"])
    auth._cache_key("sha1", b"s", 4096, b"k")
    assert auth == Password("me", "secret", ["plain"]) != Password("me", "other", ["PLAIN"])
    assert hash(auth) == hash(Password("me", "secret", ["plain"]))
    assert copy.copy(auth) == auth == pickle.loads(pickle.dumps(auth))
    with pytest.raises(AttributeError):
        auth.password = "other"  # type: ignore[misc]


def test_the_cache_of_derived_keys_is_bounded():
    auth = Password("me", "secret")
    for number in range(1000):
        auth._cache_key("sha256", b"%d" % number, 4096, b"key")
    assert len(auth._keys) <= 8
    assert auth._cached_key("sha256", b"999", 4096) == b"key"
    assert auth._cached_key("sha256", b"999", 4097) is None
