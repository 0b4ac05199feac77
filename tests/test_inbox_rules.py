# trio_smtp.inbox: fault rules in JSON.
from __future__ import annotations

import pytest

import trio_smtp
from trio_smtp.inbox import _rules
from trio_smtp.inbox._rules import Rules
from trio_smtp.testing import open_sink


async def codes(sink, *recipients, sender="a@x.test"):
    result = []
    async with trio_smtp.open_client("localhost", stream=sink.connect(), **sink.client_options) as client:
        for recipient in recipients:
            try:
                await client.send(sender, [recipient], b"x\r\n")
                result.append("250")
            except trio_smtp.SMTPError as exc:
                result.append(str(exc.reply or exc.refused.get(recipient)))
    return result


async def test_rules_become_faults_and_can_be_had_back():
    rules = [
        {"recipient": "*@slow.test", "stage": "rcpt", "reply": "450 4.2.1 come back later"},
        {"sender": "bulk@*", "reply": "554 no"},
        {"stage": "end", "recipient": "spam@*", "reply": "550-5.7.1 spam", "share": 1, "seed": 1},
    ]
    async with open_sink() as sink:
        held = Rules(sink)
        held.replace(rules)
        assert held.to_json() == rules
        assert await codes(sink, "b@slow.test", "spam@y.test", "b@y.test") == [
            "450 4.2.1 come back later",
            "550 5.7.1 spam",
            "250",
        ]
        assert await codes(sink, "b@y.test", sender="bulk@x.test") == ["554 5.0.0 no"]
        held.replace([])
        assert (sink.points, held.to_json()) == ([], [])
        assert repr(held) == "<Rules: 0>"


async def test_what_is_left_of_a_rule():
    async with open_sink() as sink:
        held = Rules(sink)
        held.replace([{"recipient": "*", "reply": "450 x", "times": 2}])
        await codes(sink, "b@y.test")
        assert held.to_json() == [{"recipient": "*", "reply": "450 x", "times": 1}]
        assert await codes(sink, "b@y.test", "b@y.test") == ["450 4.0.0 x", "250"]
        assert held.to_json() == []


async def test_a_stall_a_cut_a_rate_and_a_421(autojump_clock):
    async with open_sink() as sink:
        held = Rules(sink)
        held.replace([{"stage": "mail", "stall": 5}])
        begin = sink.points[0]
        assert await codes(sink, "b@y.test") == ["250"]
        assert begin.count == 1
        held.replace([{"stage": "data", "cut": True}])
        assert await codes(sink, "b@y.test") == ["None"]
        held.replace([{"stage": "mail", "reply": "451 4.7.0 slow down", "rate": [1, 60]}])
        assert await codes(sink, "b@y.test", "b@y.test") == ["250", "451 4.7.0 slow down"]
        held.replace([{"stage": "connect", "reply": "421"}])
        with pytest.raises(trio_smtp.ConnectError):
            await codes(sink, "b@y.test")


async def test_points_that_python_made_stay():
    async with open_sink() as sink:
        point = sink.refuse("rcpt", 550)
        held = Rules(sink)
        held.replace([{"stage": "mail", "cut": True}])
        assert sink.points[0] is point
        held.replace([])
        assert sink.points == [point]
        assert held.to_json() == []


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({}, "a list"),
        ("x", "a list"),
        ([{}] * 101, "at most 100"),
        (["x"], "an object"),
        ([{"recipient": "*", "reply": "450", "colour": 1}], "no 'colour'"),
        ([{"recipient": "*"}], "one of"),
        ([{"recipient": "*", "reply": "450", "cut": True}], "one of"),
        ([{"reply": "450"}], '"sender", "recipient" or "stage"'),
        ([{"stage": 1, "reply": "450"}], '"sender", "recipient" or "stage"'),
        ([{"stage": "nowhere", "reply": "450"}], "nowhere"),
        ([{"stage": "starttls", "reply": "450"}], "starttls"),
        ([{"stage": "auth", "reply": "450"}], "log in"),
        ([{"stage": "hello", "recipient": "*", "reply": "450"}], "no recipient at"),
        ([{"recipient": "", "reply": "450"}], "pattern"),
        ([{"recipient": "x" * 321, "reply": "450"}], "pattern"),
        ([{"sender": 1, "reply": "450"}], "pattern"),
        ([{"stage": "mail", "reply": "250 OK"}], "reply is a text"),
        ([{"stage": "mail", "reply": 450}], "reply is a text"),
        ([{"stage": "mail", "reply": "450 a\r\n250 b"}], "reply is a text"),
        ([{"stage": "mail", "reply": "450 " + "x" * 500}], "reply is a text"),
        ([{"stage": "mail", "reply": "450 5.1.1 x"}], "cannot be"),
        ([{"stage": "mail", "stall": -1}], "stall"),
        ([{"stage": "mail", "stall": 3601}], "stall"),
        ([{"stage": "mail", "stall": "1"}], "stall"),
        ([{"stage": "mail", "cut": False}], "cut is true"),
        ([{"stage": "mail", "cut": True, "share": 2}], "share"),
        ([{"stage": "mail", "cut": True, "share": True}], "share"),
        ([{"stage": "mail", "cut": True, "times": 0}], "times"),
        ([{"stage": "mail", "cut": True, "times": 1.5}], "times"),
        ([{"stage": "mail", "cut": True, "seed": "x"}], "seed"),
        ([{"stage": "mail", "cut": True, "rate": 5}], "rate"),
        ([{"stage": "mail", "cut": True, "rate": [1, 0]}], "rate"),
        ([{"stage": "mail", "cut": True, "rate": [10**9, 60]}], "rate"),
    ],
)
async def test_rules_that_make_no_sense_change_nothing(rules, words):
    async with open_sink() as sink:
        held = Rules(sink)
        good = {"stage": "mail", "cut": True}
        held.replace([good])
        before = list(sink.points)
        with pytest.raises(ValueError, match=words):
            held.replace([good, *rules] if isinstance(rules, list) and len(rules) < _rules.MAX_RULES else rules)
        assert sink.points == before
        assert held.to_json() == [good]
