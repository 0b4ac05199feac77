from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.envelope import Recipient, Sender
from trio_smtp._protocol.extensions import KNOWN_EXTENSIONS
from trio_smtp._protocol.parameters import PARAMETERS, Parameter, ParameterContext, parse_mail, parse_rcpt
from trio_smtp._protocol.replies import Reject

ALL = ParameterContext(KNOWN_EXTENSIONS, tls=True)
NONE = ParameterContext(())


def mail(params, context=ALL, address="a@b"):
    return parse_mail(f"FROM:<{address}> {params}".encode(), context)


def rcpt(params, context=ALL, address="a@b", **kwargs):
    return parse_rcpt(f"TO:<{address}> {params}".encode(), context, **kwargs)


def refusal(parse, params, *args, **kwargs):
    with pytest.raises(Reject) as info:
        parse(params, *args, **kwargs)
    return info.value.reply.code, info.value.reply.enhanced


SYNTAX = (501, "5.5.4")
UNKNOWN = (555, "5.5.4")

# One good line for each row of the table; the test below sees to it that none is forgotten.
GOOD = {
    "SIZE": "SIZE=1000",
    "BODY": "BODY=8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH=<>",
    "RET": "RET=HDRS",
    "ENVID": "ENVID=QQ314159",
    "REQUIRETLS": "REQUIRETLS",
    "MT-PRIORITY": "MT-PRIORITY=-3",
    "BY": "BY=120;R",
    "HOLDFOR": "HOLDFOR=60",
    "HOLDUNTIL": "HOLDUNTIL=2030-01-01T00:00:00Z",
    "NOTIFY": "NOTIFY=NEVER",
    "ORCPT": "ORCPT=rfc822;a@b",
}


def test_every_row_is_tested():
    assert set(GOOD) == {row.keyword for row in PARAMETERS}
    assert {row.extension for row in PARAMETERS} <= KNOWN_EXTENSIONS


@pytest.mark.parametrize("row", PARAMETERS, ids=lambda row: row.keyword)
class TestEveryParameter:
    def parse(self, row):
        return mail if row.command == "MAIL" else rcpt

    def test_needs_its_extension(self, row):
        parse = self.parse(row)
        only = ParameterContext({row.extension}, tls=True)
        assert row.keyword in parse(GOOD[row.keyword], only).params
        assert refusal(parse, GOOD[row.keyword], ParameterContext(KNOWN_EXTENSIONS - {row.extension})) == UNKNOWN
        assert refusal(parse, GOOD[row.keyword], NONE) == UNKNOWN

    def test_belongs_to_its_command(self, row):
        other = rcpt if row.command == "MAIL" else mail
        assert refusal(other, GOOD[row.keyword]) == UNKNOWN

    def test_is_kept_as_received_under_its_keyword(self, row):
        keyword, equals, value = GOOD[row.keyword].partition("=")
        parsed = self.parse(row)(f"{keyword.lower()}{equals}{value}")
        assert parsed.params == {row.keyword: value if equals else None}

    def test_comes_at_most_once(self, row):
        line = GOOD[row.keyword]
        assert refusal(self.parse(row), f"{line} {line}") == SYNTAX
        assert refusal(self.parse(row), f"{line} {line.lower()}") == SYNTAX

    def test_value_is_there_or_not(self, row):
        keyword, equals, _ = GOOD[row.keyword].partition("=")
        self.check_bad(row, f"{keyword}=")
        self.check_bad(row, keyword if equals else f"{keyword}=1")

    def test_value_has_no_equals_sign(self, row):
        """As in the address of a bounce, not encoded: ORCPT=rfc822;list+joe=x.test@lists.test."""
        keyword = row.keyword
        self.check_bad(row, f"{keyword}=rfc822;a=b")
        self.check_bad(row, f"{keyword}==1")

    def check_bad(self, row, line):
        """A bad value is a refusal; of an advisory parameter, it costs the parameter, and not the message."""
        if row.read is None:
            assert refusal(self.parse(row), line) == SYNTAX
        else:
            target = self.parse(row)(line)
            assert target.unreadable == {row.keyword: line.partition("=")[2]}
            assert target.params == {}

    def test_other_kinds_of_digits_and_letters_are_none(self, row):
        assert refusal(mail, "ſIZE=5 SMTPUTF8")[0] == 501  # "ſ".upper() == "S"
        assert refusal(mail, "BODY=8BıTMıME SMTPUTF8")[0] == 501
        assert refusal(mail, "SIZE=٣ SMTPUTF8")[0] == 501


