"""The decorator of craft's values behaves as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import field
from functools import cached_property
from typing import Any

import pytest
from craft_protos import frozen
from craft_protos.generate import GenerateRequest, Start


def both(make: Callable[[Any], type]) -> tuple[Any, Any]:
    """The same class by the standard decorator and by ours."""
    return make(dataclasses.dataclass(frozen=True)), make(frozen.dataclass(frozen=True))


def point(decorate: Any) -> Any:
    class Point:
        x: int
        y: float = 2.0
        tags: list[str] = field(default_factory=list)

        @cached_property
        def length(self) -> float:
            return (self.x**2 + self.y**2) ** 0.5

    return decorate(Point)


def outcome(act: Callable[[], Any]) -> Any:
    """What comes of it: a text of the value, or the error's type."""
    try:
        return repr(act())
    except (TypeError, AttributeError) as error:
        return type(error)


@pytest.mark.parametrize(
    "act",
    [
        lambda made: made(1),
        lambda made: made(1, 3.0, ["a"]),
        lambda made: made(x=1, tags=["a"]),
        lambda made: made(),
        lambda made: made(1, 2.0, [], 4),
        lambda made: made(1, x=2),
        lambda made: made(1, z=2),
        lambda made: made(1) == made(1),
        lambda made: made(1) == made(2),
        lambda made: made(1) == (1, 2.0, []),
        lambda made: made(1).tags is made(1).tags,
        lambda made: hash(made(1)),
        lambda made: hash(made(1, 2.0, ())) == hash((1, 2.0, ())),
        lambda made: setattr(made(1), "x", 2),
        lambda made: setattr(made(1), "other", 2),
        lambda made: delattr(made(1), "x"),
        lambda made: dataclasses.replace(made(1), y=5.0),
        lambda made: dataclasses.replace(made(1), z=5.0),
        lambda made: dataclasses.asdict(made(1)),
        lambda made: copy.deepcopy(made(1, 2.0, ["b"])),
        lambda made: (made(3, 4.0).length, made(3, 4.0) == made(3, 4.0)),
        lambda made: [one.name for one in dataclasses.fields(made)],
    ],
)
def test_it_does_what_the_standard_one_does(act: Callable[[Any], Any]) -> None:
    standard, ours = both(point)
    assert outcome(lambda: act(ours)) == outcome(lambda: act(standard))


def test_one_that_has_been_looked_into_is_still_equal() -> None:
    _, made = both(point)
    looked = made(3, 4.0)
    assert looked.length == 5.0 and looked == made(3, 4.0)


def test_one_made_of_another() -> None:
    base = frozen.dataclass(frozen=True)(type("Base", (), {"__annotations__": {"x": int}}))
    for decorate in both(lambda decorate: decorate):
        made: Any = decorate(type("Made", (base,), {"__annotations__": {"y": int}, "y": 7}))
        assert (made(1).x, made(1).y, made(1) == made(1, 7), made(1) == base(1)) == (1, 7, True, False)


def test_keywords_only() -> None:
    made: Any = frozen.dataclass(frozen=True, kw_only=True)(type("Made", (), {"__annotations__": {"x": int}}))
    assert made(x=1).x == 1
    with pytest.raises(TypeError):
        made(1)


def test_requests_are_pickled_and_copied() -> None:
    asked = GenerateRequest(prompt="a pear", start=Start("ab" * 32))
    assert pickle.loads(pickle.dumps(asked)) == asked == copy.copy(asked)
