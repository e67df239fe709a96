"""What stands behind a LoRA's name, in a prompt's tag and for the command, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from craft_protos import lora_strength
from craft_protos.lora import LoraRef, parse_tags
from craft_protos.reasons import CraftError

OUTALL = (1.0, *[0.0] * 7, *[1.0] * 9)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.8", {"weight": 0.8}),
        ("0.5:0.8", {"text_weight": 0.5, "weight": 0.8}),
        ("1:te=0", {"weight": 1.0, "text_weight": 0.0}),
        ("te=0.5:unet=0.7", {"text_weight": 0.5, "weight": 0.7}),
        ("1:lbw=OUTALL", {"weight": 1.0, "blocks": OUTALL}),
        ("1:lbw=" + ",".join("0.5" * 1 for _ in range(12)), {"weight": 1.0, "blocks": (0.5,) * 12}),
        ("0.8:start=0.2:stop=0.7", {"weight": 0.8, "start": 0.2, "end": 0.7}),
        ("0.8:step=5-10", {"weight": 0.8, "start": 5.0, "end": 10.0}),
        ("0.8:start=1", {"weight": 0.8, "start": 0.0}),
    ],
)
def test_what_is_read_is_written_again(text: str, told: dict[str, Any]) -> None:
    prompt, (ref,) = parse_tags(f"a cat <lora:it:{text}>")
    assert prompt == "a cat" and ref == LoraRef("it", **told)
    weighted = {"weight": 1.0, **told}
    assert lora_strength.read(lora_strength.written(weighted).split(":")) == weighted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1:lbw=WHAT", "none of NONE"),
        ("1:lbw=1,0,1", "must be 12, 17, 20, 26 or 61"),
        ("1:lbw=R,1,1,1,1,1,1,1,1,1,1,1", "no weight"),
        ("1:lbw=" + "1," * 500, "no weight"),
        ("1:dyn=4", "dyn= is not known"),
        ("0.8:stop=1.5", "whole number"),
        ("0.8:step=5", "two steps"),
        ("1:2:3", "more than two weights"),
        ("1e3", "no weight"),
        (":".join("1" * 9), "9 parts"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, says: str) -> None:
    with pytest.raises(CraftError, match=says):
        parse_tags(f"a cat <lora:it:{text}>")


def test_short_lists_leave_the_other_blocks_out() -> None:
    """As the extension's tables have them."""
    names = ["BASE", *(f"IN{one:02}" for one in range(12)), "MID", *(f"OUT{one:02}" for one in range(12))]
    of = {
        12: "BASE IN04 IN05 IN07 IN08 MID OUT00 OUT01 OUT02 OUT03 OUT04 OUT05",
        17: "BASE IN01 IN02 IN04 IN05 IN07 IN08 MID OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
        20: " ".join([*names[:10], *names[13:23]]),
    }
    for count, known in of.items():
        whole = lora_strength.all_blocks([2.0] * count)
        assert [name for name, weight in zip(names, whole, strict=True) if weight] == known.split()
