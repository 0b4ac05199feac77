# Fault rules as the page and /api/faults have them, and the fault points of the sink that they become.
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from trio_smtp.testing import FaultPoint, Sink

MAX_RULES: Final = 100
MAX_PATTERN: Final = 320  # characters
MAX_REPLY: Final = 500  # characters
MAX_STALL: Final = 3600  # seconds

_KEYS: Final = frozenset({"sender", "recipient", "stage", "reply", "stall", "cut", "share", "seed", "times", "rate"})
_ANSWERS: Final = ("reply", "stall", "cut")
_STAGES: Final = {"connect": "greeting"}  # to a client, no greeting is no connection
_REPLY: Final = re.compile(r"([45]\d\d)(?:[ -]+(\d\.\d{1,3}\.\d{1,3}))?(?:[ -]+([^\x00-\x1f\x7f]*))?")


class Rules:
    """The rules of one inbox, in order; the sink's own fault points go before them.

    Args:
        sink: has the fault points.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._rules: list[tuple[Mapping[str, Any], FaultPoint]] = []

    def __repr__(self) -> str:
        return f"<Rules: {len(self._rules)}>"

    def to_json(self) -> list[dict[str, Any]]:
        """The rules as they were given; ``times`` is how often each still happens, and without any left it is gone."""
        return [
            {**rule, "times": point.times} if "times" in rule else dict(rule)
            for rule, point in self._rules
            if point.times != 0
        ]

    def replace(self, rules: object) -> None:
        """Have these rules instead of all others of this object.

        Raises:
            ValueError: one of them makes no sense; then nothing has changed.
        """
        if not isinstance(rules, Sequence) or isinstance(rules, str) or len(rules) > MAX_RULES:
            raise ValueError(f"rules is a list of at most {MAX_RULES}")
        before = list(self._sink.points)
        own = {id(point) for _, point in self._rules}
        self._sink.points[:] = [point for point in before if id(point) not in own]
        try:
            made = [(rule, _make(self._sink, rule)) for rule in rules]
        except BaseException:
            self._sink.points[:] = before
            raise
        self._rules = made


def _make(sink: Sink, rule: object) -> FaultPoint:
    if not isinstance(rule, dict):
        raise ValueError(f"a rule is an object, not {rule!r}")
    unknown = rule.keys() - _KEYS
    if unknown:
        raise ValueError(f"a rule has no {', '.join(sorted(map(repr, unknown)))}")
    if sum(key in rule for key in _ANSWERS) != 1:
        raise ValueError('a rule has one of "reply", "stall" and "cut"')
    stage = _stage(rule)
    options: dict[str, Any] = {
        "sender": _pattern(rule, "sender"),
        "recipient": _pattern(rule, "recipient"),
        "share": _number(rule, "share", 1),
        "seed": _count(rule, "seed", least=-(2**63)),
        "rate": _rate(rule),
        "times": _count(rule, "times", least=1),
    }
    try:
        if "reply" in rule:
            code, enhanced, text = _reply(rule["reply"])
            return sink.refuse(stage, code, text, enhanced, close=code == 421, **options)
        if "stall" in rule:
            seconds = _number(rule, "stall", 0)
            if not 0 <= seconds <= MAX_STALL:
                raise ValueError(f"stall is at most {MAX_STALL} seconds")
            return sink.stall(stage, seconds, **options)
    except ValueError as exc:
        raise ValueError(f"a rule cannot be: {exc}") from exc
    if rule["cut"] is not True:
        raise ValueError("cut is true")
    return sink.cut(stage, **options)


def _stage(rule: Mapping[str, Any]) -> Any:
    stage = rule.get("stage")
    if stage is None:
        stage = "rcpt" if "recipient" in rule else "mail" if "sender" in rule else None
    if not isinstance(stage, str):
        raise ValueError('a rule has "sender", "recipient" or "stage"')
    return _STAGES.get(stage, stage)


def _pattern(rule: Mapping[str, Any], key: str) -> str | None:
    value = rule.get(key)
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_PATTERN):
        raise ValueError(f"{key} is a pattern such as *@example.com, of at most {MAX_PATTERN} characters")
    return value


def _number(rule: Mapping[str, Any], key: str, default: float) -> float:
    value = rule.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} is a number")
    return value


def _count(rule: Mapping[str, Any], key: str, *, least: int) -> int | None:
    value = rule.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63):
        raise ValueError(f"{key} is a whole number" + (f" from {least} on" if least > 0 else ""))
    return value


def _rate(rule: Mapping[str, Any]) -> tuple[int, float] | None:
    value = rule.get("rate")
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], int)
        and isinstance(value[1], int | float)
        and not any(isinstance(each, bool) for each in value)
    ):
        raise ValueError("rate is [messages, seconds]")
    return value[0], value[1]


def _reply(text: object) -> tuple[int, str | None, str]:
    """``450 4.2.1 text``: its code, enhanced code and text."""
    match = _REPLY.fullmatch(text) if isinstance(text, str) and len(text) <= MAX_REPLY else None
    if match is None:
        raise ValueError('reply is a text such as "450 4.2.1 come back later"')
    return int(match[1]), match[2], match[3] or "refused, as a rule wanted"
