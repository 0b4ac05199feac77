# A server that would lose mail, or never take any, is not made.
from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
from support import DATA, MAIL, Recorder, make_server, session
from tls_support import server_context

import trio_smtp
from trio_smtp import Discard, Handler, Server
from trio_smtp._server.handler_check import FOREIGN, HOOKS


async def keep(session, envelope, body):
    await body.read()


def handler(**hooks: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"on_data": keep, **hooks})


class OnlyRcpt(Handler):
    async def on_rcpt(self, session, recipient):
        return None


class Holder:
    async def serve(self, session, envelope, body):
        return None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "the handler is None"),
        (Recorder, r"the class Recorder; give an object of it, as Recorder\(\)"),
        (Discard, "the class Discard"),
        (keep, r"the function keep; .*async def on_data\(self, session, envelope, body\)"),
        (print, "the function print"),
        (functools.partial(keep), "the function"),
        (Holder().serve, "the function serve"),
        (object(), "object has no on_data"),
        (Handler(), "Handler has no on_data"),
        (OnlyRcpt(), "OnlyRcpt has no on_data"),
        (SimpleNamespace(on_data=None), "has no on_data"),
        (SimpleNamespace(data=keep), "has no on_data; data is not called"),
        (SimpleNamespace(handle_message=keep), "has no on_data; handle_message is not called"),
    ],
)
def test_what_would_keep_no_message_is_no_handler(wrong, words):
    with pytest.raises(TypeError, match=words):
        Server(wrong)


async def test_serve_refuses_it_before_it_listens():
    with pytest.raises(TypeError, match=r"trio_smtp\.Discard\(\) accepts and discards every message"):
        await trio_smtp.serve(None, 0, host="127.0.0.1")


@pytest.mark.parametrize(("name", "ours"), [*FOREIGN.items(), ("onData", "on_data"), ("onConnect", "on_connect")])
def test_the_hooks_of_other_servers_point_to_ours(name, ours):
    with pytest.raises(TypeError, match=rf"\.{name} is no hook; it is called {ours} here: async def {ours}\(self, "):
        Server(handler(**{name: keep}))


def test_every_hook_of_another_server_has_one_of_ours():
    assert set(FOREIGN.values()) <= set(HOOKS)


@pytest.mark.parametrize("name", ["data", "close", "handle_message", "validate_sender", "onward", "_on_data"])
def test_an_applications_own_names_are_its_own(name):
    Server(handler(**{name: keep}))


def test_a_misspelt_hook_is_told_the_right_one():
    with pytest.raises(TypeError, match=r"on_recipient is no hook.*on_rcpt"):
        Server(handler(on_recipient=keep))
    with pytest.raises(TypeError, match=r"on_helo is no hook, did you mean on_hello\?"):
        Server(handler(on_helo=keep))


async def on_rcpt_of_aiosmtpd(server, session, envelope, address, rcpt_options): ...
async def on_rcpt_with_envelope(session, envelope, recipient): ...
async def on_mail_of_an_envelope(session, envelope): ...
async def on_data_turned(session, body, envelope): ...
async def on_data_short(session, body): ...
async def on_close_long(session, reason): ...
async def on_vrfy_without(session): ...
async def on_auth_first(credentials, session): ...
async def with_keyword(session, recipient, *, database): ...


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("on_rcpt", on_rcpt_of_aiosmtpd),
        ("on_rcpt", on_rcpt_with_envelope),
        ("on_rcpt", with_keyword),
        ("on_mail", on_mail_of_an_envelope),
        ("on_data", on_data_turned),
        ("on_data", on_data_short),
        ("on_close", on_close_long),
        ("on_vrfy", on_vrfy_without),
        ("on_auth", on_auth_first),
    ],
)
def test_a_hook_with_other_parameters_is_told_the_right_ones(name, hook):
    with pytest.raises(TypeError, match=rf"\.{name}\(.*wrong parameters; the right ones are async def {name}\(self, s"):
        Server(handler(**{name: hook}))


async def renamed(client, to): ...
async def with_more(session, recipient, database=None): ...
async def with_any(*args): ...


@pytest.mark.parametrize("hook", [renamed, with_more, with_any])
def test_a_hook_may_call_its_parameters_what_it_likes(hook):
    Server(handler(on_rcpt=hook))


def not_async(session, envelope, body): ...
async def generator(session, envelope, body):
    yield


@pytest.mark.parametrize("hook", [not_async, generator, print, 7])
def test_a_hook_is_an_async_function(hook):
    with pytest.raises(TypeError, match=r"on_data must be an async function: async def on_data\(self, session, "):
        Server(SimpleNamespace(on_data=hook))


