"""The checks of the configuration classes: each error names the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trio_smtp._protocol import checks


@pytest.mark.parametrize(
    ("check", "options", "good", "mistyped", "wrong"),
    [
        (checks.check_seconds, {}, [None, 1, 0.5, math.inf], ["1", True], [0, -1, math.nan]),
        (checks.check_seconds, {"zero": True}, [0], [], [-1]),
        (checks.check_count, {}, [None, 1, 10**9], [1.5, "1", True], [0, -1]),
        (checks.check_count, {"least": 0}, [0], [], [-1]),
        (checks.check_count, {"optional": False}, [1], [None], [0]),
        (checks.check_flag, {}, [True, False], ["no", 0, None], []),
        (checks.check_choice, {"choices": ("a", "b")}, ["a", "b"], [], ["c", "A", None]),
        (checks.check_text, {}, ["", "two words"], [b"x", None], ["\r\n", "é", "\t", "a\n"]),
        (checks.check_text, {"word": True}, ["mx.test"], [1], ["", "two words", "a\n"]),
        (checks.check_count, {"most": 5}, [None, 5], ["5"], [6]),
        (checks.check_seconds, {"optional": False}, [1], [None], [10**400]),
        (checks.check_kind, {"kind": str}, ["a"], [None, 1], []),
        (checks.check_kind, {"kind": str, "optional": True}, ["a", None], [1], []),
        (checks.check_function, {}, [None, print], [1, "print"], []),
        (checks.check_path, {}, ["a", Path("a")], [1, b"a", None], ["", "a\0b"]),
        (checks.check_names, {"known": ("A", "B")}, [(), ("a",), ["B", "A"]], ["A", None, 1], [["C"]]),
    ],
)
def test_each_check(
    check: Callable[..., object], options: dict[str, Any], good: list[Any], mistyped: list[Any], wrong: list[Any]
) -> None:
    for value in good:
        check("some_field", value, **options)
    for values, error in ((mistyped, TypeError), (wrong, ValueError)):
        for value in values:
            with pytest.raises(error, match="some_field"):
                check("some_field", value, **options)


def test_names_come_back_in_upper_case() -> None:
    assert checks.check_names("some_field", ["b", "A"], ("A", "B", "C")) == ("B", "A")
