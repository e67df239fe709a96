"""What a job's spec says of the refiner: which model, and when it goes on; and what AUTOMATIC1111's fields ask for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from craft_protos.generate import GenerateRequest, GenerateSpec, Hires, Mask, Refiner, Start
from craft_protos.reasons import CraftError
from craftd.architectures.rows.unets import SD1, SDXL, SDXL_REFINER
from craftd.architectures.sizes import Sizes
from craftd.http.forms.automatic1111 import Txt2ImgRequest, generate_request
from craftd.jobs import refining
from craftd.models.model import Defaults, Model

SPEC = GenerateSpec("a", "", "xl", 64, 64, 10, 5.0, 1, 1, "Euler", refiner=Refiner("r", 0.8))


def model(name: str, architecture: Any) -> Model:
    return Model(name, Path(), architecture, architecture.pipelines[0], Sizes(8), Defaults(64, 64, 1, 1.0, "Euler"), ())


class Models:
    """As much of ModelService as it takes."""

    def __init__(self, *names: str) -> None:
        self.known = {name: model(name, SDXL_REFINER) for name in names} | {"one": model("one", SD1)}

    async def usable(self, name: str) -> Model:
        return self.known[name]

    async def list(self) -> list[Any]:
        return [SimpleNamespace(model=one) for one in self.known.values()]


def completed(refiner: Refiner, *names: str) -> Refiner | None:
    wanted, models = GenerateRequest("a", refiner=refiner), cast(Any, Models(*names))
    refining.check(wanted)
    return asyncio.run(refining.completed(wanted, model("xl", SDXL), models)).refiner


def test_it_is_the_only_one_where_none_is_named() -> None:
    assert completed(Refiner(), "r") == Refiner("r", 0.8) and completed(Refiner("s", 0.5), "r", "s") == Refiner(
        "s", 0.5
    )


@pytest.mark.parametrize(
    ("refiner", "names", "field"),
    [
        (Refiner(), (), "refiner.model"),
        (Refiner(), ("r", "s"), "refiner.model"),
        (Refiner("one"), ("r",), "refiner.model"),
        (Refiner("r", 1.0), ("r",), "refiner.switch"),
        (Refiner("r", 2.0), ("r",), "refiner.switch"),
    ],
)
def test_what_cannot_be_is_refused(refiner: Refiner, names: tuple[str, ...], field: str) -> None:
    with pytest.raises(CraftError) as caught:
        completed(refiner, *names)
    assert (caught.value.reason, caught.value.field) == ("INVALID_FIELD", field)


def test_a_mask_is_refused() -> None:
    with pytest.raises(CraftError, match="a mask is given"):
        refining.check(GenerateRequest("a", refiner=Refiner(), start=Start("0"), mask=Mask("0")))


@pytest.mark.parametrize(
    ("more", "is_fine"),
    [
        ({}, True),
        ({"steps": 2}, False),
        ({"start": Start("0", 0.5)}, True),
        ({"start": Start("0", 0.2)}, False),
        ({"hires": Hires(2, 0.2, 10, "x", 128, 128)}, False),
        ({"hires": Hires(2, 0.5, 20, "x", 128, 128)}, True),
    ],
)
def test_each_of_the_two_has_a_step_to_do(more: dict[str, Any], is_fine: bool) -> None:
    if is_fine:
        refining.check_steps(replace(SPEC, **more))
        return
    with pytest.raises(CraftError, match="none of the"):
        refining.check_steps(replace(SPEC, **more))


@pytest.mark.parametrize(
    ("body", "refiner"),
    [
        ({"refiner_checkpoint": "r.safetensors [abcdef1234]", "refiner_switch_at": 0.6}, Refiner("r.safetensors", 0.6)),
        ({"refiner_checkpoint": "r"}, Refiner("r")),
        ({"refiner_checkpoint": "r", "refiner_switch_at": 1}, None),
        ({"refiner_checkpoint": "None", "refiner_switch_at": 0.8}, None),
    ],
)
def test_automatic1111_s_fields_ask_for_it(body: dict[str, Any], refiner: Refiner | None) -> None:
    assert generate_request(Txt2ImgRequest(prompt="a", **body), "xl").refiner == refiner