# ---- throwing mail away, and keeping it


async def test_discard_takes_the_message_and_may_be_subclassed():
    class Picky(Discard):
        async def on_rcpt(self, session, recipient):
            raise trio_smtp.Reject(550, "no")

    async with session(Discard()) as peer:
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 250 2.0.0 OK: queued")
    async with session(Picky()) as peer:
        await peer.speak("    C: MAIL FROM:<>\n    S: 250 2.1.0 OK\n    C: RCPT TO:<b@b.test>\n    S: 550 5.0.0 no")


async def test_the_base_class_has_no_on_data_to_fall_back_on(caplog):
    class Calls(Handler):
        async def on_data(self, session, envelope, body):
            return await super().on_data(session, envelope, body)

    async with session(Calls()) as peer:
        await peer.speak(MAIL + "    C: DATA\n    S: 451 4.3.0 local error in processing")
    assert "Discard() throws messages away" in caplog.text


@pytest.mark.parametrize("word", ["550 no thanks", "550", "250 OK", "451-later", "552 ", "5.7.1 no", "4.2.0"])
async def test_a_str_that_looks_like_a_reply_is_no_queue_id(word, caplog):
    async with session(Recorder(on_data=word)) as peer:
        await peer.speak(MAIL + "    C: DATA\n    S: 451 4.3.0 local error in processing")
    assert "return a Reply or raise a Reject" in caplog.text


@pytest.mark.parametrize(
    "word", ["4711", "550e8400-e29b-41d4-a716-446655440000", "55", "no 550", "55 0", "550no", "5.7.1-2"]
)
async def test_other_words_are_queue_ids(word, caplog):
    async with session(Recorder(on_data=word)) as peer:
        await peer.speak(DATA + f"    C: x\n    C: .\n    S: 250 2.0.0 OK: queued as {word}")
    assert not caplog.text


async def test_a_reply_as_text_for_one_recipient_of_lmtp_is_no_queue_id(caplog):
    async with session(Recorder(on_data={"b@b.test": "550 no"}), hello=False, lmtp=True) as peer:
        await peer.reply()
        await peer.ask("LHLO client.test")
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 451 4.3.0 local error in processing")
    assert "return a Reply or raise a Reject" in caplog.text


async def test_a_reply_as_text_is_no_login(caplog):
    async with session(Recorder(on_auth="535 wrong password"), allow_insecure_auth=True) as peer:
        assert (await peer.ask("AUTH PLAIN AHgAeQ==")).startswith("451 ")
        assert (await peer.ask("MAIL FROM:<>")).startswith("250 ")
    assert "return a Reply or raise a Reject" in caplog.text


async def test_any_other_word_is_an_identity():
    recorder = Recorder(on_auth="4711")
    async with session(recorder, allow_insecure_auth=True) as peer:
        assert (await peer.ask("AUTH PLAIN AHgAeQ==")).startswith("235 ")
        assert recorder.sessions[0].identity == "4711"


# ---- servers that could never take mail


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auth": "required", "allow_insecure_auth": True}, "needs an on_auth"),
        ({"auth": "required", "on_auth": True}, "needs an ssl_context or allow_insecure_auth"),
        ({"auth": "required", "on_auth": True, "ssl": True, "disabled_extensions": ["AUTH"]}, "needs AUTH"),
        ({"auth": "required", "on_auth": True, "ssl": True, "auth_mechanisms": []}, "needs AUTH"),
        ({"auth": "required", "on_auth": True, "ssl": True, "enable_ehlo": False}, "needs enable_ehlo"),
        ({"require_tls": True}, "needs an ssl_context"),
        ({"require_tls": True, "ssl": True, "disabled_extensions": ["STARTTLS"]}, "needs an ssl_context, and STARTTLS"),
    ],
)
def test_a_server_that_could_never_take_mail_is_not_made(options, words):
    given: dict[str, Any] = dict(options)
    recorder = Recorder(on_auth=True) if given.pop("on_auth", False) else Recorder()
    context = server_context() if given.pop("ssl", False) else None
    with pytest.raises(ValueError, match=words):
        make_server(recorder, ssl_context=context, **given)


def test_servers_that_some_client_can_use_are_made():
    make_server(Recorder(on_auth=True), auth="required", allow_insecure_auth=True)
    make_server(Recorder(on_auth=True), auth="required", ssl_context=server_context())
    make_server(Recorder(), auth="required", xclient_from=["127.0.0.1"])  # XCLIENT LOGIN
    make_server(require_tls=True, ssl_context=server_context())
    make_server(require_tls=True, ssl_context=server_context(), implicit_tls=True, disabled_extensions=["STARTTLS"])
