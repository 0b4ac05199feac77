from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_smtp._protocol import addresses
from trio_smtp._protocol.addresses import (
    MAX_PATH,
    check_address,
    needs_smtputf8,
    own_name,
    parse_forward_path,
    parse_reverse_path,
    split_address,
    to_ascii,
    wire_address,
)
from trio_smtp._protocol.errors import Delivery, ExtensionNotSupportedError, LocalProtocolError
from trio_smtp._protocol.replies import Reject, Reply


def forward(path, **kwargs):
    text = path.encode() if isinstance(path, str) else path
    return parse_forward_path(b"TO:" + text, **kwargs)


def refusal(argument, *, parse=parse_forward_path, **kwargs):
    with pytest.raises(Reject) as info:
        parse(argument if isinstance(argument, bytes) else argument.encode(), **kwargs)
    reply = info.value.reply
    return reply.code, reply.enhanced


# --- server: what is accepted -------------------------------------------------------------------------------------

ATEXT = "!#$%&'*+-/=?^_`{|}~"

GOOD = [
    ("a@b", "a", "b"),
    ("alice.smith@mail.example.com", "alice.smith", "mail.example.com"),
    ("Alice@EXAMPLE.com", "Alice", "example.com"),
    (f"{ATEXT}@example.com", ATEXT, "example.com"),
    ("a@xn--bcher-kva.example", "a", "xn--bcher-kva.example"),
    ("a@under_score._tcp.example", "a", "under_score._tcp.example"),
    ("a@1.2.3.4", "a", "1.2.3.4"),
    ("a@a-b--c.d", "a", "a-b--c.d"),
    ('"a b\\"@c"@d', 'a b"@c', "d"),
    ('"joe"@d', "joe", "d"),
    ('"a>b<c"@d', "a>b<c", "d"),
    ('"a\\\\b"@d', "a\\b", "d"),
    ('"..a."@d', "..a.", "d"),
    ('""@d', "", "d"),
    ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
    ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]"),
    ("a@[ipv6:::1]", "a", "[ipv6:::1]"),
    ("a@[IPv6:::ffff:192.0.2.1]", "a", "[IPv6:::ffff:192.0.2.1]"),
    ("a@[x400:c=us/@]", "a", "[x400:c=us/@]"),
    ("jürgen@bücher.example", "jürgen", "xn--bcher-kva.example"),
    ("用户@例子.广告", "用户", "xn--fsqu00a.xn--4rr70v"),
    ('"jürgen x"@d', "jürgen x", "d"),
]


@pytest.mark.parametrize(("address", "local_part", "domain"), GOOD)
def test_good_addresses(address, local_part, domain):
    assert forward(f"<{address}>") == (address, local_part, domain, "")
    assert parse_reverse_path(f"FROM:<{address}>".encode()) == (address, local_part, domain, "")
    assert forward(f"<{address}>", lenient=True) == (address, local_part, domain, "")
    assert split_address(address) == (local_part, domain)
    assert check_address(address) == address


@pytest.mark.parametrize(
    "line", [b"FROM:<a@b>", b"from:<a@b>", b"FrOm: <a@b>", b"FROM:<a@b> ", b"FROM:<a@b> \t ", bytearray(b"FROM:<a@b>")]
)
def test_the_word_before_the_path(line):
    address, _, _, rest = parse_reverse_path(line)
    assert address == "a@b"
    assert rest.strip() == ""


@pytest.mark.parametrize("line", [b"TO:<a@b>", b"to:<a@b>", b"tO: <a@b>"])
def test_the_word_before_the_forward_path(line):
    assert parse_forward_path(line)[0] == "a@b"


@pytest.mark.parametrize("path", ["<a@b>", '<"a"@b>', "<é@b>"])
def test_what_follows_the_path_is_handed_back(path):
    assert parse_reverse_path(f"FROM:{path} SIZE=1 BODY=7BIT".encode())[3] == "SIZE=1 BODY=7BIT"
    assert forward(f"{path}  X=é")[3] == " X=é"