def test_no_parameters():
    sender = parse_mail(b"FROM:<Alice@Example.COM>", NONE)
    assert (sender.address, sender.local_part, sender.domain, sender.params) == (
        "Alice@Example.COM",
        "Alice",
        "example.com",
        {},
    )
    assert parse_mail(b"FROM:<>", NONE) == Sender("", "", "")
    assert parse_rcpt(b"TO:<Postmaster>", NONE) == Recipient("Postmaster", "Postmaster", "")
    assert isinstance(parse_rcpt(b"TO:<a@b>", NONE), Recipient)


def test_several_parameters():
    sender = mail("SIZE=1000  BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x ")
    assert sender.params == {"SIZE": "1000", "BODY": "8BITMIME", "SMTPUTF8": None, "RET": "FULL", "ENVID": "x"}
    assert (sender.size, sender.body, sender.smtputf8, sender.ret, sender.envid) == (
        1000,
        "8BITMIME",
        True,
        "FULL",
        "x",
    )


def test_the_address_is_looked_at_first():
    with pytest.raises(Reject) as info:
        parse_mail(b"FROM:<a@b@c> XXX", ALL)
    assert info.value.reply.enhanced == "5.1.7"
    with pytest.raises(Reject) as info:
        parse_rcpt(b"TO:<> XXX", ALL)
    assert info.value.reply.enhanced == "5.1.3"


@pytest.mark.parametrize("param", ["XYZ", "XYZ=1", "X-Y=", "size-x=1", "0=1"])
def test_unknown_parameters(param):
    assert refusal(mail, param) == UNKNOWN
    assert refusal(rcpt, param) == UNKNOWN


@pytest.mark.parametrize("param", ["=", "=1", "-X", "-X=1", "X_Y", "S/Z=1", "é", "ſIZE=1"])
def test_malformed_parameters(param):
    assert refusal(mail, param) == SYNTAX
    assert refusal(mail, f"SMTPUTF8 {param}") == SYNTAX
    assert refusal(rcpt, param, smtputf8=True) == SYNTAX


def test_lenient_addresses_come_from_the_context():
    lenient = ParameterContext(KNOWN_EXTENSIONS, lenient=True)
    assert parse_mail(b"FROM:bob SIZE=1", lenient).size == 1
    assert parse_rcpt(b"TO:bob", lenient).address == "bob"
    with pytest.raises(Reject):
        parse_rcpt(b"TO:bob", ALL)


# --- UTF-8 ---------------------------------------------------------------------------------------------------------


def test_utf8_sender_needs_smtputf8():
    assert mail("SMTPUTF8", address="é@ü").address == "é@ü"
    assert mail("SIZE=1 SMTPUTF8", address="a@ü").smtputf8
    assert refusal(mail, "", address="é@b") == (553, "5.6.7")
    assert refusal(mail, "SIZE=1", address="a@ü") == (553, "5.6.7")
    assert refusal(mail, "SMTPUTF8", NONE, address="é@b") == UNKNOWN
    assert refusal(mail, "", NONE, address="é@b") == (553, "5.6.7")
    # The word inside a quoted local part is no parameter.
    assert refusal(mail, "", address='"é SMTPUTF8 "@b') == (553, "5.6.7")


def test_utf8_recipient_needs_smtputf8():
    assert rcpt("", smtputf8=True, address="é@ü").address == "é@ü"
    assert refusal(rcpt, "", address="é@b") == (550, "5.6.7")
    assert refusal(rcpt, "", address="a@ü") == (550, "5.6.7")


def test_utf8_values_need_smtputf8():
    assert rcpt("ORCPT=utf-8;é@b").unreadable == {"ORCPT": "utf-8;é@b"}
    assert rcpt("ORCPT=utf-8;é@b", smtputf8=True).orcpt == ("utf-8", "é@b")
    extra = [
        Parameter("XTEXT", "MAIL", "XTEXT", lambda value, sender, context: None, utf8=True),
        Parameter("XPLAIN", "MAIL", "XTEXT", lambda value, sender, context: None),
    ]
    context = ParameterContext({"XTEXT", "SMTPUTF8"}, extra=extra)
    assert mail("XTEXT=é SMTPUTF8", context).params["XTEXT"] == "é"
    assert refusal(mail, "XTEXT=é", context) == SYNTAX
    assert refusal(mail, "XPLAIN=é SMTPUTF8", context) == SYNTAX


