# trio_smtp.inbox: the dialogue of a connection, cut into those of its messages.
from __future__ import annotations

from trio_smtp.inbox import _dialogue
from trio_smtp.inbox._dialogue import Dialogue


def play(dialogue: Dialogue, *lines: str) -> None:
    for line in lines:
        dialogue.note(line[0], line[3:])


OPENING = ("S: 220 x", "C: EHLO c", "S: 250 x")
MESSAGE = ("C: MAIL FROM:<a@b>", "S: 250 OK", "C: RCPT TO:<c@d>", "S: 250 OK", "C: DATA", "S: 354 go on")


def test_a_message_has_the_opening_and_its_own_transaction():
    dialogue = Dialogue()
    finished: list[str] = []
    play(dialogue, *OPENING, *MESSAGE)
    dialogue.keep(7, finished.append)
    assert finished == []
    play(dialogue, "S: 250 OK: queued as 1")
    first = [*OPENING, *MESSAGE, "C: (7 octets of content)", "S: 250 OK: queued as 1"]
    assert finished == ["".join(f"{line}\n" for line in first)]
    play(dialogue, "C: NOOP", "S: 250 OK", "C: mail FROM:<e@f>", "S: 250 OK", "C: RSET", "S: 250 OK", *MESSAGE)
    dialogue.keep(8, finished.append)
    play(dialogue, "S: 250 OK: queued as 2", "C: QUIT", "S: 221 bye")
    second = [*OPENING, *MESSAGE, "C: (8 octets of content)", "S: 250 OK: queued as 2"]
    assert finished[1:] == ["".join(f"{line}\n" for line in second)]


def test_starttls_auth_and_a_second_ehlo_belong_to_the_opening():
    dialogue = Dialogue()
    more = ("C: STARTTLS", "S: 220 go on", "C: EHLO c", "S: 250 x", "C: AUTH PLAIN ***", "S: 235 OK")
    play(dialogue, *OPENING, *more, *MESSAGE, "C: QUIT", "S: 221 bye")
    assert dialogue.text.splitlines() == [*OPENING, *more, *MESSAGE, "C: QUIT", "S: 221 bye"]


def test_lmtp_has_a_reply_for_each_recipient():
    dialogue = Dialogue()
    finished: list[str] = []
    play(dialogue, *OPENING, *MESSAGE)
    dialogue.keep(7, finished.append)
    play(dialogue, "S: 250 for one", "S: 450 for another")
    assert len(finished) == 2
    assert finished[1].endswith("S: 250 for one\nS: 450 for another\n")


def test_very_many_lines_are_cut_but_the_last_reply_is_there():
    dialogue = Dialogue()
    finished: list[str] = []
    play(dialogue, *OPENING, *MESSAGE[:2], *("C: RCPT TO:<c@d>", "S: 250 OK") * _dialogue.MAX_LINES)
    dialogue.keep(7, finished.append)
    play(dialogue, "S: 250 queued")
    lines = finished[0].splitlines()
    assert len(lines) <= 2 * _dialogue.MAX_LINES
    assert lines[-2:] == ["…", "S: 250 queued"]


def test_long_lines_are_cut_and_control_characters_are_shown():
    dialogue = Dialogue()
    play(dialogue, "C: " + "x" * 5000, "C: a\tb\x1b[0m\u2028c")
    first, second = dialogue.text.splitlines()
    assert len(first) == _dialogue.MAX_LINE + 3
    assert second == "C: a?b?[0m?c"
