"""What a job's spec says of enlarging: upscalers, sizes, limits; and the jobs that do nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from craft_protos.generate import LANCZOS, GenerateRequest, GenerateSpec, Hires, Mask, Start, Upscale
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings, LimitSettings
from craftd.architectures.upscalers import Upscaling
from craftd.jobs import enlarging, validate
from craftd.jobs.enlarging import Upscalers
from craftd.jobs.lora_resolution import Chosen
from craftd.models import upscaler
from craftd.models.model import Model

from tests.daemon.test_start_pictures import ONE, model, picture

LIMITS = LimitSettings(max_side=2048, max_pixels=2048 * 2048, max_steps=100)
X4 = replace(upscaler.lanczos(), name="x4", upscaling=Upscaling("ESRGAN", 4), files=(object(),))  # type: ignore[arg-type]


def resolved(one: Model | None = None, found: Model = X4, **more: Any) -> GenerateSpec:
    one = one or model()
    asked = validate.checked(GenerateRequest("an apple", **more), LIMITS)
    upscalers = Upscalers(asked.upscale and found, asked.hires and found)
    spec = validate.resolve(asked, Chosen(asked.prompt, (), ()), one, GenerateSettings(), LIMITS)
    sizes = validate.sizes(one, LIMITS)
    return enlarging.completed(spec, asked, upscalers, one, None, sizes=sizes, limits=LIMITS)


def alone(size: tuple[int, int] = (300, 200), found: Model = X4, **more: Any) -> GenerateSpec:
    given = {"start": Start(ONE, 0.0), "upscale": Upscale(), "format": "png"} | more
    asked = validate.checked(GenerateRequest(**given), LIMITS)
    return enlarging.alone(asked, picture(*size), found, GenerateSettings(), LIMITS)


def refusal(make: Any, **more: Any) -> CraftError:
    with pytest.raises(CraftError) as refused:
        make(**more)
    assert refused.value.reason == "INVALID_FIELD" and refused.value.hint is not None
    assert "Upscale(" not in refused.value.message and "Hires(" not in refused.value.message
    return refused.value


def test_a_scale_is_the_upscalers_own_where_none_is_said() -> None:
    assert resolved(upscale=Upscale()).upscale == Upscale("x4", 4.0)
    assert resolved(upscale=Upscale(), found=upscaler.lanczos()).upscale == Upscale(LANCZOS, 2.0)
    spec = resolved(upscale=Upscale(scale=1.5))
    assert enlarging.result_size(spec, None) == (768, 768) and spec.models == (spec.model, "x4")


@pytest.mark.parametrize(
    ("hires", "size"),
    [
        (Hires(), (1024, 1024)),
        (Hires(1.5), (768, 768)),
        (Hires(1.3), (664, 664)),
        (Hires(width=640, height=640), (640, 640)),
    ],
)
def test_a_second_drawing_has_a_size_that_the_model_can_draw(hires: Hires, size: tuple[int, int]) -> None:
    spec = resolved(hires=hires)
    assert spec.hires is not None and spec.hires.size == size
    assert (spec.hires.strength, spec.hires.steps, spec.hires.upscaler) == (0.5, 20, "x4")
    both = resolved(hires=hires, upscale=Upscale(scale=2 if max(size) <= 1024 else 1))
    assert enlarging.result_size(both, None) == (2 * size[0], 2 * size[1])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"upscale": Upscale(scale=0.5)}, "upscale.scale"),
        ({"upscale": Upscale(scale=float("nan"))}, "upscale.scale"),
        ({"upscale": Upscale(scale=4.01)}, "upscale.scale"),
        ({"upscale": Upscale(scale=17)}, "upscale.scale"),
        ({"hires": Hires(9)}, "hires.scale"),
        ({"hires": Hires(5)}, "hires"),
        ({"hires": Hires(strength=1.5)}, "hires.strength"),
        ({"hires": Hires(strength=0.01)}, "hires.strength"),
        ({"hires": Hires(steps=101)}, "hires.steps"),
        ({"hires": Hires(width=640, height=1024)}, "hires.width"),
        ({"hires": Hires(width=641, height=641)}, "hires"),
        ({"hires": Hires(), "start": Start(ONE)}, "hires"),
        ({"hires": Hires(), "one": model(takes=())}, "hires"),
    ],
)
def test_what_cannot_be_enlarged_so_is_refused(more: dict[str, Any], field: str) -> None:
    assert refusal(resolved, **more).field == field


def test_a_picture_alone_needs_no_model_that_draws() -> None:
    spec = alone(upscale=Upscale(scale=2))
    assert (spec.model, spec.models, spec.width, spec.height, spec.steps) == ("x4", ("x4",), 300, 200, 0)
    assert (spec.start, spec.upscale) == (Start(ONE, 0.0), Upscale("x4", 2))
    assert enlarging.result_size(spec, picture(300, 200)) == (600, 400)
    assert alone(width=300, height=200) == replace(spec, upscale=Upscale("x4", 4.0))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt": "an apple"}, "prompt"),
        ({"negative_prompt": "an apple"}, "negative_prompt"),
        ({"steps": 3}, "steps"),
        ({"count": 2}, "count"),
        ({"width": 100}, "width"),
        ({"mask": Mask(ONE)}, "mask"),
        ({"upscale": Upscale("another")}, "upscale.model"),
        ({"size": (900, 200)}, "upscale.scale"),
        ({"size": (2000, 2000), "upscale": Upscale(scale=1)}, "upscale.model"),
    ],
)
def test_what_does_nothing_when_only_enlarging_is_refused(more: dict[str, Any], field: str) -> None:
    assert refusal(alone, **more).field == field


def test_an_upscaler_draws_nothing() -> None:
    asked = GenerateRequest("an apple", model="x4")
    with pytest.raises(CraftError, match="draws none"):
        enlarging.alone(asked, None, X4, GenerateSettings(), LIMITS)


@pytest.mark.parametrize(
    ("more", "is_alone"),
    [
        ({}, True),
        ({"prompt": "an apple"}, False),
        ({"model": "pocket"}, False),
        ({"start": Start(ONE)}, False),
        ({"upscale": None}, False),
        ({"mask": Mask(ONE)}, False),
    ],
)
def test_nothing_is_drawn_where_nothing_asks_for_it(more: dict[str, Any], is_alone: bool) -> None:
    asked: dict[str, Any] = {"start": Start(ONE, 0.0), "upscale": Upscale()} | more
    assert enlarging.is_alone(GenerateRequest(**asked)) is is_alone