# --- one by one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "size"), [("0", 0), ("1", 1), ("007", 7), ("9" * 20, 10**20 - 1)])
def test_size(value, size):
    assert mail(f"SIZE={value}").size == size


@pytest.mark.parametrize("value", ["9" * 21, "-1", "+1", "0x10", "1e3", "1_0", "1.5", "x"])
def test_bad_size(value):
    assert refusal(mail, f"SIZE={value}") == SYNTAX


def test_size_limit():
    context = ParameterContext({"SIZE"}, max_message_size=1000)
    assert mail("SIZE=1000", context).size == 1000
    assert refusal(mail, "SIZE=1001", context) == (552, "5.3.4")
    assert refusal(mail, "SIZE=" + "9" * 20, context) == (552, "5.3.4")
    assert refusal(mail, "SIZE=1", ParameterContext({"SIZE"}, max_message_size=0)) == (552, "5.3.4")


@pytest.mark.parametrize("value", ["7BIT", "8BITMIME", "8bitmime", "BINARYMIME"])
def test_body(value):
    assert mail(f"BODY={value}").body == value.upper()


def test_bad_body():
    assert refusal(mail, "BODY=8BIT") == SYNTAX
    assert refusal(mail, "BODY=BINARYMIME", ParameterContext({"8BITMIME"})) == SYNTAX


@pytest.mark.parametrize(("value", "ret"), [("FULL", "FULL"), ("hdrs", "HDRS")])
def test_ret(value, ret):
    assert mail(f"RET={value}").ret == ret


def test_bad_ret():
    assert refusal(mail, "RET=FULLHDRS") == SYNTAX


def test_envid():
    assert mail("ENVID=a+2Bb+20c").envid == "a+b c"
    assert mail("ENVID=" + "x" * 100).envid == "x" * 100
    assert mail("ENVID=" + "+2B" * 100).envid == "+" * 100


@pytest.mark.parametrize("value", ["x" * 101, "+2B" * 101, "+00", "+0D+0A", "+2b", "+"])
def test_an_envid_that_cannot_be_read_costs_itself_alone(value):
    for extra in ("", " SMTPUTF8"):
        sender = mail(f"SIZE=1 ENVID={value}{extra} RET=FULL")
        assert sender.envid is None
        assert "ENVID" not in sender.params
        assert sender.unreadable == {"ENVID": value}
        assert (sender.size, sender.ret) == (1, "FULL")


@pytest.mark.parametrize(
    ("value", "auth"), [("<>", ""), ("+3C+3E", ""), ("e+3Dmc2@example.com", "e=mc2@example.com"), ("bob", "bob")]
)
def test_auth(value, auth):
    assert mail(f"AUTH={value}").auth == auth


@pytest.mark.parametrize("value", ["+00", "a+", "+0A", "é"])
def test_an_auth_that_cannot_be_read_costs_itself_alone(value):
    sender = mail(f"AUTH={value} SMTPUTF8")
    assert sender.auth is None
    assert sender.params == {"SMTPUTF8": None}
    assert sender.unreadable == {"AUTH": value}


def test_xtext_is_utf8_in_a_transaction_with_smtputf8():
    for params in ("ENVID=r+C3+B6 AUTH=r+C3+B6@b SMTPUTF8", "SMTPUTF8 AUTH=r+C3+B6@b ENVID=r+C3+B6"):
        sender = mail(params)
        assert (sender.envid, sender.auth, sender.unreadable) == ("rö", "rö@b", {})
    assert mail("ENVID=r+C3+B6").unreadable == {"ENVID": "r+C3+B6"}
    for value in ("rfc822;r+C3+B6bert@b", "utf-8;röbert@b"):  # Postfix, and RFC 6533
        assert rcpt(f"ORCPT={value}", smtputf8=True).orcpt == (value.partition(";")[0], "röbert@b")
        assert rcpt(f"ORCPT={value}").unreadable == {"ORCPT": value}
    for value in ("rfc822;+C3", "rfc822;+C2+85", "rfc822;+E2+80+A8", "rfc822;+0A", "rfc822;+ED+A0+80"):
        assert rcpt(f"ORCPT={value}", smtputf8=True).unreadable == {"ORCPT": value}


