# trio_smtp.inbox: HTML cut into tags and text.
from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp.inbox import _markup
from trio_smtp.inbox._html import links_of, make_safe, text_of
from trio_smtp.inbox._markup import End, Start, Text, cut, decoded


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("", []),
        ("a &amp; b", [Text("a & b")]),
        ("<P>x</P >", [Start("p"), Text("x"), End("p")]),
        ("a<b>c", [Text("a"), Start("b"), Text("c")]),
        ("1 < 2", [Text("1 "), Text("<"), Text(" 2")]),
        ("<a href=\"x&amp;y\" B = 'c' d=e f>", [Start("a", [("href", "x&y"), ("b", "c"), ("d", "e"), ("f", "")])]),
        ("<a x=1 x=2>", [Start("a", [("x", "1")])]),
        ("<br/>", [Start("br")]),
        ("<img/src=x>", [Start("img", [("src", "x")])]),
        ('<a "x=y"=z>t', [Start("a", [("x", "y"), ("z", "")]), Text("t")]),
        ("<!-- <b> -->x", [Text("x")]),
        ("<!-->x", [Text("x")]),
        ("<!doctype html>x", [Text("x")]),
        ("<![CDATA[x]]>y", [Text("y")]),
        ("<?php x ?>y", [Text("y")]),
        ("</ x>y", [Text("y")]),
        ("<script>a<b></script>c", [Start("script", [], "a<b>"), Text("c")]),
        ("<STYLE type=x>a</Style x>c", [Start("style", [("type", "x")], "a"), Text("c")]),
        ("<title>a", [Start("title", [], "a")]),
        ("<script>a</script", [Start("script", [], "a")]),
        ("a<b", [Text("a")]),
        ("a<b c='d", [Text("a")]),
        ("a<!-- b", [Text("a")]),
        ("a</b", [Text("a"), End("b")]),
        ("İ<title>x</TITLE>y", [Text("İ"), Start("title", [], "x</TITLE>y")]),
    ],
)
def test_the_pieces(html, wanted):
    assert list(cut(html)) == wanted


def test_attributes_have_a_limit():
    [tag] = cut("<a " + " ".join(f"x{number}=1" for number in range(500)) + ">")
    assert isinstance(tag, Start)
    assert len(tag.attributes) == _markup.MAX_ATTRIBUTES


def test_a_reference_of_very_many_digits_stays():
    assert decoded("&#" + "9" * 10_000 + ";&lt;").endswith("<")
    assert decoded("&#x41;") == "A"


@given(st.text(alphabet="<>/!-?= \"'&#;abscriptyle\n\0", max_size=80))
def test_anything_can_be_cut(html):
    for piece in cut(html):
        assert isinstance(piece, Text) or piece.name


UNITS = (
    *("<!", "<", "<a ", "&", "&#", "<!--", "<![CDATA[", "<?", "</", "<a b='", "<script>", "<style>", "<p", "<p a="),
    *("</a ", "<!doctype ", "<svg>", "<a\n", "<a/", "]]>", "<textarea>", "<div>", "<a href=x ", "<b></b>", "<title>"),
    *('<a b="', "'", '"', "=", "<a =", '<a "', "</script", "<a b=c'", '" ', "/", "= "),
)


@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_length(unit):
    """Of what is repeated 100,000 times: the standard library's parser takes minutes for some of these."""
    begin = time.process_time()
    for html in (unit * (200_000 // len(unit)), f"<a {unit * (200_000 // len(unit))}>"):
        text_of(html)
        links_of(html)
        make_safe(html, {})
    assert time.process_time() - begin < 20  # seconds; it takes less than one
