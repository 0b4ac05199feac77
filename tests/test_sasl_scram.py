# SCRAM on both ends, by the examples of RFC 5802 section 5 and RFC 7677 section 3, and against meddling.
import base64
import hashlib
from functools import partial
from typing import Any

import pytest

from trio_smtp._protocol.errors import AuthenticationError, LocalProtocolError
from trio_smtp._protocol.sasl import (
    Challenge,
    CredentialsReady,
    DeriveKey,
    MechanismContext,
    Password,
    SASLError,
    UnverifiedError,
)
from trio_smtp._protocol.sasl.scram import ScramKeys, salted_password, xor
from trio_smtp._protocol.sasl.scram_client import ScramClient
from trio_smtp._protocol.sasl.scram_server import ScramServer

ScramSHA1Client, ScramSHA256Client = partial(ScramClient, "SCRAM-SHA-1"), partial(ScramClient, "SCRAM-SHA-256")
ScramSHA1Server, ScramSHA256Server = partial(ScramServer, "SCRAM-SHA-1"), partial(ScramServer, "SCRAM-SHA-256")

SHA1 = (
    ScramSHA1Client,
    ScramSHA1Server,
    b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
    b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
    b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
)
SHA256 = (
    ScramSHA256Client,
    ScramSHA256Server,
    b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
)
both = pytest.mark.parametrize("vector", [SHA1, SHA256], ids=["sha1", "sha256"])
CONTEXT = MechanismContext(secret=b"0123456789abcdef")


def nonce_of(message):
    return message.partition(b"r=")[2].partition(b",")[0]


def answer(client, challenge):
    step = client.respond(challenge)
    while isinstance(step, DeriveKey):
        step = client.derived(step())
    return step


@both
def test_the_client_of_the_rfc(vector):
    make, _, first, server_first, final, server_final = vector
    client = make(Password("user", "pencil"), nonce=nonce_of(first))
    assert client.initial_response == first
    work = client.respond(server_first)
    assert isinstance(work, DeriveKey)
    assert "pencil" not in repr(work)
    assert client.derived(work()) == final
    assert client.respond(server_final) == b""
    client.finish()


@both
def test_the_server_of_the_rfc(vector, monkeypatch):
    _, make, first, server_first, final, server_final = vector
    server = make(CONTEXT, nonce=nonce_of(server_first).removeprefix(nonce_of(first)))
    salt = base64.b64decode(server_first.partition(b"s=")[2].partition(b",")[0])
    monkeypatch.setattr(server, "_salt", {"user": salt}.__getitem__)
    assert server.start(first) == Challenge(server_first)
    step = server.respond(final)
    assert isinstance(step, CredentialsReady)
    assert (step.credentials.username, step.credentials.mechanism) == ("user", server.name)
    assert step.credentials.password is None
    assert not step.credentials.check_password("pencil ")
    assert not step.credentials.verified
    assert step.credentials.check_password("pencil")
    assert server.verdict(True) == server_final
    assert server.closing_response(b"")
    assert not server.closing_response(b"x")


def begin(vector=SHA256, first=b"n,,n=user,r=abc", context=CONTEXT):
    server = vector[1](context)
    return server, server.start(first).data


def through(vector, password="pencil", expected="pencil", username="user"):
    """One exchange as far as the credentials."""
    client = vector[0](Password(username, password))
    server = vector[1](CONTEXT)
    step = server.start(client.initial_response)
    step = server.respond(answer(client, step.data))
    return client, server, step.credentials, step.credentials.check_password(expected)


@both
def test_without_an_initial_response_the_server_asks_for_it(vector):
    client, server = vector[0](Password("user", "pencil")), vector[1](CONTEXT)
    assert server.start(None) == Challenge(b"")
    assert isinstance(server.respond(client.initial_response), Challenge)


@both
@pytest.mark.parametrize(("password", "expected"), [("pencil", "pen"), ("pencil", None), ("pencil", ""), ("x", "a\0b")])
def test_wrong_passwords_and_unknown_users(vector, password, expected):
    client, server, credentials, matched = through(vector, password, expected)
    assert not matched
    assert not credentials.verified
    assert server.verdict(False) is None
    with pytest.raises(AuthenticationError, match="235 before"):
        client.finish()


