# Which mechanism is used, and every one of them from end to end.
import pytest

from trio_smtp._protocol.errors import AuthenticationError, LocalProtocolError, UnsupportedAuthError
from trio_smtp._protocol.sasl import (
    MAX_ROUNDS,
    SERVER_MECHANISMS,
    Challenge,
    DeriveKey,
    External,
    MechanismContext,
    OAuth,
    Password,
    XOAuth,
    choose_mechanism,
    client_mechanism,
    decode_response,
    encode_challenge,
)

ALL = ["LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"]
ME = Password("me", "secret")
TOKEN = OAuth("me", "token")
CONTEXT = MechanismContext(external_identity="me")
USERS = {"me": "secret"}


def choose(auth, offered=ALL, *, secure=True, allow_insecure=False):
    return choose_mechanism(auth, offered, secure=secure, allow_insecure=allow_insecure)


def order(auth, **kwargs):
    """All mechanisms that would be used, best first."""
    left, chosen = list(ALL), []
    while True:
        try:
            chosen.append(choose(auth, left, **kwargs))
        except UnsupportedAuthError:
            return chosen
        left.remove(chosen[-1])


def test_the_order_of_preference():
    assert order(ME) == ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5"]
    in_clear = {"secure": False, "allow_insecure": True}
    assert order(ME, **in_clear) == ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN"]
    assert order(TOKEN) == order(TOKEN, **in_clear) == ["OAUTHBEARER", "XOAUTH2"]
    assert order(XOAuth("R0VU")) == ["XOAUTH"]
    assert order(External()) == ["EXTERNAL"]
    assert order(Password("me", "secret", ["LOGIN", "SCRAM-SHA-1"])) == ["LOGIN", "SCRAM-SHA-1"]


def test_names_in_any_case():
    assert choose(ME, ["gssapi", "plain"]) == "PLAIN"


@pytest.mark.parametrize("auth", [ME, TOKEN, XOAuth("R0VU"), External(), Password("me", "secret", ["SCRAM-SHA-256"])])
def test_no_mechanism_at_all_in_clear(auth):
    with pytest.raises(UnsupportedAuthError) as caught:
        choose(auth, secure=False)
    assert caught.value.stage == "auth"
    assert "not protected by verified TLS" in str(caught.value)
    assert "LOGIN PLAIN CRAM-MD5" in str(caught.value)
    assert "allow_insecure_auth" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nothing_in_common():
    with pytest.raises(UnsupportedAuthError, match="server offers GSSAPI NTLM, Password can use SCRAM-SHA-256"):
        choose(ME, ["GSSAPI", "NTLM"])
    with pytest.raises(UnsupportedAuthError, match="server does not offer AUTH"):
        choose(ME, [])
    with pytest.raises(UnsupportedAuthError, match="OAuth can use OAUTHBEARER XOAUTH2"):
        choose(TOKEN, ["PLAIN"])
    with pytest.raises(UnsupportedAuthError, match="Password can use PLAIN"):
        choose(Password("me", "secret", ["PLAIN"]), ["LOGIN"])


def test_a_password_that_scram_cannot_use_goes_by_another_mechanism():
    emoji = Password("me", "pass😀")
    assert choose(emoji) == "PLAIN"
    with pytest.raises(LocalProtocolError, match="RFC 4013"):
        choose(emoji, ["SCRAM-SHA-1", "SCRAM-SHA-256"])
    with pytest.raises(LocalProtocolError):
        client_mechanism("SCRAM-SHA-1", emoji)


def auth_for(name, username="me", password="secret"):
    if name in ("XOAUTH2", "OAUTHBEARER"):
        return OAuth(username, password)
    if name == "EXTERNAL":
        return External("" if username == "me" and password == "secret" else "root")
    return Password(username, password, [name])


def judge(credentials):
    """What an application does, without looking at the mechanism."""
    expected = USERS.get(credentials.username)
    if credentials.token is not None:
        return credentials.token == expected
    if credentials.mechanism == "EXTERNAL":
        return credentials.authorization_id is None
    return credentials.check_password(expected)


def converse(name, auth, *, hold_back):
    """One AUTH command by the loops that both ends would run: the final code and the lines of the server."""
    chosen = choose(auth, [name])
    client = client_mechanism(chosen, auth, host="mx.example.com", port=587)
    server = SERVER_MECHANISMS[chosen](CONTEXT)
    challenges = []

    def reply_to(data):
        challenges.append(encode_challenge(data))
        assert len(challenges) < MAX_ROUNDS
        step = client.respond(decode_response(challenges[-1]))
        while isinstance(step, DeriveKey):
            step = client.derived(step())
        return decode_response(encode_challenge(step))

    verb, argument = (client.command() + b" ").split(b" ", 2)[1:]
    assert verb.decode() == name == server.name
    argument = argument.strip()
    if hold_back and argument:
        client._held_back = True
        argument = b""
    step = server.start(decode_response(argument, initial=True) if argument else None)
    while isinstance(step, Challenge):
        step = server.respond(reply_to(step.data))
    accepted = judge(step.credentials)
    last = server.verdict(accepted)
    if last is not None:
        assert server.closing_response(reply_to(last))
    if accepted:
        client.finish()
    elif name.startswith("SCRAM"):
        with pytest.raises(AuthenticationError):
            client.finish()
    return accepted, challenges, client


@pytest.mark.parametrize("hold_back", [False, True])
@pytest.mark.parametrize("name", SERVER_MECHANISMS)
def test_client_against_server(name, hold_back):
    assert converse(name, auth_for(name), hold_back=hold_back)[0]
    for username, password in (("me", "wrong"), ("nobody", "secret"), ("nobody", "wrong")):
        accepted, _, client = converse(name, auth_for(name, username, password), hold_back=hold_back)
        assert not accepted
        assert bool(client.error_detail) is (name in ("XOAUTH2", "OAUTHBEARER"))


@pytest.mark.parametrize("name", sorted(set(SERVER_MECHANISMS) - {"EXTERNAL"}))
def test_an_unknown_user_is_asked_the_same_things_as_a_known_one(name):
    def shape(username):
        _, challenges, _ = converse(name, auth_for(name, username, "wrong"), hold_back=False)
        return [len(line) for line in challenges]

    assert shape("me") == shape("it") == shape("me")


def test_long_passwords_and_names_travel_whole():
    username, password = "ü" * 120, "p,=\\" * 200
    USERS[username] = password
    try:
        for name in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"):
            assert converse(name, Password(username, password, [name]), hold_back=False)[0]
    finally:
        del USERS[username]