def test_requiretls():
    assert mail("REQUIRETLS").requiretls
    assert refusal(mail, "REQUIRETLS", ParameterContext({"REQUIRETLS"}, tls=False)) == (530, "5.7.10")


@pytest.mark.parametrize("value", ["-9", "-1", "0", "1", "9"])
def test_mt_priority(value):
    assert mail(f"MT-PRIORITY={value}").mt_priority == int(value)


@pytest.mark.parametrize("value", ["-10", "10", "+1", "-0", "01", "x", "-"])
def test_bad_mt_priority(value):
    assert refusal(mail, f"MT-PRIORITY={value}") == SYNTAX


@pytest.mark.parametrize(
    ("value", "deliver_by"),
    [
        ("120;R", (120, "R", False)),
        ("1;r", (1, "R", False)),
        ("+999999999;RT", (999_999_999, "R", True)),
        ("0;N", (0, "N", False)),
        ("-999999999;nt", (-999_999_999, "N", True)),
    ],
)
def test_by(value, deliver_by):
    assert mail(f"BY={value}").deliver_by == deliver_by


@pytest.mark.parametrize(
    "value", ["0;R", "-1;R", "1000000000;N", "1", "1;", "1;X", "1;TR", "1;RTT", ";R", "1.5;R", "1;R;T"]
)
def test_bad_by(value):
    assert refusal(mail, f"BY={value}") == SYNTAX


def test_the_least_time_to_deliver():
    """RFC 2852: it concerns mode R alone; a notification is never too late."""
    context = ParameterContext({"DELIVERBY"}, min_deliver_by=60)
    assert mail("BY=60;R", context).deliver_by == (60, "R", False)
    assert mail("BY=59;N", context).deliver_by == (59, "N", False)
    assert refusal(mail, "BY=59;R", context) == (550, "5.5.4")
    assert refusal(mail, "BY=0;R", context) == SYNTAX


def test_holdfor():
    assert mail("HOLDFOR=1").hold_for == 1
    assert mail("HOLDFOR=999999999").hold_for == 999_999_999
    context = ParameterContext({"FUTURERELEASE"}, max_hold=60)
    assert mail("HOLDFOR=60", context).hold_for == 60
    assert refusal(mail, "HOLDFOR=61", context) == SYNTAX


@pytest.mark.parametrize("value", ["0", "01", "1000000000", "-1", "+1", "1s"])
def test_bad_holdfor(value):
    assert refusal(mail, f"HOLDFOR={value}") == SYNTAX


def test_holduntil():
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert mail("HOLDUNTIL=2030-01-02T03:04:05Z").hold_until == moment
    assert mail("HOLDUNTIL=2030-01-02t03:04:05.5z").hold_until == moment + timedelta(milliseconds=500)
    context = ParameterContext({"FUTURERELEASE"}, max_hold_until=moment)
    assert mail("HOLDUNTIL=2030-01-02T03:04:05Z", context).hold_until == moment
    assert refusal(mail, "HOLDUNTIL=2030-01-02T03:04:06Z", context) == SYNTAX


@pytest.mark.parametrize(
    "value",
    [
        "2030-01-02T03:04:05",
        "2030-01-02T03:04:05+01:00",
        "2030-01-02T03:04:05+00:00",
        "2030-01-02",
        "2030-W01-1T03:04:05Z",
        "20300102T030405Z",
        "2030-13-02T03:04:05Z",
        "2030-02-30T03:04:05Z",
        "2030-01-02T24:04:05Z",
        "2030-01-02T03:04Z",
        "0000-01-02T03:04:05Z",
    ],
)
def test_bad_holduntil(value):
    assert refusal(mail, f"HOLDUNTIL={value}") == SYNTAX


def test_holdfor_and_holduntil_exclude_each_other():
    assert refusal(mail, "HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z") == SYNTAX
    assert refusal(mail, "HOLDUNTIL=2030-01-01T00:00:00Z HOLDFOR=60") == SYNTAX


@pytest.mark.parametrize(
    ("value", "notify"),
    [
        ("NEVER", {"NEVER"}),
        ("never", {"NEVER"}),
        ("SUCCESS", {"SUCCESS"}),
        ("Delay,failure", {"FAILURE", "DELAY"}),
        ("SUCCESS,FAILURE,DELAY", {"SUCCESS", "FAILURE", "DELAY"}),
    ],
)
def test_notify(value, notify):
    recipient = rcpt(f"NOTIFY={value}")
    assert recipient.notify == notify
    assert isinstance(recipient.notify, frozenset)


