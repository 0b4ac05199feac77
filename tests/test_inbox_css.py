# trio_smtp.inbox: CSS without what would be fetched. tinycss2, which reads CSS as browsers do, is the judge.
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import tinycss2
from growth import assert_no_square
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp.inbox import _css
from trio_smtp.inbox._css import addresses_in, clean

PICTURE = "data:image/png;base64,AAAA"


def cleaned(css: str) -> str:
    return clean(css, lambda address: address if address == PICTURE else "")


def fetched_by(nodes: Iterable[Any]) -> list[str]:
    """What a browser may fetch: any address, and any function or at-rule that is not known to be harmless."""
    found: list[str] = []
    for node in nodes:
        if node.type == "url":
            found.append(node.value)
        elif node.type == "function":
            if node.lower_name == "url":
                found += [each.value for each in node.arguments if each.type == "string"]
            elif node.lower_name not in _css._FUNCTIONS and not node.lower_name.startswith("none"):
                found.append(node.lower_name)
            found += fetched_by(node.arguments)
        elif (
            node.type == "at-keyword"
            and node.lower_value not in _css._AT_RULES
            and not node.lower_value.startswith("none")
        ):
            found.append(node.lower_value)
        elif node.type.endswith("block"):
            found += fetched_by(node.content)
    return found


@pytest.mark.parametrize(
    ("css", "wanted"),
    [
        ("p{background:red url(https://a.test/x) no-repeat}", "p{background:red none no-repeat}"),
        ("@import 'https://a.test' screen; p{color:red}", "@none; p{color:red}"),
        ("@IMPORT url(//a.test);a{}", "@none;a{}"),
        ("@\\69mport '//a.test';a{}", "@none;a{}"),
        ("u\\72l(//a.test)", "none"),
        ("\\000055 RL( '//a.test' )", "none"),
        ("u/**/rl(x)", "u/**/none"),
        ("/* url( */a{}", "/**/a{}"),
        ("url(/**/ '//a.test')b", "noneb"),
        ('a{background:image-set("//a.test" 1x, "//b.test" 2x);color:red}', "a{background:none;color:red}"),
        ("a{background:-webkit-image-set('//a.test' 1x)}", "a{background:none}"),
        ("a{background:src('//a.test')}", "a{background:none}"),
        ("@font-face{src:url(//a.test)}", "@none{src:none}"),
        (f"url({PICTURE})", f'url("{PICTURE}")'),
        (f"url( '{PICTURE}' )b", f'url("{PICTURE}")b'),
        ("a{content:'\\\n\"<'}", 'a{content:"\\22 \\3c "}'),
        ("a{content:'never closed\n;color:red}", "a{content:\n;color:red}"),
        ("@media (max-width:600px){.a>b{width:calc(1px + 2%)!important}}", None),
        ("a:not(.b)::before{color:#fff;margin:-1.5em 0}", None),
        (".\\31 23{}", None),
        ("<!-- a{} -->", "/**/ a{} /**/"),
        ("<!--url(//a.test)", "/**/none"),
        ("U+26url(//a.test)", "U+none"),
        ("url(", "none"),
        ("url(\\", "none"),
        ("\\", ""),
        ("/*", "/**/"),
        ("\0\ud800\\0 \\d800 ", "\ufffd" * 4),
        ("a" * (_css.MAX_CSS_NAME + 1) + " b;c", "none;c"),
    ],
)
def test_what_is_left(css: str, wanted: str | None) -> None:
    assert cleaned(css) == (css if wanted is None else wanted)


PIECES = [
    "url(",
    "u\\72l(",
    "\\75\\72\\6c(",
    "URL(",
    ")",
    "(",
    "//a.test",
    "'",
    '"',
    "\\",
    "\n",
    "/*",
    "*/",
    "/",
    "*",
    "@import",
    "@",
    "import",
    "@\\69mport",
    "\\@",
    ";",
    "{",
    "}",
    "image-set(",
    "src(",
    "image(",
    "calc(",
    "var(",
    "a",
    "<!--",
    "-->",
    "-",
    "<",
    ">",
    "U+1",
    "1",
    ".",
    "#",
    "%",
    ",",
    ":",
    "\x00",
    "\r",
    "\x0c",
    "\\\n",
    "\\0",
    "é",
    "\\110000",
    "@media",
    "@font-face\ue000",
]


@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=15).map("".join))
def test_nothing_that_is_fetched_is_left(css: str) -> None:
    left = cleaned(css)
    assert fetched_by(tinycss2.parse_component_value_list(left)) == []
    assert "<" not in left
    assert addresses_in(left) == []


@given(st.lists(st.sampled_from(["p{", "}", f"url({PICTURE})", f"url('{PICTURE}')", ";", "a:", " "]), max_size=9))
def test_pictures_of_the_message_stay(pieces: list[str]) -> None:
    assert len(fetched_by(tinycss2.parse_component_value_list(cleaned("".join(pieces))))) == sum(
        "url" in piece for piece in pieces
    )


def test_addresses() -> None:
    css = "@import '//a'; @import url(//b); p{background:u\\72l( '//c' ),image-set('//d' 1x);content:'//no'}"
    assert addresses_in(css) == ["//a", "//b", "//c", "//d"]


@pytest.mark.parametrize(
    "css", ["url(", 'url("', '"', "\\", "(", "@import ", "/*", "url('\\'", "url( '\\ ", "u\\72", "a\"'", "'\\\n", "a"]
)
def test_what_is_made_for_it_takes_no_longer(css: str) -> None:
    assert_no_square(lambda size: cleaned(css * (size // len(css))), 20_000)