@both
@pytest.mark.parametrize("username", ["a,b=c", "=2C", "Jürgen", "דוד@example.com", "with space"])
@pytest.mark.parametrize("password", ["pencil", "pass,word=", "I\u00adX", "\u2168", "a\u00a0b"])
def test_names_and_passwords_with_a_difference(vector, username, password):
    client, server, credentials, matched = through(vector, password, password, username)
    assert matched
    assert credentials.username == username
    assert answer(client, server.verdict(True)) == b""
    client.finish()


def test_passwords_are_compared_as_prepared():
    assert through(SHA256, "\u2168", "I\u00adX")[3]


def test_a_password_that_cannot_be_prepared():
    for bad in ("pass😀", "\u06271"):
        with pytest.raises(LocalProtocolError, match="RFC 4013") as caught:
            ScramSHA256Client(Password("user", bad))
        assert bad not in str(caught.value)
        assert not through(SHA256, "pencil", bad)[3]


def test_accepting_without_a_check_is_a_programming_error():
    _, server, credentials, matched = through(SHA1, expected="other")
    assert credentials.needs_check
    assert not matched
    with pytest.raises(UnverifiedError, match="check_password") as caught:
        server.verdict(True)
    assert caught.value.reply.code == 454


def test_a_hook_may_check_and_yet_refuse():
    _, server, _, matched = through(SHA1)
    assert matched
    assert server.verdict(False) is None


# ---- unknown users look like known ones


def test_the_salt_is_stable_for_each_name_and_differs_between_names_mechanisms_and_servers():
    def salt(vector=SHA256, name=b"user", context=CONTEXT):
        return begin(vector, b"n,,n=%b,r=abc" % name, context)[1].split(b",")[1]

    assert salt() == salt()
    assert len({salt(), salt(name=b"nobody"), salt(SHA1), salt(context=MechanismContext())}) == 4
    assert salt(name="I\u00adX".encode()) == salt(name=b"IX")


def test_nonces_are_fresh():
    assert begin()[1] != begin()[1]
    assert ScramSHA1Client(Password("a", "b")).initial_response != ScramSHA1Client(Password("a", "b")).initial_response


@both
@pytest.mark.parametrize("expected", ["pencil", "wrong", None, "", "pass😀"])
@pytest.mark.parametrize("proof", [None, b"", b"p", b"!!!!", b"AAAA", b"AA==", b"A" * 400])
def test_the_same_work_whatever_is_compared(vector, expected, proof, monkeypatch):
    client = vector[0](Password("user", "pencil"))
    server = vector[1](CONTEXT)
    final = answer(client, server.start(client.initial_response).data)
    if proof is not None:
        final = final.rpartition(b",p=")[0] + b",p=" + proof
    credentials = server.respond(final).credentials

    calls = []
    real = hashlib.pbkdf2_hmac

    def counted(hash_name, password, salt, iterations):
        calls.append((hash_name, iterations))
        return real(hash_name, password, salt, iterations)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counted)
    proofs = []
    is_proof = ScramKeys.is_proof
    monkeypatch.setattr(ScramKeys, "is_proof", lambda *args: proofs.append(1) or is_proof(*args))  # type: ignore[func-returns-value]
    assert credentials.check_password(expected) is (expected == "pencil" and proof is None)
    assert calls == [(server._hash_name, 4096)]
    assert proofs == [1]


# ---- malformed and hostile clients


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,r=abc,n=user",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,m=ext,n=user,r=abc",
        b"n,,n=user,r=a b",
        b"n,,n=user,r=a\x7f",
        b"n,,n=user,r=" + b"a" * 256,
        b"n,,n=" + b"u" * 256 + b",r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=us\ner,r=abc",
        b"x,,n=user,r=abc",
        b"n=user,r=abc",
        b"n,user,n=user,r=abc",
    ],
)
def test_bad_first_messages(first):
    for message in (first, first.replace(b"n,,", b"y,,", 1)):
        with pytest.raises(SASLError) as caught:
            ScramSHA256Server(CONTEXT).start(message)
        assert (caught.value.reply.code, caught.value.reply.enhanced) == (501, "5.5.2")