@pytest.mark.parametrize("line", [b"FROM:<>", b"FROM: <>", b"from:<> "])
def test_null_reverse_path(line):
    assert parse_reverse_path(line)[:3] == ("", "", "")


def test_null_reverse_path_with_parameters():
    assert parse_reverse_path(b"FROM:<> SIZE=1") == ("", "", "", "SIZE=1")


@pytest.mark.parametrize("lenient", [False, True])
def test_a_recipient_is_never_null(lenient):
    assert refusal("TO:<>", lenient=lenient) == (501, "5.1.3")


@pytest.mark.parametrize("word", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(word):
    assert forward(f"<{word}>") == (word, word, "", "")
    assert forward(f"<{word}>", lenient=True) == (word, word, "", "")
    assert parse_reverse_path(f"FROM:<{word}>".encode()) == (word, word, "", "")


@pytest.mark.parametrize("path", ["<@a:u@c>", "<@a,@b.example:u@c>", "<@a,@b:u@c>"])
def test_source_routes_are_stripped(path):
    assert forward(path)[:3] == ("u@c", "u", "c")
    assert parse_reverse_path(b"FROM:" + path.encode() + b" SIZE=1") == ("u@c", "u", "c", "SIZE=1")


def test_postmaster_behind_a_source_route():
    assert forward("<@a:postmaster>")[0] == "postmaster"


# --- server: what is refused --------------------------------------------------------------------------------------

BAD = [
    "a",
    "a@",
    "@b",
    "@",
    "a@b@c",
    ".a@b",
    "a.@b",
    "a..b@c",
    "a@.b",
    "a@b.",
    "a@b..c",
    "a@-b",
    "a@b-",
    "a@b-.c",
    "a@b.-c",
    "a b@c",
    "a@b c",
    "a@b/c",
    "a@b+c",
    "a\\@b@c",
    "(x)a@b",
    "a,b@c",
    "a:b@c",
    "a;b@c",
    '"a@b',
    '"a"b@c',
    'a"b"@c',
    '"a"',
    '"a\\"@b',
    "a@[192.0.2]",
    "a@[192.0.2.256]",
    "a@[192.0.2.1",
    "a@192.0.2.1]",
    "a@[]",
    "a@[ 192.0.2.1 ]",
    "a@[::1]",
    "a@[2001:db8::1]",
    "a@[fe80::1]",
    "a@[IPv6:]",
    "a@[IPv6:1::2::3]",
    "a@[IPv6:192.0.2.1]",
    "a@[IPv6:fe80::1%eth0]",
    "a@[IPv6:::1]x",
    "a@[-:x]",
    "a@[x-:y]",
    "a@[x:y\\]",
    "a@[x:y]z]",
]


@pytest.mark.parametrize("address", [*BAD, "a<b@c", "a>b@c", "<a@b>", "a@b>"])
def test_bad_addresses(address):
    code, enhanced = refusal(f"TO:<{address}>")
    assert code == 501
    assert enhanced in ("5.1.3", "5.5.4")  # the latter where the path ended early
    code, enhanced = refusal(f"FROM:<{address}>", parse=parse_reverse_path)
    assert code == 501
    assert enhanced in ("5.1.7", "5.5.4")


@pytest.mark.parametrize("address", BAD)
def test_a_client_refuses_the_same(address):
    with pytest.raises(LocalProtocolError):
        check_address(address)


@pytest.mark.parametrize(
    "path",
    ["a@b", "<a@b", "a@b>", "", " ", "  <a@b>", "<", ">", "<<a@b>>", "postmaster", "Bob <a@b>", "< a@b>", "<a@b >"],
)
def test_angle_brackets_are_required(path):
    assert refusal(f"TO:{path}") in [(501, "5.1.3"), (501, "5.5.4")]
    assert refusal(f"FROM:{path}", parse=parse_reverse_path) in [(501, "5.1.7"), (501, "5.5.4")]


@pytest.mark.parametrize(
    "path", ["<@a>", "<@a:>", "<@a@b:c@d>", "<a:b@c>", "<@a,b:c@d>", "<@a,:c@d>", "<@a b:c@d>", "<@>"]
)
def test_bad_source_routes(path):
    assert refusal(f"TO:{path}") == (501, "5.1.3")


@pytest.mark.parametrize(
    "argument", ["", "TO", "TO<a@b>", "TO :<a@b>", "FROM:<a@b>", "<a@b>", "XTO:<a@b>", " TO:<a@b>"]
)
def test_the_word_is_required(argument):
    assert refusal(argument) == (501, "5.5.4")


def test_a_space_is_required_after_the_path():
    assert refusal("TO:<a@b>SIZE=1") == (501, "5.5.4")
    assert refusal("TO:<a@b>>") == (501, "5.5.4")


@pytest.mark.parametrize("char", [chr(c) for c in [*range(0x20), 0x7F, 0x80, 0x85, 0x9F, 0x2028, 0x2029]])
@pytest.mark.parametrize("lenient", [False, True])
def test_control_characters(char, lenient):
    for text in (f"TO:<a{char}b@c>", f"TO:<a@b{char}c>", f'TO:<"{char}"@c>', f"TO:<a@b> X={char}y", f"T{char}O:<a@b>"):
        assert refusal(text, lenient=lenient) == (501, "5.5.2")


@pytest.mark.parametrize("octets", [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe9"])
def test_invalid_utf8(octets):
    for line in (b"TO:<a" + octets + b"@c>", b"TO:<a@c> X=" + octets):
        assert refusal(line) == (501, "5.5.2")
        assert refusal(line, lenient=True) == (501, "5.5.2")


# --- limits, at n and n + 1 ----------------------------------------------------------------------------------------

LABELS = ".".join(["d" * 63] * 4)  # 255 octets


def test_local_part_limit():
    """RFC 5321 section 4.5.3.1 demands 64 octets, and asks for no limit where possible."""
    assert forward(f"<{'a' * 256}@b>")[1] == "a" * 256
    assert refusal(f"TO:<{'a' * 257}@b>") == (501, "5.1.3")
    assert refusal(f"FROM:<{'a' * 257}@b>", parse=parse_reverse_path) == (501, "5.1.7")
    check_address("a" * 256 + "@b")
    with pytest.raises(LocalProtocolError, match="256 octets"):
        check_address("a" * 257 + "@b")


SRS = "SRS0=a1b2=QX=list.example.com=bounces+4711-3f2a-someone=mail.example.org@forwarder.example.net"


def test_bounce_addresses_of_more_than_64_octets_are_taken_at_both_ends():
    local_part = SRS.partition("@")[0]
    assert len(local_part) > 64
    assert forward(f"<{SRS}>")[:2] == (SRS, local_part)
    assert check_address(SRS) == SRS


def test_local_part_limit_counts_quotes_and_octets():
    assert forward(f'<"{"a" * 254}"@b>')[1] == "a" * 254
    assert refusal(f'TO:<"{"a" * 255}"@b>') == (501, "5.1.3")
    assert forward(f"<{'é' * 128}@b>")[1] == "é" * 128
    assert refusal(f"TO:<{'é' * 128}a@b>") == (501, "5.1.3")
    check_address("é" * 128 + "@b")
    with pytest.raises(LocalProtocolError, match="256 octets"):
        check_address("é" * 128 + "a@b")


def test_label_limit():
    assert forward(f"<a@{'d' * 63}.e>")[2] == "d" * 63 + ".e"
    assert refusal(f"TO:<a@{'d' * 64}.e>") == (501, "5.1.3")
    check_address(f"a@{'d' * 63}.e")
    with pytest.raises(LocalProtocolError, match="domain"):
        check_address(f"a@{'d' * 64}.e")


def test_path_limit():
    """Only a source route, or an address that breaks the grammar, can exceed it: the other limits are met before."""
    longest = "a" * 256 + "@" + LABELS
    assert len(f"<{longest}>") == MAX_PATH
    assert forward(f"<{longest}>")[0] == longest
    assert check_address(longest) == longest
    assert refusal(f"TO:<@b:{longest}>") == (501, "5.1.3")
    assert refusal(f"TO:<a{longest}>", lenient=True) == (501, "5.1.3")
    assert refusal(f"TO:<é{longest[1:]}>", lenient=True) == (501, "5.1.3")
    with pytest.raises(LocalProtocolError, match=f"{MAX_PATH} octets"):
        check_address("a" * (4 * MAX_PATH + 1))


def test_domain_limit():
    assert addresses._parse_address("a@" + LABELS) == ("a", LABELS)
    with pytest.raises(ValueError, match="255 octets"):
        addresses._parse_address("a@" + LABELS + "d")


def test_limit_of_the_domain_as_a_labels():
    address = "a@" + ".".join(["ü"] * 31) + ".ddddddd"  # "ü" is two octets, "xn--tda" seven
    assert len(to_ascii(address)) == 257
    assert check_address(address) == address
    with pytest.raises(LocalProtocolError, match="bad domain"):
        check_address(address + "d")
    with pytest.raises(LocalProtocolError, match="bad domain"):
        check_address("a@" + ".".join(["ü"] * 60))


# --- lenient -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "address", "local_part", "domain"),
    [
        ("bob", "bob", "bob", ""),
        ("<bob>", "bob", "bob", ""),
        (" bob", "bob", "bob", ""),
        ("   <bob@b>", "bob@b", "bob", "b"),
        ("bob@example.com", "bob@example.com", "bob", "example.com"),
        ("<a..b@docomo.ne.jp>", "a..b@docomo.ne.jp", "a..b", "docomo.ne.jp"),
        ("<a.@docomo.ne.jp>", "a.@docomo.ne.jp", "a.", "docomo.ne.jp"),
        ("<a@b.>", "a@b", "a", "b"),
        ("a@Example.COM.", "a@Example.COM", "a", "example.com"),
        ("  <a@b>", "a@b", "a", "b"),
        ("<a@b@c>", "a@b@c", "a@b", "c"),
        ('"a b"@c', '"a b"@c', "a b", "c"),
        (f"<{'a' * 257}@b>", f"{'a' * 257}@b", "a" * 257, "b"),
    ],
)
def test_lenient(path, address, local_part, domain):
    assert forward(path, lenient=True) == (address, local_part, domain, "")
    assert forward(path + " X=1", lenient=True)[3] == "X=1"
    if path != '"a b"@c':
        assert refusal(f"TO:{path}")[0] == 501


@pytest.mark.parametrize(
    "path", ["", " ", "<>", "<a b>", "<a", "a>", "<a<b>", '"a', "<@a>", "<@a:>", "@", "a\0", "<a\r@b>"]
)
def test_lenient_has_its_limits(path):
    assert refusal(f"TO:{path}", lenient=True)[0] == 501


@pytest.mark.parametrize("domain", ["", "b..", "b..c", ".b", "-b", "b-", "b:25", "[b", "[b]", "[1.2.3.4", "b" * 256])
def test_a_lenient_server_has_no_other_domains(domain):
    """Hooks compare domains: `b.` in another spelling, or what is none, would slip through a list of them."""
    assert refusal(f"TO:<a@{domain}>", lenient=True)[0] == 501


# --- the two ways of parsing agree --------------------------------------------------------------------------------

pieces = st.sampled_from(
    ["a", "B", "9", ".", "..", "-", "_", "@", "+", '"', "\\", " ", "<", ">", ":", "[", "]", "é", "\0"]
)
paths = st.lists(pieces, max_size=12).map("".join)
words = st.text("abcXYZ019-_.", min_size=1, max_size=70)


@given(st.one_of(paths, st.builds("<{}>".format, paths), st.builds("<{}@{}>".format, words, words)), st.booleans())
@example("<a@b>", False)
@example("<>", False)
@example("<a@b--c>", False)
def test_fast_and_slow_path_agree(path, mail):
    side = addresses._REVERSE if mail else addresses._FORWARD
    argument = (b"FROM:" if mail else b"TO:") + path.encode()
    try:
        slow = addresses._parse_any_path(argument, side, False)
    except Reject as exc:
        with pytest.raises(Reject, match=re.escape(str(exc))):
            side.parse(argument)
    else:
        assert side.parse(argument) == slow


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_parsed_or_refused(octets, lenient):
    for parse, word in ((parse_reverse_path, b"FROM:"), (parse_forward_path, b"TO:")):
        for argument in (octets, word + octets, word + b"<" + octets + b">"):
            try:
                address, local_part, domain, _ = parse(argument, lenient=lenient)
            except Reject as exc:
                assert exc.reply.code == 501  # noqa: PT017
            else:
                assert len((address + local_part + domain).splitlines()) <= 1
                assert len(address.encode()) <= 254


@given(paths.map(lambda p: p.replace("\0", "")))
def test_what_a_server_takes_a_client_can_send(path):
    try:
        address = forward(f"<{path}>")[0]
    except Reject:
        return
    checked = check_address(address, postmaster=True)
    assert forward(f"<{wire_address(checked, smtputf8=True)}>")[1] == split_address(checked)[0]


@pytest.mark.parametrize("unit", ["a.", "a-", '"', "\\", '"a', "a@", "@a,", '\\"', ".", "-", "<", "[", "é", "é-"])
def test_no_line_is_slow(unit):
    text = unit * (50_000 // len(unit))
    start = time.perf_counter()
    for argument in (f"TO:<{text}", f"TO:<{text}>", f"TO:<a@{text}>", f'TO:<"{text}>', f"TO:<@{text}:a@b>"):
        for lenient in (False, True):
            with pytest.raises(Reject):
                parse_forward_path(argument.encode(), lenient=lenient)
    for address in (text, f"a@{text}"):
        with pytest.raises(LocalProtocolError):
            check_address(address)
    assert time.perf_counter() - start < 2  # quadratic would be minutes


# --- client --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "a@b>\r\nDATA",
        "a@b\r\nRCPT TO:<c@d>",
        "a@b\n",
        "\na@b",
        "a\r@b",
        "a\0@b",
        '"a\r\nb"@c',
        '"a\tb"@c',
        "a@b\x7f",
        "a@b\x85",
        "a\u2028@b",
        "a\udc80@b",
        "a@b> SIZE=1",
        "<a@b>",
        "Bob <a@b>",
        "a@b, c@d",
        "a b@c",
        "a@b c",
        " a@b",
        "a@b ",
        "",
        "@b",
        "bob",
        "postmaster",
    ],
)
def test_check_refuses_before_a_byte_is_sent(address):
    with pytest.raises(LocalProtocolError) as info:
        check_address(address)
    assert info.value.delivery is Delivery.NOT_SENT
    assert isinstance(info.value, ValueError)


@given(st.text(max_size=80))
@example('"\u2028"@a')
@example("a@b\n")
def test_what_passes_stays_inside_its_angle_brackets(address):
    try:
        checked = check_address(address, null=True, postmaster=True)
    except LocalProtocolError:
        return
    for smtputf8 in (False, True):
        try:
            wire = wire_address(checked, smtputf8=smtputf8)
        except ExtensionNotSupportedError:
            continue
        parsed = parse_reverse_path(f"FROM:<{wire}> END=1".encode())
        assert parsed[0] == wire
        assert parsed[3] == "END=1"


@pytest.mark.parametrize("address", [None, 5, b"a@b", ["a@b"]])
def test_check_wants_a_str(address):
    with pytest.raises(TypeError, match="must be a str"):
        check_address(address)


def test_null_and_postmaster_only_where_asked():
    assert check_address("", null=True) == ""
    assert check_address("Postmaster", postmaster=True) == "Postmaster"
    with pytest.raises(LocalProtocolError):
        check_address("", postmaster=True)
    with pytest.raises(LocalProtocolError):
        check_address("postmaster", null=True)


def test_stray_dots_get_a_hint():
    with pytest.raises(LocalProtocolError, match="quote leading"):
        check_address("a..b@docomo.ne.jp")
    assert check_address('"a..b"@docomo.ne.jp') == '"a..b"@docomo.ne.jp'


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("mail.example.com", "mail.example.com"),
        ("Z170-D3H", "Z170-D3H"),
        ("shop_web_1", "shop_web_1"),
        ("MÜLLER-PC", "xn--mller-pc-65a"),
        ("Z170-D3H Box", "localhost"),
        ("MÜLLER PC", "localhost"),
        ("a..b", "localhost"),
        ("-", "localhost"),
        ("", "localhost"),
        ("a\nb", "localhost"),
        ("d" * 64, "localhost"),
        (".".join(["d" * 63] * 5), "localhost"),
    ],
)
def test_what_a_machine_calls_itself(node, name):
    assert own_name(node) == name


