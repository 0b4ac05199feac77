# AUTH through a session: every mechanism, the client's own first word or the server's, and who is who afterwards.
from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from typing import Any

import pytest
import trio
from support import MAIL, Recorder, make_server, serving, session
from tls_support import NAME, client_context, server_context

from trio_smtp import Reject, Reply

ACCEPTED = "235 2.7.0 authentication succeeded"
REFUSED = "535 5.7.8 authentication failed"
SECRET = "pencil-hunter2"
ALL = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER")


def b64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def unb64(reply: str) -> bytes:
    assert reply.startswith("334 "), reply
    return base64.b64decode(reply[4:])


async def check(session, credentials):
    if credentials.token is not None:
        return credentials.token == SECRET
    return credentials.check_password(SECRET if credentials.username == "me" else None)


def auth_session(on_auth: object = check, **options: Any):
    options = {"allow_insecure_auth": True, "auth_mechanisms": ALL, "error_delay": None, **options}
    return session(Recorder(on_auth=on_auth), **options)


async def scram(peer, user: str, password: str, name: str) -> str:
    digest = name.removeprefix("SCRAM-").replace("SHA-1", "sha1").replace("SHA-256", "sha256")
    first = f"n={user},r=clientnonce"
    server_first = unb64(await peer.ask(f"AUTH {name} {b64('n,,' + first)}")).decode()
    fields = dict(part.split("=", 1) for part in server_first.split(","))
    assert fields["r"].startswith("clientnonce")
    salted = hashlib.pbkdf2_hmac(digest, password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    key = hmac.digest(salted, b"Client Key", digest)
    bare = f"c=biws,r={fields['r']}"
    message = f"{first},{server_first},{bare}".encode()
    signature = hmac.digest(hashlib.new(digest, key).digest(), message, digest)
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    answer = await peer.ask(b64(f"{bare},p={b64(proof)}"))
    if not answer.startswith("334"):
        return answer
    server_signature = hmac.digest(hmac.digest(salted, b"Server Key", digest), message, digest)
    assert unb64(answer) == b"v=" + b64(server_signature).encode()
    return await peer.ask("")


async def log_in(peer, way: str, user: str, password: str) -> str:
    plain = b64(f"\0{user}\0{password}")
    bearer = b64(f"n,a={user},\1auth=Bearer {password}\1\1")
    xoauth2 = b64(f"user={user}\1auth=Bearer {password}\1\1")
    match way.split():
        case ["PLAIN", _]:
            return await peer.ask(f"AUTH PLAIN {plain}")
        case ["PLAIN"]:
            assert await peer.ask("AUTH PLAIN") == "334 "
            return await peer.ask(plain)
        case ["LOGIN", _]:
            assert unb64(await peer.ask(f"auth login {b64(user)}")) == b"Password:"
            return await peer.ask(b64(password))
        case ["LOGIN"]:
            assert unb64(await peer.ask("AUTH LOGIN")) == b"Username:"
            assert unb64(await peer.ask(b64(user))) == b"Password:"
            return await peer.ask(b64(password))
        case ["CRAM-MD5"]:
            challenge = unb64(await peer.ask("AUTH CRAM-MD5"))
            return await peer.ask(b64(f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}"))
        case ["XOAUTH2" | "OAUTHBEARER" as name, *_]:
            response = xoauth2 if name == "XOAUTH2" else bearer
            if way.endswith("initial"):
                answer = await peer.ask(f"AUTH {name} {response}")
            else:
                await peer.ask(f"AUTH {name}")
                answer = await peer.ask(response)
            if answer.startswith("334"):
                assert b'"status"' in unb64(answer)
                answer = await peer.ask("" if name == "XOAUTH2" else "AQ==")
            return answer
    return await scram(peer, user, password, way)


WAYS = ["PLAIN", "PLAIN initial", "LOGIN", "LOGIN initial", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"]
WAYS += ["XOAUTH2", "XOAUTH2 initial", "OAUTHBEARER", "OAUTHBEARER initial"]


@pytest.mark.parametrize("way", WAYS)
async def test_right_and_wrong_credentials(way: str):
    handler = Recorder(on_auth=check)
    options: dict[str, Any] = {"auth_mechanisms": ALL, "error_delay": None, "allow_insecure_auth": True}
    async with session(handler, **options) as peer:
        assert await log_in(peer, way, "me", "wrong") == REFUSED
        assert handler.sessions[0].identity is None
        if "OAUTH" not in way:
            assert await log_in(peer, way, "you", SECRET) == REFUSED
        assert await log_in(peer, way, "me", SECRET) == ACCEPTED
        assert handler.sessions[0].identity == "me"
        assert await peer.ask(f"AUTH PLAIN {b64(chr(0) + 'x' + chr(0) + 'y')}") == "503 5.5.1 already authenticated"
        await peer.speak(MAIL)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("password", ["wrong", SECRET])
async def test_secrets_are_in_no_log(way: str, password: str, caplog):
    caplog.set_level(logging.DEBUG, "trio_smtp")
    async with auth_session() as peer:
        await log_in(peer, way, "somebody", password)
        await log_in(peer, way, "me", password)
    logged = caplog.text
    assert "AUTH" in logged.upper()
    for secret in (password, b64(password), b64(f"\0me\0{password}"), b64("me"), b64(f"\0somebody\0{password}")):
        assert secret not in logged


@pytest.mark.parametrize("way", ["PLAIN", "LOGIN", "LOGIN initial", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2"])
async def test_an_asterisk_gives_up(way: str):
    """It is no user name."""
    handler = Recorder(on_auth=check)
    async with session(handler, allow_insecure_auth=True, auth_mechanisms=ALL, error_delay=None) as peer:
        first = {"LOGIN initial": f"LOGIN {b64('me')}", "SCRAM-SHA-256": f"SCRAM-SHA-256 {b64('n,,n=me,r=abc')}"}
        assert (await peer.ask(f"AUTH {first.get(way, way)}"))[:3] == "334"
        assert await peer.ask("*") == "501 5.7.0 authentication cancelled"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        assert await log_in(peer, "PLAIN", "me", SECRET) == ACCEPTED
    assert handler.count("on_auth") == 1


@pytest.mark.parametrize("bad", ["!", "AG1l*AHNl", "AG1lAHNlY3JldA", "AG1l AHNl", "ü", "AG1lAHNlY3JldA==="])
async def test_bad_base64(bad: str):
    handler = Recorder(on_auth=check)
    async with session(handler, allow_insecure_auth=True, error_delay=None, max_auth_failures=None) as peer:
        assert (await peer.ask(f"AUTH PLAIN {bad}"))[:3] == "501"
        for start in ("AUTH PLAIN", "AUTH LOGIN"):
            await peer.ask(start)
            assert (await peer.ask(bad))[:3] == "501"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert handler.count("on_auth") == 0


async def test_identity_is_there_only_after_235():
    seen: list[object] = []

    async def on_auth(session, credentials):
        seen.append(session.identity)
        return {"uid": 17}

    handler = Recorder(on_auth=on_auth)
    async with session(handler, allow_insecure_auth=True) as peer:
        assert await log_in(peer, "PLAIN", "me", "x") == ACCEPTED
        assert handler.sessions[0].identity == {"uid": 17}
        await peer.ask("RSET")
        await peer.ask("EHLO again")
        assert handler.sessions[0].identity == {"uid": 17}
    assert seen == [None]


async def test_scram_identity_waits_for_the_clients_last_word():
    handler = Recorder(on_auth=check)
    async with session(handler, allow_insecure_auth=True, auth_mechanisms=ALL, error_delay=None) as peer:
        assert await scram(peer, "me", SECRET, "SCRAM-SHA-256") == ACCEPTED
        assert handler.sessions[0].identity == "me"


@pytest.mark.parametrize(
    ("result", "answer", "identity"),
    [
        (True, ACCEPTED, "me"),
        ("somebody", ACCEPTED, "somebody"),
        (Reply(235, "welcome", "2.7.0"), "235 2.7.0 welcome", "me"),
        (Reply(250, "welcome"), "235 2.7.0 welcome", "me"),
        (False, REFUSED, None),
        (None, REFUSED, None),
        ("", REFUSED, None),
        (Reply(535, "not today", "5.7.8"), "535 5.7.8 not today", None),
        (Reject(454, "later", "4.7.0"), "454 4.7.0 later", None),
        (Reject(432, "change it", "4.7.12"), "432 4.7.12 change it", None),
    ],
)
async def test_what_the_hook_may_answer(result: object, answer: str, identity: object):
    handler = Recorder(on_auth=result)
    async with session(handler, allow_insecure_auth=True) as peer:
        assert await log_in(peer, "PLAIN", "me", "x") == answer
        assert handler.sessions[0].identity == identity


class AuthResult:
    """As aiosmtpd has it."""

    def __init__(self, success: bool) -> None:
        self.success = success


async def forgotten() -> bool:
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: AuthResult(False),
        lambda: AuthResult(True),
        lambda: {"success": False},
        lambda: (False, "no"),
        lambda: (535, b"no"),
        lambda: b"535 no",
        forgotten,
        trio.Event,
        lambda: trio.Event,
        lambda: forgotten,
        lambda: [].clear,
        lambda: ValueError("no"),
        lambda: Reject(535, "no"),
    ],
)
async def test_an_object_that_is_true_without_saying_so_accepts_nobody(make: Any, caplog):
    class Careless(Recorder):
        async def on_auth(self, session, credentials):
            self.sessions.append(session)
            return make() if make is not trio.Event else trio.Event().wait()

    handler = Careless()
    async with session(handler, allow_insecure_auth=True) as peer:
        assert await log_in(peer, "PLAIN", "me", "x") == "451 4.3.0 local error in processing"
        assert handler.sessions[-1].identity is None
    [record] = caplog.records
    assert isinstance(record.exc_info[1], TypeError)
    assert str(record.exc_info[1]).startswith("the hook must return an identity, True, a Reply, False or None, not ")


@pytest.mark.parametrize("identity", [17, {"uid": 17}, ("me", "admin"), ["me"], b"me", object(), 1.5])
async def test_any_plain_object_is_an_identity(identity: object):
    handler = Recorder(on_auth=identity)
    async with session(handler, allow_insecure_auth=True) as peer:
        assert await log_in(peer, "PLAIN", "me", "x") == ACCEPTED
        assert handler.sessions[0].identity is identity


async def test_where_tls_is_required_no_credentials_are_asked_for_in_clear():
    handler = Recorder(on_auth=True)
    server = make_server(handler, ssl_context=server_context(), require_tls=True, allow_insecure_auth=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.reply()
        await peer.send("EHLO x\r\n")
        assert not any("AUTH" in line for line in await peer.reply())
        for line in ("AUTH PLAIN AG1lAHg=", "AUTH PLAIN", "AUTH LOGIN"):
            assert await peer.ask(line) == "530 5.7.0 must issue a STARTTLS command first"
    assert handler.count("on_auth") == 0


class Undecided:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def __bool__(self) -> bool:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("which of them?"), RuntimeError("a bug"), KeyError("x")])
async def test_a_result_that_is_neither_true_nor_false_is_a_failed_hook(error: Exception, caplog):
    handler = Recorder(on_auth=Undecided(error))
    server = make_server(handler, allow_insecure_auth=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        assert await log_in(peer, "PLAIN", "me", "x") == "451 4.3.0 local error in processing"
        assert handler.sessions[0].identity is None
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert server.statistics().failed_hooks == 1
    assert [record.exc_info[1] for record in caplog.records] == [error]


@pytest.mark.parametrize("way", ["CRAM-MD5", "SCRAM-SHA-256"])
async def test_an_acceptance_that_was_not_verified_is_454_and_logged(way: str, caplog):
    handler = Recorder(on_auth=True)
    async with session(handler, allow_insecure_auth=True, auth_mechanisms=ALL, error_delay=None) as peer:
        assert (await log_in(peer, way, "me", SECRET))[:3] == "454"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        assert handler.sessions[0].identity is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert SECRET not in caplog.text


# ---- where it is allowed


async def test_in_clear_it_is_neither_offered_nor_taken():
    handler = Recorder(on_auth=True)
    async with session(handler, hello=False) as peer:
        await peer.reply()
        assert "AUTH" not in await peer.ask("EHLO x")
        for line in ("AUTH PLAIN AHgAeA==", "AUTH PLAIN", "AUTH FOO"):
            assert await peer.ask(line) == "538 5.7.11 encryption is required for authentication"
    assert handler.count("on_auth") == 0


async def test_under_tls_it_is():
    handler = Recorder(on_auth=check)
    async with serving(make_server(handler, ssl_context=server_context())) as connect:
        peer = connect()
        await peer.hello()
        await peer.ask("STARTTLS")
        peer.stream = trio.SSLStream(peer.stream, client_context(), server_hostname=NAME)
        assert "AUTH PLAIN LOGIN" in await peer.ask("EHLO x")
        assert await log_in(peer, "LOGIN", "me", SECRET) == ACCEPTED


async def test_before_ehlo_and_after_helo():
    async with session(Recorder(on_auth=True), hello=False, allow_insecure_auth=True) as peer:
        await peer.reply()
        assert await peer.ask("AUTH PLAIN AHgAeA==") == "503 5.5.1 send EHLO first"
        await peer.ask("HELO x")
        assert await peer.ask("AUTH PLAIN AHgAeA==") == "503 5.5.1 send EHLO first"


async def test_not_in_a_transaction():
    async with session(Recorder(on_auth=True), allow_insecure_auth=True) as peer:
        await peer.ask("MAIL FROM:<>")
        assert await peer.ask("AUTH PLAIN AHgAeA==") == "503 5.5.1 not during a transaction"
        await peer.ask("RSET")
        assert await peer.ask("AUTH PLAIN AHgAeA==") == ACCEPTED


async def test_required():
    async with session(Recorder(on_auth=True), allow_insecure_auth=True, auth="required") as peer:
        assert await peer.ask("MAIL FROM:<>") == "530 5.7.0 authentication required"
        assert (await peer.ask("VRFY x"))[:3] == "252"
        assert await peer.ask("AUTH PLAIN AHgAeA==") == ACCEPTED
        await peer.speak(MAIL)


async def test_unknown_mechanisms_are_answered():
    """504, and not 535, which is about credentials."""
    async with session(Recorder(on_auth=True), allow_insecure_auth=True) as peer:
        for name in ("NTLM", "CRAM-MD5", "EXTERNAL", "="):
            assert await peer.ask(f"AUTH {name}") == "504 5.5.4 unrecognized authentication type"


async def test_without_a_hook_it_is_unknown_and_does_not_hang():
    async with session(allow_insecure_auth=True) as peer:
        assert (await peer.ask("AUTH PLAIN AHgAeA=="))[:3] == "500"


async def test_mechanisms_are_offered_in_the_order_given():
    async with session(
        Recorder(on_auth=True), hello=False, allow_insecure_auth=True, auth_mechanisms=("SCRAM-SHA-256", "PLAIN")
    ) as peer:
        await peer.reply()
        assert "AUTH SCRAM-SHA-256 PLAIN\n" in await peer.ask("EHLO x") + "\n"
