"""Extensions that an application brings: a keyword for EHLO, parameters of MAIL and RCPT, commands."""

from __future__ import annotations

import pytest
from support import MAIL, Recorder, make_server, session

from trio_smtp import Discard, Reject, Reply, Server, ServerConfig, ServerExtension

XFOO = ServerExtension("xfoo", "bar baz", mail_parameters=["XTAG", "xflag"], rcpt_parameters=["XTAG"], commands=["xdo"])


class Application(Recorder):
    async def on_command(self, session, verb, argument):
        return await self._take("on_command", session, verb, argument)


def application(**answers: object) -> Application:
    return Application(**answers)


async def test_its_keyword_is_offered() -> None:
    async with session(application(), hello=False, extensions=[XFOO]) as peer:
        await peer.reply()
        await peer.send_line("EHLO client.test")
        assert (await peer.reply())[-1] == "250 XFOO bar baz"


async def test_its_parameters_reach_the_hooks_as_they_came() -> None:
    senders, recipients = [], []

    async def on_mail(session, sender):
        senders.append(sender.params)
        if sender.params.get("XTAG") == "bad":
            raise Reject(501, "bad XTAG", "5.5.4")

    async def on_rcpt(session, recipient):
        recipients.append(recipient.params)

    async with session(application(on_mail=on_mail, on_rcpt=on_rcpt), extensions=[XFOO]) as peer:
        await peer.speak("""
            C: MAIL FROM:<a@a.test> XTAG=bad
            S: 501 5.5.4 bad XTAG
            C: MAIL FROM:<a@a.test> xtag=One XFLAG
            S: 250 2.1.0 OK
            C: RCPT TO:<b@b.test> XFLAG
            S: 555 5.5.4 parameter XFLAG is not supported
            C: RCPT TO:<b@b.test> XTAG=1 XTAG=2
            S: 501 5.5.4 XTAG is given twice
            C: RCPT TO:<b@b.test> XTAG
            S: 250 2.1.5 OK
        """)
    assert senders == [{"XTAG": "bad"}, {"XTAG": "One", "XFLAG": None}]
    assert recipients == [{"XTAG": None}]


async def test_its_commands_reach_the_hook_in_any_state_but_between_chunks() -> None:
    states = []

    async def on_command(session, verb, argument):
        states.append((verb, argument, session.hello, session.envelope is not None))

    async with session(application(on_command=on_command), hello=False, extensions=[XFOO]) as peer:
        await peer.speak(f"""
            S: 220…
            C: XDO early
            S: 250 2.0.0 OK
            C: HELO client.test
            S: 250 mx.test
            C: xDo  with  äöü\x20
            S: 250 2.0.0 OK
            {MAIL}
            C: XDO
            S: 250 2.0.0 OK
        """)
        await peer.send("BDAT 2\r\nhi")
        await peer.speak("""
            S: 250 2.0.0 2 octets received
            C: XDO not now
            S: 503 5.5.1 not during a transaction
            C: BDAT 0 LAST
            S: 250 2.0.0 OK: queued
        """)
    assert states == [
        ("XDO", "early", None, False),
        ("XDO", "with  äöü", "client.test", False),
        ("XDO", "", "client.test", True),
    ]


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (None, "250 2.0.0 OK"),
        (Reply(211, "all is well", "2.1.3"), "211 2.1.3 all is well"),
        (Reply(450, "later"), "450 4.0.0 later"),
        (Reject(550, "no", "5.7.1"), "550 5.7.1 no"),
        (ValueError("secret"), "451 4.3.0 local error in processing"),
        ("not a reply", "451 4.3.0 local error in processing"),
        (Reply(354, "go on"), "451 4.3.0 local error in processing"),
    ],
)
async def test_what_the_hook_answers(answer: object, wanted: str) -> None:
    async with session(application(on_command=answer), extensions=[XFOO]) as peer:
        assert await peer.ask("XDO it") == wanted
        await peer.speak(MAIL)


async def test_its_answer_is_not_held_back() -> None:
    async with session(application(), extensions=[XFOO]) as peer:
        await peer.send("XDO 1\r\nMAIL FROM:<a@a.test>\r\nXDO 2\r\n")
        assert [await peer.code() for _ in range(3)] == ["250"] * 3


