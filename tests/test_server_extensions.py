"""What each extension of the server does and refuses, in sessions; and that one which is switched off is unknown."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from core_session import ENVELOPE, Core, codes
from support import Recorder, session

from trio_smtp import Discard, Reply, ServerConfig
from trio_smtp._protocol.extensions import EXTENSIONS, KNOWN_EXTENSIONS, OPT_IN_EXTENSIONS
from trio_smtp._protocol.parameters import PARAMETERS

EVERYTHING = {"enabled_extensions": sorted(OPT_IN_EXTENSIONS), "allow_insecure_auth": True}
GOOD_VALUES = {
    "SIZE": "=10",
    "BODY": "=8BITMIME",
    "SMTPUTF8": "",
    "AUTH": "=<>",
    "RET": "=FULL",
    "ENVID": "=Q1",
    "REQUIRETLS": "",
    "MT-PRIORITY": "=3",
    "BY": "=60;R",
    "HOLDFOR": "=60",
    "HOLDUNTIL": "=2030-01-01T00:00:00Z",
    "NOTIFY": "=NEVER",
    "ORCPT": "=rfc822;a@a.test",
}
COMMANDS = {"STARTTLS": "STARTTLS", "AUTH": "AUTH PLAIN AG1lAHNlY3JldA==", "CHUNKING": "BDAT 0 LAST"}


def offered(core: Core) -> dict[str, str]:
    lines = [line[4:] for line in core.say(b"EHLO x\r\n")[1:]]
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}


def core_with(**options: object) -> Core:
    return Core(**{**EVERYTHING, "tls": True, **options})


def test_the_tables_of_this_test_are_complete() -> None:
    assert GOOD_VALUES.keys() == {row.keyword for row in PARAMETERS}


def test_all_of_them_at_once() -> None:
    keywords = offered(core_with()).keys() | offered(core_with(tls=False, starttls=True)).keys()
    assert keywords == KNOWN_EXTENSIONS - {"XCLIENT", "XFORWARD", "VRFY", "EXPN"}


@pytest.mark.parametrize("disabled", [(), ("VRFY", "EXPN")])
@pytest.mark.parametrize("hook", ["on_vrfy", "on_expn", None])
async def test_lookups_are_offered_where_the_application_answers_them(hook: str | None, disabled: tuple[str, ...]):
    """RFC 5321 section 3.5.2: EXPN must be listed where it is supported, VRFY may be; and VRFY is always there."""

    async def lookup(session, argument):
        return Reply(250, f"<{argument}>", "2.1.5")

    handler = Discard()
    if hook:
        setattr(handler, hook, lookup)
    async with session(handler, disabled_extensions=disabled) as peer:
        lines = (await peer.ask("EHLO x")).splitlines()
        offered = {line[4:] for line in lines} & {"VRFY", "EXPN"}
        assert offered == ({hook[3:].upper()} if hook and not disabled else set())
        answer = "250 2.1.5 <a@a.test>"
        assert await peer.ask("VRFY a@a.test") == (
            answer if hook == "on_vrfy" else "252 2.5.0 cannot verify the user, but will take mail for it"
        )
        expanded = hook == "on_expn" and not disabled
        assert (await peer.ask("EXPN a@a.test"))[0] == ("2" if expanded else "5")


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: row.keyword)
def test_a_parameter_is_known_with_its_extension_and_unknown_without(row) -> None:
    value = GOOD_VALUES[row.keyword]
    for disabled, wanted in (((), "250"), ((row.extension,), "555")):
        core = core_with(disabled_extensions=disabled)
        assert (row.extension in offered(core)) is (not disabled)
        if row.command == "MAIL":
            answer = core.say(f"MAIL FROM:<a@a.test> {row.keyword}{value}\r\n".encode())
        else:
            answer = core.say(f"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test> {row.keyword}{value}\r\n".encode())
        assert codes(answer)[-1] == wanted
        if disabled:
            assert answer[-1] == f"555 5.5.4 parameter {row.keyword} is not supported"


@pytest.mark.parametrize(
    "row", [row for row in PARAMETERS if row.extension in OPT_IN_EXTENSIONS], ids=lambda row: row.keyword
)
def test_what_obliges_the_application_is_off_unless_named(row) -> None:
    core = Core(tls=True)
    assert row.extension not in offered(core)
    line = (
        f"{row.command} {'FROM' if row.command == 'MAIL' else 'TO'}:<a@a.test> {row.keyword}{GOOD_VALUES[row.keyword]}"
    )
    before = b"" if row.command == "MAIL" else b"MAIL FROM:<a@a.test>\r\n"
    assert codes(core.say(before + line.encode() + b"\r\n"))[-1] == "555"


@pytest.mark.parametrize("keyword", COMMANDS)
def test_a_command_whose_extension_is_off_is_unknown(keyword: str) -> None:
    core = core_with(tls=False, starttls=True, disabled_extensions=[keyword])
    assert keyword not in offered(core)
    core.say(ENVELOPE)
    assert core.say(COMMANDS[keyword].encode() + b"\r\n") == ["500 5.5.1 command not recognized"]
    assert codes(core.say(b"NOOP\r\n")) == ["250"]


@pytest.mark.parametrize("keyword", sorted(KNOWN_EXTENSIONS))
def test_what_is_switched_off_is_not_offered(keyword: str) -> None:
    for tls in (True, False):
        assert keyword not in offered(core_with(tls=tls, starttls=True, disabled_extensions=[keyword.lower()]))


def test_what_cannot_do_without_another_goes_with_it() -> None:
    assert not {"SMTPUTF8", "BINARYMIME"} & offered(core_with(disabled_extensions=["8BITMIME"])).keys()
    assert "BINARYMIME" not in offered(core_with(disabled_extensions=["CHUNKING"]))
    for row in EXTENSIONS:
        for other in row.requires:
            assert row.keyword not in offered(core_with(disabled_extensions=[other]))


def test_unknown_names_are_mistakes() -> None:
    for field in ("disabled_extensions", "enabled_extensions"):
        with pytest.raises(ValueError, match=field):
            ServerConfig(**{field: ["FOO"]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="enabled_extensions"):
        ServerConfig(enabled_extensions=["SIZE"])


def test_without_ehlo_there_are_none() -> None:
    core = Core(enable_ehlo=False)
    assert codes(core.say(b"EHLO x\r\n")) == ["502"]
    assert core.say(b"HELO x\r\n") == ["250 mx.test"]


# ---- SIZE (RFC 1870)


@pytest.mark.parametrize(
    ("size", "code"),
    [("1000", "250"), ("1001", "552"), ("99999999999999999999", "552"), ("0", "250"), ("0001000", "250")]
    + [(bad, "501") for bad in ("-1", "0x10", "", "1 SIZE=1", "1.5", "9" * 21)],
)
def test_size_of_mail(size: str, code: str) -> None:
    core = Core(max_message_size=1000)
    assert offered(core)["SIZE"] == "1000"
    assert codes(core.say(f"MAIL FROM:<a@a.test> SIZE={size}\r\n".encode())) == [code]


@pytest.mark.parametrize(("octets", "code"), [(1000, "250"), (1001, "552")])
@pytest.mark.parametrize("dots", [False, True])
def test_size_counts_neither_stuffed_dots_nor_the_end(octets: int, code: str, dots: bool) -> None:
    text = b".\r\n" * 300 if dots else b""
    text += b"x" * (octets - len(text) - 2) + b"\r\n"
    assert len(text) == octets
    for by_chunk in (False, True):
        core = Core(max_message_size=1000)
        core.say(b"EHLO x\r\n" + ENVELOPE)
        if by_chunk:
            half = octets // 2
            answer = core.say(b"BDAT %d\r\n" % half + text[:half] + b"BDAT %d LAST\r\n" % (octets - half) + text[half:])
        else:
            answer = core.say(b"DATA\r\n" + text.replace(b".\r\n", b"..\r\n") + b".\r\n")
        assert codes(answer)[-1] == code
        assert core.messages == ([text] if code == "250" else [])


def test_no_maximum_is_size_0() -> None:
    assert offered(Core(max_message_size=None))["SIZE"] == "0"


# ---- PIPELINING (RFC 2920)


async def test_content_may_be_followed_by_the_next_transaction_in_one_segment() -> None:
    handler = Recorder()
    async with session(handler) as peer:
        one = ENVELOPE + b"DATA\r\none\r\n.\r\n"
        await peer.send(one + one + b"RSET\r\n" + one + b"QUIT\r\n")
        answers = [await peer.code() for _ in range(14)]
        assert answers == ["250", "250", "354", "250"] * 2 + ["250"] + ["250", "250", "354", "250"] + ["221"]
    assert len(handler.messages) == 3


def test_all_recipients_refused_and_data_all_the_same() -> None:
    core = Core(max_recipients=1)
    core.say(b"EHLO x\r\n")
    answer = core.say(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b\r\nDATA\r\n.\r\nNOOP\r\n")
    assert codes(answer) == ["250", "501", "503", "500", "250"]
    assert core.messages == []


# ---- CHUNKING, BINARYMIME (RFC 3030)


def test_bdat_0_last_ends_a_message_and_data_may_not_follow_bdat() -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE)
    assert codes(core.say(b"BDAT 4\r\nhi\r\nDATA\r\nMAIL FROM:<>\r\nRCPT TO:<c@b.test>\r\nBDAT 0 LAST\r\n")) == [
        "250",
        "503",
        "503",
        "503",
        "250",
    ]
    assert core.messages == [b"hi\r\n"]
    assert codes(core.say(b"BDAT 2 LAST\r\nhi")) == ["503"]


def test_binarymime_needs_bdat_and_may_have_any_octets() -> None:
    core = Core()
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test> BODY=BINARYMIME\r\nRCPT TO:<b@b.test>\r\n")
    assert codes(core.say(b"DATA\r\n")) == ["503"]
    content = bytes(range(256))
    assert codes(core.say(b"BDAT 256 LAST\r\n" + content)) == ["250"]
    assert core.messages == [content]


def test_binarymime_is_unknown_without_chunking() -> None:
    core = Core(disabled_extensions=["CHUNKING"])
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"MAIL FROM:<a@a.test> BODY=BINARYMIME\r\n")) == ["501"]


async def test_a_refused_chunk_is_read_and_so_are_those_behind_it() -> None:
    async with session(Recorder(on_data=Reply(554, "no", "5.7.1"))) as peer:
        await peer.send(ENVELOPE + b"BDAT 6\r\nRSET\r\nBDAT 6\r\nQUIT\r\nBDAT 4 LAST\r\nmoreNOOP\r\n")
        assert [await peer.code() for _ in range(6)] == ["250", "250", "554", "503", "503", "250"]


# ---- SMTPUTF8 and 8BITMIME (RFC 6531, RFC 6152)


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ("MAIL FROM:<ä@a.test>", ["553 5.6.7"]),
        ("MAIL FROM:<ä@a.test> SMTPUTF8", ["250 2.1.0"]),
        ("MAIL FROM:<a@ä.test> SMTPUTF8 BODY=8BITMIME", ["250 2.1.0"]),
        ("MAIL FROM:<a@a.test> SMTPUTF8=1", ["501 5.5.4"]),
        ("MAIL FROM:<a@a.test>\r\nRCPT TO:<ö@b.test>", ["250 2.1.0", "550 5.6.7"]),
        ("MAIL FROM:<a@a.test> SMTPUTF8\r\nRCPT TO:<ö@b.test>", ["250 2.1.0", "250 2.1.5"]),
        ("MAIL FROM:<a@a.test> BODY=7BIT", ["250 2.1.0"]),
        ("MAIL FROM:<a@a.test> BODY=8BIT", ["501 5.5.4"]),
        ("MAIL FROM:<a@a.test> BODY=", ["501 5.5.4"]),
    ],
)
def test_utf8_and_8bit(lines: str, answers: list[str]) -> None:
    core = Core()
    core.say(b"EHLO x\r\n")
    assert [line[:9] for line in core.say(lines.encode() + b"\r\n")] == answers


def test_eight_bits_without_a_declaration_are_kept() -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n\xff\xfe\x80\r\n.\r\n")
    assert core.messages == [b"\xff\xfe\x80\r\n"]


async def test_a_reply_is_utf8_only_where_the_client_said_so() -> None:
    async with session(Recorder(on_rcpt=Reply(550, "nö", "5.1.1"))) as peer:
        await peer.ask("MAIL FROM:<a@a.test>")
        assert await peer.ask("RCPT TO:<b@b.test>") == r"550 5.1.1 n\xf6"
        await peer.ask("RSET")
        await peer.ask("MAIL FROM:<a@a.test> SMTPUTF8")
        assert await peer.ask("RCPT TO:<b@b.test>") == "550 5.1.1 nö"


# ---- ENHANCEDSTATUSCODES (RFC 2034)


def test_without_enhanced_codes_there_are_none() -> None:
    core = Core(disabled_extensions=["ENHANCEDSTATUSCODES"])
    core.say(b"EHLO x\r\n")
    assert core.say(ENVELOPE + b"FOO\r\n") == ["250 OK", "250 OK", "500 command not recognized"]


# ---- DSN, REQUIRETLS and what is handed over (RFC 3461, 8689, 6710, 2852, 4865)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("RET=HDRS ENVID=" + "x" * 100, "250"),
        ("RET=BOTH", "501"),
        ("RET=FULL RET=FULL", "501"),
        ("ENVID=" + "x" * 101, "250"),  # dropped
        ("ENVID=a+00b", "250"),
        ("ENVID=a+3db", "250"),
        ("ENVID=a+3Db", "250"),
        ("REQUIRETLS=1", "501"),
        ("MT-PRIORITY=-9", "250"),
        ("MT-PRIORITY=10", "501"),
        ("BY=0;N", "250"),
        ("BY=0;R", "501"),
        ("BY=-60;NT", "250"),
        ("HOLDFOR=999999999", "250"),
        ("HOLDFOR=1000000000", "501"),
        ("HOLDFOR=1 HOLDUNTIL=2030-01-01T00:00:00Z", "501"),
        ("HOLDUNTIL=2030-01-01T00:00:00+01:00", "501"),
    ],
)
def test_parameters_of_mail(parameters: str, code: str) -> None:
    core = core_with()
    core.say(b"EHLO x\r\n")
    assert codes(core.say(f"MAIL FROM:<a@a.test> {parameters}\r\n".encode())) == [code]


async def test_parameters_that_cannot_be_read_are_logged_once_in_a_session(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_smtp")
    handler = Recorder()
    async with session(handler, enabled_extensions=["DSN"]) as peer:
        assert await peer.ask("MAIL FROM:<a@a.test> ENVID=+00 SMTPUTF8") == "250 2.1.0 OK"
        assert await peer.ask("RCPT TO:<b@b.test> ORCPT=rfc822;r+C3+B6bert@b.test") == "250 2.1.5 OK"
        assert await peer.ask("RCPT TO:<c@b.test> ORCPT=rfc822;+0A") == "250 2.1.5 OK"
    sender, first, second = (seen for name, seen in handler.seen if name in ("on_mail", "on_rcpt"))
    assert (sender.envid, first.orcpt, second.orcpt) == (None, ("rfc822", "röbert@b.test"), None)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "dropped parameters that cannot be read: ENVID='+00'"
    ]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("NOTIFY=SUCCESS,FAILURE,DELAY", "250"),
        ("NOTIFY=NEVER,FAILURE", "501"),
        ("NOTIFY=FAILURE,FAILURE", "501"),
        ("ORCPT=rfc822;a+2Bb@a.test", "250"),
        ("ORCPT=rfc822;a+00@a.test", "250"),  # dropped
        ("ORCPT=rfc822", "250"),
        (r"ORCPT=utf-8;\x{E4}@a.test", "250"),
    ],
)
def test_parameters_of_rcpt(parameters: str, code: str) -> None:
    core = core_with()
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test>\r\n")
    assert codes(core.say(f"RCPT TO:<b@b.test> {parameters}\r\n".encode())) == [code]


def test_what_the_application_can_bear_is_offered_and_held() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    core = core_with(max_hold=60, max_hold_until=moment, min_deliver_by=30)
    keywords = offered(core)
    assert keywords["FUTURERELEASE"] == "60 2030-01-01T00:00:00Z"
    assert keywords["DELIVERBY"] == "30"
    for parameters, code in {
        "HOLDFOR=60": "250",
        "HOLDFOR=61": "501",
        "HOLDUNTIL=2030-01-01T00:00:00Z": "250",
        "HOLDUNTIL=2030-01-01T00:00:01Z": "501",
        "BY=30;R": "250",
        "BY=29;R": "550",
        "BY=29;N": "250",
    }.items():
        assert codes(core.say(f"MAIL FROM:<a@a.test> {parameters}\r\nRSET\r\n".encode())) == [code, "250"], parameters
    keywords = offered(core_with())
    assert keywords["FUTURERELEASE"] == "999999999 9999-12-31T23:59:59Z"
    assert keywords["DELIVERBY"] == ""


def test_requiretls_is_offered_inside_tls_only_and_refused_outside() -> None:
    core = core_with(tls=False, starttls=True)
    assert "REQUIRETLS" not in offered(core)
    assert core.say(b"MAIL FROM:<a@a.test> REQUIRETLS\r\n")[0][:10] == "530 5.7.10"


def test_the_longest_command_that_the_extensions_make_fits() -> None:
    core = core_with()
    core.say(b"EHLO x\r\n")
    line = (
        b"MAIL FROM:<"
        + b"a" * 64
        + b"@"
        + (b"b" * 60 + b".") * 3
        + b"test> SIZE=20000000 BODY=8BITMIME SMTPUTF8 RET=FULL"
    )
    line += b" ENVID=" + b"+41" * 100 + b" AUTH=" + b"x" * 480
    assert len(line) > 1036
    assert codes(core.say(line + b"\r\n")) == ["250"]


# ---- LIMITS (RFC 9422)


def test_limits_are_those_in_force() -> None:
    assert offered(Core(max_messages=2, max_recipients=3))["LIMITS"] == "MAILMAX=2 RCPTMAX=3"
    assert offered(Core(max_messages=None, max_recipients=3))["LIMITS"] == "RCPTMAX=3"
    assert "LIMITS" not in offered(Core(max_messages=None, max_recipients=None))
    core = Core(max_messages=2, max_recipients=3)
    core.say(b"EHLO x\r\n")
    assert (
        codes(core.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@b.test>\r\n" * 4 + b"RSET\r\nMAIL FROM:<>\r\nRSET\r\n"))[4]
        == "452"
    )
    assert codes(core.say(b"MAIL FROM:<>\r\n")) == ["421"]


# ---- LMTP (RFC 2033)


async def test_lmtp_has_a_reply_for_each_recipient_in_order_and_repeated_ones_too() -> None:
    async def on_data(session, envelope, body):
        return {"b@b.test": None, "c@b.test": Reply(452, "full", "4.2.2")}

    for body in ("C: DATA\nS: 354…\nC: hi\nC: .", "C: BDAT 0 LAST"):
        async with session(Recorder(on_data=on_data), hello=False, lmtp=True) as peer:
            await peer.speak("""
                S: 220 mx.test LMTP trio_smtp
                C: EHLO x
                S: 500 5.5.1 command not recognized
                C: MAIL FROM:<a@a.test>
                S: 503 5.5.1 send LHLO first
            """)
            await peer.ask("LHLO x")
            await peer.send(
                b"MAIL FROM:<a@a.test>\r\n" + b"".join(b"RCPT TO:<%b@b.test>\r\n" % n for n in b"b c b d".split())
            )
            assert [await peer.code() for _ in range(5)] == ["250"] * 5
            await peer.speak(f"""
                {body.replace(chr(10), chr(10) + " " * 16)}
                S: 250 2.0.0 OK: queued
                S: 452 4.2.2 full
                S: 250 2.0.0 OK: queued
                S: 451 4.3.0 no word about this recipient
                C: DATA
                S: 503 5.5.1 send MAIL first
            """)


def test_lmtp_without_recipients_answers_data_once() -> None:
    core = Core(lmtp=True)
    core.say(b"LHLO x\r\nMAIL FROM:<a@a.test>\r\n")
    assert codes(core.say(b"DATA\r\nNOOP\r\n")) == ["503", "250"]


def test_lhlo_is_unknown_in_smtp_and_hello_in_lmtp() -> None:
    assert codes(Core().say(b"LHLO x\r\n")) == ["500"]
    assert codes(Core(lmtp=True).say(b"HELO x\r\nEHLO x\r\n")) == ["500", "500"]
