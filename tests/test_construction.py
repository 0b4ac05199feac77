"""Classes whose objects only the library makes."""

from __future__ import annotations

import pytest

import trio_smtp
from trio_smtp._pool.bulk import Outcomes
from trio_smtp._protocol.construction import NoPublicConstructor


class Made(metaclass=NoPublicConstructor):
    def __init__(self, number: int) -> None:
        self.number = number


def test_only_create_makes_one() -> None:
    with pytest.raises(TypeError, match=r"Made has no public constructor"):
        Made(1)
    made = Made._create(2)
    assert isinstance(made, Made)
    assert made.number == 2


@pytest.mark.parametrize("cls", [trio_smtp.Client, trio_smtp.OutgoingMessage, trio_smtp.Pool, Outcomes])
def test_these_have_no_public_constructor(cls: type) -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        cls()