def test_channel_binding_is_refused():
    with pytest.raises(SASLError) as caught:
        ScramSHA256Server(CONTEXT).start(b"p=tls-exporter,,n=user,r=abc")
    assert caught.value.reply.code == 501


def test_extensions_that_may_be_ignored_are():
    server, server_first = begin(first=b"y,a=boss,n=user,r=abc,x=1")
    nonce = nonce_of(server_first)
    final = b"c=%b,r=%b,x=2" % (base64.b64encode(b"y,a=boss,"), nonce)
    salt, iterations = base64.b64decode(server_first.split(b",")[1][2:]), 4096
    keys = ScramKeys.derive("sha256", salted_password("sha256", b"pencil", salt, iterations))
    auth_message = b"n=user,r=abc,x=1," + server_first + b"," + final
    credentials = server.respond(final + b",p=" + base64.b64encode(keys.client_proof(auth_message))).credentials
    assert credentials.authorization_id == "boss"
    assert credentials.check_password("pencil")


@pytest.mark.parametrize("final", [b"", b"c=biws", b"c=biws,r=%b", b"r=%b,c=biws,p=AA==", b"c=???,r=%b,p=AA==", b"*"])
def test_bad_final_messages(final):
    server, server_first = begin()
    with pytest.raises(SASLError) as caught:
        server.respond(final.replace(b"%b", nonce_of(server_first)))
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (501, "5.5.2")
    with pytest.raises(RuntimeError):
        server.respond(b"")


@pytest.mark.parametrize(
    "final", [b"c=eSws,r=%b,p=AA==", b"c=biws,r=%bx,p=AA==", b"c=biws,r=abc,p=AA==", b"c=,r=%b,p="]
)
def test_binding_and_nonce_must_be_those_of_the_first_message(final):
    server, server_first = begin()
    with pytest.raises(SASLError) as caught:
        server.respond(final.replace(b"%b", nonce_of(server_first)))
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (535, "5.7.8")


# ---- hostile servers


@pytest.mark.parametrize(
    "server_first",
    [
        b"",
        b"e=other-error",
        b"r=abc",
        b"r=abcdef,s=c2FsdA==",
        b"s=c2FsdA==,r=abcdef,i=4096",
        b"m=ext,r=abcdef,s=c2FsdA==,i=4096",
        b"r=abc,s=c2FsdA==,i=4096",  # nothing added
        b"r=xabcdef,s=c2FsdA==,i=4096",
        b"r=abd,s=c2FsdA==,i=4096",
        b"r=abc\xff,s=c2FsdA==,i=4096",
        b"r=abcdef,s=,i=4096",
        b"r=abcdef,s=c2FsdA,i=4096",
        b"r=abcdef,s=c2FsdA==,i=",
        b"r=abcdef,s=c2FsdA==,i=-4096",
        b"r=abcdef,s=c2FsdA==,i=+4096",
        b"r=abcdef,s=c2FsdA==,i=4_096",
        b"r=abcdef,s=c2FsdA==,i=0",
        b"r=abcdef,s=c2FsdA==,i=1",
        b"r=abcdef,s=c2FsdA==,i=4095",
        b"r=abcdef,s=c2FsdA==,i=1000001",
        b"r=abcdef,s=c2FsdA==,i=1000000000",
        b"r=abcdef,s=c2FsdA==,i=" + b"9" * 5000,
    ],
)
def test_bad_server_first_messages(server_first):
    client = ScramSHA256Client(Password("user", "pencil"), nonce=b"abc")
    with pytest.raises(AuthenticationError) as caught:
        client.respond(server_first)
    assert caught.value.stage == "auth"
    with pytest.raises(AuthenticationError):
        client.finish()
    with pytest.raises(AuthenticationError):
        client.respond(server_first)


def test_the_limits_of_the_iteration_count_are_inside():
    for count in (4096, 1_000_000):
        client = ScramSHA256Client(Password("user", "pencil"), nonce=b"abc")
        work = client.respond(b"r=abcdef,s=c2FsdA==,i=%d" % count)
        assert (work.iterations, work.salt, work.hash_name) == (count, b"salt", "sha256")  # type: ignore[union-attr]