@pytest.mark.parametrize(
    "value", ["NEVER,SUCCESS", "SUCCESS,NEVER", "NEVER,NEVER", "SUCCESS,SUCCESS", "SUCCESS,", ",SUCCESS", "ALWAYS", ","]
)
def test_bad_notify(value):
    assert refusal(rcpt, f"NOTIFY={value}") == SYNTAX


@pytest.mark.parametrize(
    ("value", "orcpt"),
    [
        ("rfc822;Bob+2Btag@example.com", ("rfc822", "Bob+tag@example.com")),
        ("RFC822;a@b", ("rfc822", "a@b")),
        ("x400;c+3Dus;a", ("x400", "c=us;a")),
        ("utf-8;j\\x{FC}rgen@b", ("utf-8", "jürgen@b")),
        ("UTF-8;a\\x{2B}b@c", ("utf-8", "a+b@c")),
    ],
)
def test_orcpt(value, orcpt):
    assert rcpt(f"ORCPT={value}").orcpt == orcpt


@pytest.mark.parametrize(
    "value",
    [
        "a@b",
        ";a@b",
        "rfc822;",
        "utf-8;",
        "rfc(822);a@b",
        "rfc822;a+00",
        "rfc822;a+0D+0AX:",
        "rfc822;a+2b",
        "rfc822;+",
        "utf-8;a+2Bb",
        "utf-8;\\x{0A}",
        "utf-8;\\x{D800}",
    ],
)
def test_an_orcpt_that_cannot_be_read_costs_itself_alone(value):
    for smtputf8 in (False, True):
        recipient = rcpt(f"NOTIFY=NEVER ORCPT={value}", smtputf8=smtputf8)
        assert recipient.orcpt is None
        assert recipient.params == {"NOTIFY": "NEVER"}
        assert recipient.unreadable == {"ORCPT": value}


def test_only_utf8_addresses_are_utf8():
    assert rcpt("ORCPT=rfc822;é@b", smtputf8=True).unreadable == {"ORCPT": "rfc822;é@b"}


# --- an application's own -----------------------------------------------------------------------------------------


def test_an_application_adds_a_keyword():
    def rrvs(value, recipient, context):
        if not value:
            raise Reject(501, "bad RRVS", "5.5.4")
        recipient.valid_since = value

    context = ParameterContext({"RRVS"}, extra=[Parameter("rrvs", "RCPT", "rrvs", rrvs)])
    recipient = rcpt("rrvs=2014-04-03T23:01:00Z", context)
    assert recipient.valid_since == recipient.params["RRVS"] == "2014-04-03T23:01:00Z"
    assert refusal(rcpt, "RRVS", context) == SYNTAX
    assert refusal(rcpt, "RRVS=x") == UNKNOWN
    assert refusal(mail, "RRVS=x", context) == UNKNOWN


@pytest.mark.parametrize("param", ["XANY=", "XANY==", "XANY=a=b", "XANY=é SMTPUTF8"])
def test_an_application_gets_well_formed_values_only(param):
    row = Parameter("XANY", "MAIL", "XANY", lambda value, sender, context: None)
    context = ParameterContext({"XANY", "SMTPUTF8"}, extra=[row])
    assert mail("XANY", context).params == {"XANY": None}
    assert mail("XANY=a,b", context).params == {"XANY": "a,b"}
    assert refusal(mail, param, context) == SYNTAX


def test_no_tls_unless_said_so():
    assert refusal(mail, "REQUIRETLS", ParameterContext({"REQUIRETLS"})) == (530, "5.7.10")


def test_extensions_are_named_in_any_case():
    assert mail("size=1", ParameterContext(["size"])).size == 1


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(octets):
    for parse, path in ((parse_mail, b"FROM:<a@b> "), (parse_rcpt, b"TO:<a@b> ")):
        for argument in (octets, path + octets, path + b"ENVID=" + octets, path + b"ORCPT=utf-8;" + octets):
            try:
                parsed = parse(argument, ALL)
            except Reject as exc:
                assert exc.reply.code in (501, 553, 555, 550)  # noqa: PT017
            else:
                assert all(value is None or len(value.splitlines()) == 1 for value in parsed.params.values())
