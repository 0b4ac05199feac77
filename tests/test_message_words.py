# Encoded words: no character is cut, none is too long, and readers see the text.
from __future__ import annotations

from email.header import decode_header, make_header

from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._message.words import MAX_WORD, encoded_words, is_encoded_word, phrase_words, text_words


def decoded(words: list[bytes]) -> str:
    return str(make_header(decode_header(b"".join(words).decode())))


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=80),
    first=st.integers(0, 75),
)
def test_encoded_words_say_the_text(text: str, first: int) -> None:
    words = encoded_words(text, first=first)
    assert decoded(words) == text
    for word in words:
        assert is_encoded_word(word.strip().decode())
        assert len(word.strip()) <= MAX_WORD
        assert decoded([word.strip()]) in text  # no character is cut
    assert all(word.startswith(b" ") for word in words[1:])
    assert len(words[0]) <= max(first, 40)


def test_octets_in_an_unknown_encoding() -> None:
    assert encoded_words("gr\udcfc\udcdfe") == [b"=?unknown-8bit?q?gr=FC=DFe?="]
    assert encoded_words("gr\udcc3\udcbc") == [b"=?utf-8?q?gr=C3=BC?="]


def test_a_display_name_is_one_encoded_word_unless_no_line_holds_it() -> None:
    [word] = phrase_words("ж" * 100)
    assert len(word) > MAX_WORD
    assert decoded(phrase_words("ж" * 1000)) == "ж" * 1000
    assert all(len(word) <= 901 for word in phrase_words("ж" * 1000))


def test_words_that_need_no_encoding_stay() -> None:
    def words(text: str, **options: bool) -> bytes:
        return b"".join(text_words(text, utf8=options.pop("utf8", False), prefix=9, length=76, **options))

    assert words("plain, (text)  with\ttabs ") == b"plain, (text)  with\ttabs "
    assert words("a ü b") == b"a =?utf-8?q?=C3=BC?= b"
    assert words("a ü  ü b") == b"a =?utf-8?b?w7wgIMO8?= b"
    assert words("a ü", utf8=True) == "a ü".encode()
    assert words("=?utf-8?q?x?=") != b"=?utf-8?q?x?="
    assert words("=?utf-8?q?x?= ü =?utf-8?q?y?=", is_source=True) == b"=?utf-8?q?x?= =?utf-8?q?_=C3=BC_?= =?utf-8?q?y?="
    assert words("a\x01b", is_source=True) == b"a\x01b"
    assert words("") == b""
    assert words(" ") == b"=?utf-8?q?_?="