def test_a_long_address_is_not_repeated_whole():
    with pytest.raises(LocalProtocolError) as info:
        check_address("a" * 100_000)
    assert len(str(info.value)) < 500


def test_normalised_to_nfc():
    assert check_address("ju\u0308rgen@example.com") == "jürgen@example.com"
    # the limit counts what is sent: 32 times two octets, before normalisation three
    assert check_address("u\u0308" * 32 + "@b") == "ü" * 32 + "@b"


@pytest.mark.parametrize(
    ("address", "needs", "ascii_form"),
    [
        ("a@b", False, "a@b"),
        ("", False, ""),
        ("postmaster", False, "postmaster"),
        ("a@bücher.example", False, "a@xn--bcher-kva.example"),
        ("a@BÜCHER.example", False, "a@xn--bcher-kva.example"),
        ("a@straße.example", False, "a@xn--strae-oqa.example"),
        ("a@under_score.bücher.example", False, "a@under_score.xn--bcher-kva.example"),
        ("a@日本語.jp", False, "a@xn--wgv71a119e.jp"),
        ('"@é"@b', True, '"@é"@b'),
        ("jürgen@bücher.example", True, "jürgen@xn--bcher-kva.example"),
    ],
)
def test_smtputf8(address, needs, ascii_form):
    assert needs_smtputf8(address) is needs
    assert to_ascii(address) == ascii_form
    if needs:
        with pytest.raises(ExtensionNotSupportedError, match="SMTPUTF8") as info:
            wire_address(address, smtputf8=False)
        assert info.value.delivery is Delivery.NOT_SENT
        assert wire_address(address, smtputf8=True) == address
    else:
        assert wire_address(address, smtputf8=False) == ascii_form
        assert wire_address(address, smtputf8=True) == ascii_form


@pytest.mark.parametrize(
    "domain", ["b＠ü", "ü ü", "xn--ü", "-ü", "ü-", "ü..b", "ü.", "☃\u200d.net", "\u0301ü.de", "a＞ü.de", "ü。de"]
)
def test_no_idna_name(domain):
    with pytest.raises(LocalProtocolError, match="domain"):
        check_address(f"a@{domain}")
    with pytest.raises(LocalProtocolError, match="domain"):
        check_address(f"é@{domain}")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("", ("", "")),
        ("bob", ("bob", "")),
        ("a@b@C", ("a@b", "c")),
        ('"a b"@c@D', ('"a b"@c', "d")),
        ('"', ('"', "")),
        ('"@a', ('"', "a")),
        ("a@", ("a", "")),
        ('"A b"@C', ("A b", "c")),
        ("a@[IPv6:::1]", ("a", "[IPv6:::1]")),
    ],
)
def test_split_address(address, parts):
    assert split_address(address) == parts


def test_refusals_are_replies():
    with pytest.raises(Reject) as info:
        parse_forward_path(b"TO:<a@b-->")
    assert info.value.reply == Reply(501, "bad recipient address: bad domain", "5.1.3")
