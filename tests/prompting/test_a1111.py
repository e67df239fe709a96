"""AUTOMATIC1111's language of prompts: the examples that its parser is published with, and what a stranger may send."""

from __future__ import annotations

import time

import pytest
from craft_protos.reasons import CraftError
from craftd.prompting import attention, editing

_LANDSCAPE = (
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
    "[ in background:0.25] [shoddy:masterful:0.5]"
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("test", {10: "test"}),
        ("a [b:3]", {3: "a ", 10: "a b"}),
        ("a [b: 3]", {3: "a ", 10: "a b"}),
        ("a [[[b]]:2]", {2: "a ", 10: "a [[b]]"}),
        ("[(a:2):3]", {3: "", 10: "(a:2)"}),
        ("a [b : c : 1] d", {1: "a b  d", 10: "a  c  d"}),
        ("a[b:[c:d:2]:1]e", {1: "abe", 2: "ace", 10: "ade"}),
        ("a [unbalanced", {10: "a [unbalanced"}),
        ("a [b:.5] c", {5: "a  c", 10: "a b c"}),
        ("((a][:b:c [d:3]", {3: "((a][:b:c ", 10: "((a][:b:c d"}),
        ("[a|(b:1.1)]", {end: "a" if end % 2 else "(b:1.1)" for end in range(1, 11)}),
        ("[fe|]male", {end: "female" if end % 2 else "male" for end in range(1, 11)}),
        ("[fe|||]male", {end: "female" if end % 4 == 1 else "male" for end in range(1, 11)}),
        ("a | b [c:3]", {10: "a | b [c:3]"}),  # its parser gives up
        ("[a:b:c:3]", {10: "[a:b:c:3]"}),
        (r"\[a:3\]", {10: r"\[a:3\]"}),
        ("[a::20]", {10: "a"}),
    ],
)
def test_prompt_editing(prompt: str, expected: dict[int, str]) -> None:
    assert dict(editing.parse(prompt).schedule(10)) == expected


def test_shares_of_a_hundred_steps() -> None:
    assert editing.parse(_LANDSCAPE).schedule(100) == [
        (25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        (50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        (60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        (75, "fantasy landscape with a lake and an oak in background masterful"),
        (100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"), [("a [b:.5] c", {10: "a b c"}), ("a [b:1.5] c", {5: "a  c", 10: "a b c"})]
)
def test_a_second_drawing_goes_on_behind_the_first(prompt: str, expected: dict[int, str]) -> None:
    assert dict(editing.parse(prompt).schedule(10, is_again=True)) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        ("a BREAK b", [("a ", 1.0), ("BREAK", 1.0), (" b", 1.0)]),
        ("UNBREAKable", [("UNBREAKable", 1.0)]),
    ],
)
def test_emphasis(prompt: str, expected: list[tuple[str, float]]) -> None:
    found = [("BREAK" if one.breaks else one.text, one.weight) for one in attention.parse(prompt)]
    assert found == [(text, pytest.approx(weight)) for text, weight in expected]


def test_prompts_that_are_joined_have_weights() -> None:
    assert editing.parts("a cat AND a dog :1.2 AND fog : -.5") == [("a cat", 1.0), ("a dog", 1.2), ("fog", -0.5)]
    assert editing.parts("at 10:30") == [("at 10:30", 1.0)]
    weights, steps = editing.course("a [b:c:2] AND d :0.5", "[x:y:1]", 4)
    assert weights == [1.0, 0.5]
    assert [(one.end, one.prompts, one.negative) for one in steps] == [
        (1, ("a b", "d"), "x"),
        (2, ("a b", "d"), "y"),
        (4, ("a c", "d"), "y"),
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        "[" * 101,
        "(" * 20_000,
        "[a:b:2]" * 51,
        " AND ".join("abcdefghi"),
        "[" + "|".join(f"a{number}" for number in range(65)) + "]",
        "[a|b][c|d|e][f|g|h|i|j][k|l|m|n|o|p|q]",
    ],
)
def test_what_would_never_end_is_refused(prompt: str) -> None:
    with pytest.raises(CraftError, match=r"limit is|more than"):
        editing.course(prompt, "", 1000)


@pytest.mark.parametrize("unit", ["[a:b:1] ", "(a:", "[a|", ":1", "a] ", "[a](", "\\[", " AND "])
def test_a_hostile_prompt_is_read_in_time_that_grows_with_its_length(unit: str) -> None:
    began = time.process_time()
    for read in (attention.parse, editing.parse, editing.parts):
        try:
            read(unit * (20_000 // len(unit)))
        except CraftError:
            continue
    assert time.process_time() - began < 2  # quadratic: minutes
