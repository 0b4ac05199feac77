# trio_smtp.inbox: HTML made safe, its text and its links. test_inbox_page.py shows the same to a browser.
from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp.inbox import _html
from trio_smtp.inbox._html import link_images, links_of, make_safe, remote_resources_of, text_of

ALLOWED = _html._ELEMENTS | {"html", "head", "meta", "base", "style"}


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def body(html, images=None):
    return make_safe(html, images or {}).partition("</head>")[2].removesuffix("</html>")


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("<p>Hello <b>you</b></p>", "<p>Hello <b>you</b></p>"),
        ("1 < 2 & 3", "1 &lt; 2 &amp; 3"),
        ("<script>alert(1)</script>after", "after"),
        ("<script><script></script>x</script>", "x&lt;/script&gt;".replace("&lt;/script&gt;", "")),
        ("<iframe src=//evil.test></iframe>x", "x"),
        ("<object><embed src=x></object>x", "x"),
        ("<embed src=x><applet><object>what is in there stays", "what is in there stays"),
        ("<svg onload=x><a href=x>a</a></svg>b", "b"),
        ('<link rel="preconnect" href="//evil.test">x', "x"),
        ('<meta http-equiv="refresh" content="0;url=//evil.test">x', "x"),
        ('<base href="//evil.test/">x', "x"),
        ('<form action="//evil.test"><input name=a>x</form>', "x"),
        ('<img src="//evil.test/x.png" alt="a" onerror="x">', '<img alt="a">'),
        ('<img src="https://evil.test/x.png" srcset="//evil.test 2x">', "<img>"),
        ('<img src="data:image/svg+xml;base64,AAAA">', "<img>"),
        ('<img src="data:image/png;base64,AAAA">', '<img src="data:image/png;base64,AAAA">'),
        ('<table background="//evil.test/x"><tr><td>x</table>', "<table><tr><td>x</td></tr></table>"),
        ('<a href="javascript:alert(1)">x</a>', "<a>x</a>"),
        (
            '<a href=" https://example.com/ " target=_self>x</a>',
            '<a href="https://example.com/" rel="noopener noreferrer">x</a>',
        ),
        ('<a href="mailto:a@b.test">x</a>', '<a href="mailto:a@b.test" rel="noopener noreferrer">x</a>'),
        ('<p title="&quot;><script>">x</p>', '<p title="&quot;&gt;&lt;script&gt;">x</p>'),
        ("<p>never closed", "<p>never closed</p>"),
        ("</p></div>stray", "stray"),
        ("<plaintext>all the rest", ""),
        ("<textarea></textarea><b>x</b>", "<b>x</b>"),
        ("<noscript><p title='</noscript><img src=x onerror=y>'></noscript>x", None),
    ],
)
def test_what_is_left(html, wanted):
    left = body(html)
    if wanted is not None:
        assert left == f"<body>{wanted}</body>"
    assert "onerror" not in re.sub(r"&quot;.*?&gt;", "", left)


def test_the_attributes_of_the_body_stay():
    assert body('<html><body bgcolor="#fff" onload="x" style="color:red">x</body></html>') == (
        '<body bgcolor="#fff" style="color:red">x</body>'
    )


def test_pictures_of_the_message_are_shown():
    images = {"logo@x": "data:image/png;base64,AAAA"}
    assert body('<img src="CID:Logo@x">', images) == '<body><img src="data:image/png;base64,AAAA"></body>'
    assert body('<img src="cid:other">', images) == "<body><img></body>"
    assert "url(&quot;data:image/png;base64,AAAA&quot;)" in body("<p style='background:url(cid:logo@x)'>", images)
    assert 'url("data:image/png;base64,AAAA")' in body("<style>p{background:url('cid:logo@x')}</style>", images)


def test_nothing_in_a_style_element_ends_it():
    left = body("<style>p{}</style/ x><link rel=preconnect href=//evil.test></style>")
    assert "<link" not in left
    assert body("<style>a<b</style>") == "<body><style>a/**/b</style></body>"


def test_long_html_is_cut():
    assert len(make_safe("<p>" + "x" * (2 * _html.MAX_HTML), {})) < _html.MAX_HTML + 2000


PIECES = (
    "<script> </script> <style> </style> <!-- --> <![CDATA[ ]]> <p title=' ' \" > < / <img src=//e.test> <link"
    " rel=preconnect href=//e.test> <svg> </svg> <math> <textarea> </textarea> <title> </title> x &lt; <base href="
    " <iframe srcdoc=' onload=x <? ?> <!doctype \0 \x0c <noscript> </noscript> <xmp> </style/ >"
)


@given(st.lists(st.sampled_from(PIECES.split(" ")), max_size=12))
def test_only_what_is_allowed_comes_out(pieces):
    for tag, attributes in Elements(make_safe(" ".join(pieces), {})).seen:
        assert tag in ALLOWED
        if tag not in {"meta", "base"}:
            assert not {name for name in attributes if name.startswith("on") or name in {"srcset", "action", "srcdoc"}}
            assert not attributes.get("src")


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("<title>t</title><style>s</style><script>c</script>a<br>b", "a\nb"),
        ("a &amp; b &nbsp; c", "a & b c"),
        ("<p>a\n   b</p>", "a b"),
        ("<![if x]>a", "a"),
        ("", ""),
    ],
)
def test_the_text(html, wanted):
    assert text_of(html) == wanted


def test_links_in_order_each_once():
    html = '<a href="https://a.test/?x=1&amp;y=2">a</a><a href=mailto:b@b.test>b</a>'
    html += '<a href="https://a.test/?x=1&y=2">c</a><a href="#d">'
    assert links_of(html) == ["https://a.test/?x=1&y=2", "mailto:b@b.test"]


def test_resources_from_elsewhere_are_counted():
    assert remote_resources_of('<img src="https://a.test/x"><img src=//a.test><td background="http://b.test">') == 3
    assert remote_resources_of('<img src="cid:x"><a href="https://a.test">') == 0


def test_resources_of_styles_and_srcset_are_counted():
    styles = '<style>@import "//a.test"; p { background: url(https://a.test/x) }</style><p style="b:u\\72l(//a.test)">'
    assert remote_resources_of(styles) == 3
    assert remote_resources_of('<img srcset="//a.test 1x,//b.test 2x, c.png, https://d.test">') == 3
    assert remote_resources_of('<img srcset="data:image/png;base64,//AA 1x"><p style="b: url(data:image/png,//)">') == 0


def test_styles_name_nothing_outside_the_message():
    html = "<style>@import '//evil.test'; p{background:red url(//evil.test)}</style><p style='b:url(//evil.test)'>"
    assert "evil" not in make_safe(html, {})


def test_programs_get_the_html_as_it_came_but_for_its_pictures():
    html = "<script>x</script><img src='cid:logo'><img src=\"CID:Other\">"
    assert link_images(html, {"logo": "/part/1"}) == "<script>x</script><img src='/part/1'><img src=\"CID:Other\">"