async def test_an_argument_that_is_no_utf8_is_refused() -> None:
    handler = application()
    async with session(handler, extensions=[XFOO]) as peer:
        await peer.send(b"XDO \xff\r\n")
        await peer.expect("501 5.5.2 the argument is not UTF-8")
        assert handler.count("on_command") == 0


async def test_help_names_its_commands() -> None:
    async with session(application(), extensions=[XFOO]) as peer:
        assert " XDO" in await peer.ask("HELP")


async def test_switched_off_it_is_unknown() -> None:
    async with session(application(), hello=False, extensions=[XFOO], disabled_extensions=["XFOO"]) as peer:
        await peer.reply()
        assert "XFOO" not in await peer.ask("EHLO client.test")
        await peer.speak("""
            C: XDO it
            S: 500 5.5.1 command not recognized
            C: MAIL FROM:<a@a.test> XTAG=1
            S: 555 5.5.4 parameter XTAG is not supported
        """)


async def test_commands_that_nobody_declared_are_unknown() -> None:
    handler = application()
    async with session(handler) as peer:
        assert await peer.ask("XDO it") == "500 5.5.1 command not recognized"
        assert handler.count("on_command") == 0


async def test_a_standard_extension_that_is_not_ours_can_be_added() -> None:
    etrn = ServerExtension("ETRN", commands=["ETRN"])
    async with session(application(on_command=Reply(251, "OK")), extensions=[etrn]) as peer:
        assert await peer.ask("ETRN example.com") == "251 2.0.0 OK"
    async with session() as peer:
        assert await peer.ask("ETRN example.com") == "502 5.5.1 command not implemented"


def test_commands_without_a_hook_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="on_command"):
        make_server(Recorder(), extensions=[XFOO])
    with pytest.raises(TypeError, match="on_command"):
        Server(Discard(), config=ServerConfig(extensions=[XFOO]))
    make_server(Recorder(), extensions=[ServerExtension("XBAR")])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keyword": "X FOO"}, ValueError),
        ({"keyword": "-X"}, ValueError),
        ({"keyword": ""}, ValueError),
        ({"keyword": "XÄ"}, ValueError),
        ({"keyword": "Xſ"}, ValueError),
        ({"keyword": 1}, ValueError),
        ({"keyword": "size"}, ValueError),
        ({"keyword": "XFOO", "text": "a\r\nb"}, ValueError),
        ({"keyword": "XFOO", "text": b"a"}, TypeError),
        ({"keyword": "XFOO", "mail_parameters": ["SIZE"]}, ValueError),
        ({"keyword": "XFOO", "mail_parameters": ["X=1"]}, ValueError),
        ({"keyword": "XFOO", "mail_parameters": "XTAG"}, TypeError),
        ({"keyword": "XFOO", "mail_parameters": ["X", "x"]}, ValueError),
        ({"keyword": "XFOO", "rcpt_parameters": ["NOTIFY"]}, ValueError),
        ({"keyword": "XFOO", "commands": ["mail"]}, ValueError),
        ({"keyword": "XFOO", "commands": ["GET"]}, ValueError),
        ({"keyword": "XFOO", "commands": ["X Y"]}, ValueError),
        ({"keyword": "XFOO", "commands": 5}, TypeError),
    ],
)
def test_names_are_checked(arguments: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ServerExtension(**arguments)  # type: ignore[arg-type]


def test_a_parameter_of_mail_may_have_the_name_of_one_of_rcpt() -> None:
    assert ServerExtension("XFOO", rcpt_parameters=["size"]).rcpt_parameters == ("SIZE",)


@pytest.mark.parametrize(
    "extensions",
    [
        [ServerExtension("XFOO"), ServerExtension("xfoo")],
        [ServerExtension("XFOO", commands=["XDO"]), ServerExtension("XBAR", commands=["XDO"])],
        [ServerExtension("XFOO", mail_parameters=["X"]), ServerExtension("XBAR", mail_parameters=["X"])],
    ],
)
def test_no_name_may_stand_in_two_of_them(extensions: list[ServerExtension]) -> None:
    with pytest.raises(ValueError, match="same"):
        ServerConfig(extensions=extensions)


@pytest.mark.parametrize("extensions", ["XFOO", 5, ["XFOO"]])
def test_extensions_are_a_sequence_of_extensions(extensions: object) -> None:
    with pytest.raises(TypeError, match="ServerExtension"):
        ServerConfig(extensions=extensions)  # type: ignore[arg-type]