@both
@pytest.mark.parametrize("server_final", [b"", b"v=", b"v=AAAA", b"x=1", b"r=abc", b"v"])
def test_a_wrong_signature(vector, server_final):
    client, _, _, _ = through(vector)
    with pytest.raises(AuthenticationError, match="signature"):
        client.respond(server_final)
    with pytest.raises(AuthenticationError):
        client.finish()
    assert client._auth._keys == {}  # what such a server said is not kept


def test_235_at_any_time_but_the_end_is_a_failure():
    client = ScramSHA1Client(Password("user", "pencil"))
    server: Any = ScramSHA1Server(CONTEXT)
    with pytest.raises(AuthenticationError, match="before SCRAM-SHA-1 was complete"):
        client.finish()
    final = answer(client, server.start(client.initial_response).data)
    with pytest.raises(AuthenticationError):
        client.finish()
    server.respond(final).credentials.check_password("pencil")
    assert client.respond(server.verdict(True)) == b""
    client.finish()
    with pytest.raises(AuthenticationError, match="after its end"):
        client.respond(b"more")
    with pytest.raises(AuthenticationError):
        client.finish()


def test_a_servers_error_is_kept_and_no_235_is_believed_after_it():
    client, _, _, _ = through(SHA1)
    assert client.respond(b"e=invalid-proof") == b""
    assert client.error_detail == "invalid-proof"
    with pytest.raises(AuthenticationError):
        client.finish()
    with pytest.raises(AuthenticationError, match="after its end"):
        client.respond(b"")


def test_the_derived_key_is_used_again():
    auth = Password("user", "pencil")
    for time in range(3):
        client, server = ScramSHA256Client(auth), ScramSHA256Server(CONTEXT)
        step = client.respond(server.start(client.initial_response).data)  # type: ignore[union-attr]
        assert isinstance(step, DeriveKey) is (time == 0)
        if isinstance(step, DeriveKey):
            step = client.derived(step())
        assert server.respond(step).credentials.check_password("pencil")  # type: ignore[arg-type, union-attr]
        client.respond(server.verdict(True))  # type: ignore[arg-type]
        client.finish()
    other = ScramSHA256Server(MechanismContext())
    client = ScramSHA256Client(auth)
    assert isinstance(client.respond(other.start(client.initial_response).data), DeriveKey)  # type: ignore[union-attr]


# ---- somebody in between


@pytest.mark.parametrize("which", range(4))
def test_no_octet_of_any_message_can_be_changed(which):
    length = position = 0
    while position <= length:
        messages: list[Any] = []

        def pass_on(message, position=position, messages=messages):
            if len(messages) == which:
                message = bytearray(message)
                if position < len(message):
                    message[position] ^= 0x04
            messages.append(bytes(message))
            return bytes(message)

        auth = Password("user", "pencil")
        client, server = ScramSHA1Client(auth), ScramSHA1Server(CONTEXT)
        try:
            challenge = pass_on(server.start(pass_on(client.initial_response)).data)  # type: ignore[union-attr]
            credentials = server.respond(pass_on(answer(client, challenge))).credentials  # type: ignore[union-attr]
            expected = {"user": "pencil", "quer": "pencil"}.get(credentials.username)
            if credentials.check_password(expected):
                client.respond(pass_on(server.verdict(True)))
            client.finish()
            succeeded = True
        except (SASLError, AuthenticationError):
            succeeded = False
        if len(messages) > which:
            length = len(messages[which])
        # The last character of unpadded bits in a base64 text may differ without a difference; 0x04 is no such bit.
        assert succeeded is (position == length)
        position += 1
    assert length > 20


def test_xor_wants_equal_lengths():
    assert xor(b"\x0f\xf0", b"\xff\xff") == b"\xf0\x0f"
    with pytest.raises(ValueError, match="longer"):
        xor(b"a", b"ab")


def test_settings_that_would_weaken_every_exchange():
    for bad in ({"scram_iterations": 4095}, {"scram_iterations": 1_000_001}, {"secret": b"short"}):
        with pytest.raises(ValueError, match="must"):
            MechanismContext(**bad)
    assert "0123456789abcdef" not in repr(CONTEXT)
    assert begin(context=MechanismContext(scram_iterations=10_000))[1].endswith(b",i=10000")
