"""What a job's spec says of the pictures that it begins from: strength, blur, and the size that follows from them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import craftd
import pytest
from craft_protos import infotexts
from craft_protos.codec import from_json
from craft_protos.dispatch import Dispatch, ModelManifest
from craft_protos.generate import GenerateRequest, GenerateSpec, Mask, Reference, Start, public_json, steps_of
from craft_protos.job_request import JobRequest
from craft_protos.provenance import record, request
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings, LimitSettings
from craftd.inputs.input import Input
from craftd.jobs import pictures, validate
from craftd.jobs.job import body_sha256
from craftd.jobs.lora_resolution import Chosen
from craftd.jobs.pictures import Pictures
from craftd.models.model import Model

from tests.daemon.test_sizes import model_of

_POCKET = Path(craftd.__file__).parent / "pocket"
ONE, TWO = "1" * 64, "2" * 64
LIMITS = LimitSettings(max_side=4096, max_pixels=3000 * 3000)


def model(side: int = 512, takes: tuple[str, ...] = ("start", "mask")) -> Model:
    """Sides are multiples of 8."""
    found = model_of(_POCKET)
    architecture = replace(found.architecture, takes=frozenset(takes))
    sizes = replace(found.sizes, granularity=8)
    return replace(
        found,
        architecture=architecture,
        sizes=sizes,
        defaults=replace(found.defaults, width=side, height=side, steps=20),
    )


def picture(width: int, height: int, sha256: str = ONE) -> Input:
    return Input("ann", sha256, 1000, "image/png", width, height, has_alpha=False, use_time=0.0)


def resolved(
    size: tuple[int, int] = (512, 512), one: Model | None = None, mask: Mask | None = None, **more: Any
) -> GenerateSpec:
    start = more.pop("start", Start(ONE))
    asked = validate.checked(GenerateRequest("an apple", start=start, mask=mask, **more), LIMITS)
    found = Pictures(picture(*size), picture(*size, TWO) if mask else None)
    one = one or model()
    wanted = pictures.with_pictures(asked, found, one, LIMITS)
    return validate.resolve(wanted, Chosen(asked.prompt, (), ()), one, GenerateSettings(), LIMITS)


def refusal(**more: Any) -> CraftError:
    with pytest.raises(CraftError) as refused:
        resolved(**more)
    assert refused.value.reason == "INVALID_FIELD"
    assert "Start(" not in refused.value.message and "Mask(" not in refused.value.message
    return refused.value


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((512, 512), {}, (512, 512)),
        ((500, 333), {}, (496, 336)),  # a multiple of what the model can
        ((64, 48), {}, (64, 48)),  # smaller ones stay as they are
        ((4000, 3000), {}, (592, 440)),  # as many pixels as the model usually draws, of the same shape
        ((3000, 4000), {}, (440, 592)),
        ((20_000, 10), {}, (4096, 8)),
        ((1, 1), {}, (8, 8)),
        ((1000, 500), {"width": 512}, (512, 256)),
        ((1000, 500), {"height": 512}, (1024, 512)),
        ((1000, 500), {"width": 512, "height": 512}, (512, 512)),
    ],
)
def test_the_size_follows_from_the_picture(
    size: tuple[int, int], asked: dict[str, int], expected: tuple[int, int]
) -> None:
    spec = resolved(size, **asked)
    assert (spec.width, spec.height) == expected


@pytest.mark.parametrize(
    ("size", "asked", "padding", "expected"),
    [
        ((501, 333), {}, None, (501, 333)),  # what a mask leaves is not scaled
        ((4000, 2000), {}, None, (4000, 2000)),
        ((1000, 500), {"width": 333}, None, (333, 166)),
        ((1000, 500), {"width": 333, "height": 77}, None, (333, 77)),
        ((501, 333), {}, 32, (512, 512)),  # what is around the mask is drawn at the model's own
        ((501, 333), {"width": 640}, 32, (640, 512)),
        ((501, 333), {}, 0, (512, 512)),
    ],
)
def test_the_size_with_a_mask(
    size: tuple[int, int], asked: dict[str, int], padding: int | None, expected: tuple[int, int]
) -> None:
    spec = resolved(size, mask=Mask(TWO, padding=padding), **asked)
    assert (spec.width, spec.height) == expected


@pytest.mark.parametrize(
    ("size", "more", "field", "said"),
    [
        ((5000, 100), {"mask": Mask(TWO)}, "width", "from 1 to 4096"),
        ((4000, 4000), {"mask": Mask(TWO)}, "width", "more than 9000000 pixels"),
        ((5000, 100), {"mask": Mask(TWO, padding=3)}, "start", "5000x100"),
        ((512, 512), {"mask": Mask(TWO, padding=3), "width": 333}, "width", "multiple of 8"),
        ((512, 512), {"width": 333}, "width", "multiple of 8"),
    ],
)
def test_sizes_that_are_refused(size: tuple[int, int], more: dict[str, Any], field: str, said: str) -> None:
    refused = refusal(size=size, **more)
    assert refused.field == field and said in refused.message and refused.hint


def test_what_is_not_said_is_as_diffusers_has_it() -> None:
    assert resolved().start == Start(ONE, 0.8, "crop")
    spec = resolved(mask=Mask(TWO, grow=-3, invert=True))
    assert spec.start == Start(ONE, 1.0, "crop")
    assert spec.mask == Mask(TWO, 4.0, -3, True, None)
    assert resolved(start=Start(ONE, 0.25, "fill"), mask=Mask(TWO, 0.0)).start == Start(ONE, 0.25, "fill")


@pytest.mark.parametrize(
    ("start", "mask", "field"),
    [
        (Start(ONE, 1.5), None, "start.strength"),
        (Start(ONE, -0.1), None, "start.strength"),
        (Start(ONE, math.nan), None, "start.strength"),
        (Start(ONE, fit="squeeze"), None, "start.fit"),
        (Start("x"), None, "start.sha256"),
        (Start(), None, "start.sha256"),
        (Start(ONE), Mask("../x"), "mask.sha256"),
        (Start(ONE), Mask(TWO, -1.0), "mask.blur"),
        (Start(ONE), Mask(TWO, math.inf), "mask.blur"),
        (Start(ONE), Mask(TWO, grow=5000), "mask.grow"),
        (Start(ONE), Mask(TWO, padding=-1), "mask.padding"),
        (None, Mask(TWO), "mask"),
    ],
)
def test_what_is_out_of_range_is_called_by_its_name(start: Start | None, mask: Mask | None, field: str) -> None:
    assert refusal(start=start, mask=mask).field == field


@pytest.mark.parametrize(
    ("strength", "steps", "done"),
    [(0.05, 20, 1), (0.04, 20, 0), (1.0, 20, 20), (0.0, 20, 0), (0.29, 100, 28), (0.8, 1, 0), (1.0, 1, 1)],
)
def test_steps_are_counted_as_diffusers_counts_them(strength: float, steps: int, done: int) -> None:
    """And what would draw nothing is refused before it waits; 0 gives the picture back."""
    start = Start(ONE, strength)
    assert steps_of(steps, start) == done
    if done or not strength:
        assert resolved(start=start, steps=steps).start == start
    else:
        refused = refusal(start=start, steps=steps)
        assert refused.field == "start.strength" and "take " in refused.hint
        enough = float(refused.hint.split()[1])
        assert steps_of(steps, Start(ONE, enough)) >= 1


@pytest.mark.parametrize("takes", [(), ("start",)])
def test_a_model_that_does_not_take_them_says_so(takes: tuple[str, ...]) -> None:
    refused = refusal(one=model(takes=takes), mask=Mask(TWO))
    assert refused.field == ("mask" if takes else "start")
    assert "means nothing to the model pocket" in refused.message


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"start": "x.png"}, "start"),
        ({"start": {"sha256": 7}}, "start.sha256"),
        ({"start": {"sha256": ONE, "strength": "much"}}, "start.strength"),
        ({"start": {"sha256": ONE, "fit": "squeeze"}}, "start.fit"),
        ({"mask": {"sha256": ONE, "bulr": 3}}, "mask.bulr"),
    ],
)
def test_json_that_is_wrong_is_called_by_its_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(CraftError) as refused:
        from_json(GenerateRequest, {"prompt": "an apple", **given})
    assert refused.value.field == field and refused.value.message.startswith(f"{field}: ")


def test_a_job_with_pictures_is_another_than_one_without() -> None:
    asked = [GenerateRequest("x"), GenerateRequest("x", start=Start(ONE)), GenerateRequest("x", start=Start(TWO))]
    asked += [replace(asked[1], mask=Mask(TWO)), replace(asked[1], start=Start(ONE, 0.5))]
    assert len({body_sha256(JobRequest("r", one)) for one in asked}) == len(asked)


@pytest.mark.parametrize("public", [False, True])
def test_a_picture_names_what_it_was_made_from_but_not_to_everybody(public: bool) -> None:
    spec = replace(resolved((501, 333), mask=Mask(TWO, 2.5, 3, True, 16)), references=(Reference(TWO), Reference(ONE)))
    told = json.loads(json.dumps(record(Dispatch("j", 1, spec, ModelManifest("pocket"), public=public), 0, (), {})))
    assert (ONE in json.dumps(told), TWO in json.dumps(told)) == (not public, not public)
    again = request(told, ())
    assert again.start == replace(spec.start or Start(), sha256="" if public else ONE)
    assert again.mask == replace(spec.mask or Mask(), sha256="" if public else TWO)
    assert again.references == ((Reference(),) * 2 if public else spec.references)
    assert json.loads(json.dumps(public_json(spec)))["start"]["strength"] == 1.0


def test_a_picture_of_words_alone_says_nothing_of_others() -> None:
    spec = replace(resolved(), start=None)
    told = record(Dispatch("j", 1, spec, ModelManifest("pocket")), 0, (), {})
    assert not {"start", "mask", "references"} & told.keys()


def test_an_infotext_has_the_names_of_automatic1111() -> None:
    spec = resolved((501, 333), mask=Mask(TWO, 2.5, 0, True, 16), start=Start(ONE, 0.6))
    made = record(Dispatch("j", 1, spec, ModelManifest("pocket")), 0, (), {"versions": {"craft": "1"}})
    said = infotexts.parse(infotexts.written(made))
    assert (said["Denoising strength"], said["Mask blur"], said["Masked area padding"]) == ("0.6", "2.5", "16")
    assert (said["Inpaint area"], said["Mask mode"]) == ("Only masked", "Inpaint not masked")
    alone = record(
        Dispatch("j", 1, replace(spec, start=None, mask=None), ModelManifest("x")), 0, (), {"versions": {"craft": "1"}}
    )
    assert "Denoising" not in infotexts.written(alone) and "Mask" not in infotexts.written(alone)


def test_a_model_made_for_inpainting_needs_a_picture_and_a_mask() -> None:
    known = model()
    one = replace(known, architecture=replace(known.architecture, needs=frozenset({"start", "mask"})))
    for more in ({"start": None}, {}):
        refused = refusal(one=one, **more)
        assert refused.field == ("mask" if not more else "start") and "was made for inpainting" in refused.message
    assert resolved(one=one, mask=Mask(TWO)).mask is not None


def test_a_model_that_edits_needs_a_picture_that_it_is_shown() -> None:
    known = model(takes=("start", "mask", "references"))
    one = replace(known, architecture=replace(known.architecture, needs=frozenset({"references"}), most_references=1))
    assert refusal(one=one).field == "references"
    assert resolved(one=one, references=(Reference(TWO),)).references == (Reference(TWO),)
    assert "can be shown 1" in refusal(one=one, references=(Reference(TWO),) * 2).message
