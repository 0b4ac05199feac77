# Domains: one form for all spellings of a name, none for what is no name, and never the form of another.
from __future__ import annotations

import unicodedata

import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_smtp._protocol.addresses import check_address, parse_forward_path, wire_address
from trio_smtp._protocol.domains import canonical_domain
from trio_smtp._protocol.errors import LocalProtocolError
from trio_smtp._protocol.replies import Reject

SPELLINGS = {
    "example.test": ["example.test", "EXAMPLE.Test"],
    "xn--mller-kva.test": [
        "müller.test",
        "MÜLLER.test",
        "mu\u0308ller.test",
        "xn--mller-kva.TEST",
        "XN--MLLER-KVA.test",
    ],
    "xn--fa-hia.de": ["faß.de", "FAẞ.de", "xn--fa-hia.de"],
    "xn--mxa.xn--mxa": ["α.α", "α.xn--mxa", "Α.Α"],
    "under_score.xn--tda": ["under_score.ü"],
    "xn--ls8h.test": ["xn--ls8h.test"],  # an emoji: no A-label by IDNA 2008, but a name with mail
    "xn--.test": ["xn--.test"],  # no A-label at all, but an ASCII label, which no U-label has for its form
}


@pytest.mark.parametrize(
    ("form", "spelling"), [(form, spelling) for form, spellings in SPELLINGS.items() for spelling in spellings]
)
def test_one_form_for_all_spellings(form: str, spelling: str) -> None:
    assert canonical_domain(spelling) == form


@pytest.mark.parametrize(
    "domain",
    [
        *("exam\u200bple.test", "exam\u00adple.test", "ｅxample.test", "e\u212aample.test", "\u0130stanbul.test"),
        *("ü\uff0etest", "ü\u3002test", "ü\uff61test", "ü..test", ".ü", "ü.", "-ü.test", "ü-.test", "xn--ü.test"),
        *("☃.test", "💩.test", "ﬁrst.test", "a\u200db.test", "\u0301a.test", "א1a.test", "ü" * 60 + ".test"),
        ".".join(["ü"] * 60),
    ],
)
def test_what_is_no_domain(domain: str) -> None:
    with pytest.raises(ValueError, match="bad domain"):
        canonical_domain(domain)


def test_a_capital_sigma_at_the_end_is_the_small_one_that_has_its_form_elsewhere() -> None:
    assert canonical_domain("ΑΣ.test") == canonical_domain("ασ.test") != canonical_domain("ας.test")


LETTERS = [
    *"aAkKz1-._",
    *"üÜßẞσςΣıİéèאب漢字",
    "\u0301",
    "\u0308",
    "\u200b",
    "\u200d",
    "\u00ad",
    "\u3002",
    "\uff0e",
    "\uff61",
]
LETTERS += [
    "\u212a",
    "\u212b",
    "ｅ",
    "ﬁ",
    "xn--",
    "xn--mller-kva",
    "XN--TDA",
    "☃",
    "\u2024",
    "\ufe0f",
    "\u202e",
    "\u037e",
]
names = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=8).map("".join)


def looks(domain: str) -> str:
    """What a reader sees: U-labels where there are any, without regard to case and composition."""
    labels = []
    for label in domain.split("."):
        try:
            labels.append(idna.ulabel(label.lower()) if label.lower().startswith("xn--") else label)
        except idna.IDNAError:
            labels.append(label)
    return unicodedata.normalize("NFC", "".join(map(str.lower, unicodedata.normalize("NFC", ".".join(labels)))))


@given(names, names)
@example("exam\u200bple", "example")
@example("K", "k")
@example("a\u3002b", "a.b")
@example("ẞ", "ss")
@example("xn--tda", "Ü")
def test_two_domains_are_one_only_if_they_look_the_same(one: str, other: str) -> None:
    try:
        forms = [canonical_domain(one), canonical_domain(other)]
    except ValueError:
        return
    assert (forms[0] == forms[1]) == (looks(one) == looks(other))
    for domain, form in zip((one, other), forms, strict=True):
        assert form.isascii()
        assert form == form.lower()
        assert form.count(".") == domain.count(".")
        assert canonical_domain(form) == form


@given(names)
def test_both_ends_agree_on_what_a_domain_is(domain: str) -> None:
    try:
        checked = check_address(f"x@{domain}")
    except LocalProtocolError:
        with pytest.raises(Reject):
            parse_forward_path(f"TO:<x@{domain}>".encode())
        return
    sent = wire_address(checked, smtputf8=False)
    assert sent.isascii()
    received = parse_forward_path(f"TO:<x@{domain}>".encode())
    assert received[2] == parse_forward_path(f"TO:<{sent}>".encode())[2] == canonical_domain(domain)
