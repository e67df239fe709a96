"""Which sizes a model draws is known before anything is queued, and what is suggested instead is taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import craftd
import grpc
import pytest
from craft_protos import jobs_pb2, rungs
from craft_protos.generate import OPTIONAL, Control, GenerateRequest, GenerateSpec, Mask, Reference, Start
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings, LimitSettings
from craftd.architectures import registry
from craftd.architectures.architecture import Architecture
from craftd.architectures.registry import UNKNOWN
from craftd.architectures.rows.flows import FLUX
from craftd.architectures.rows.unets import SD1, SDXL
from craftd.architectures.sizes import Sizes, sizes
from craftd.http.sizes import SHAPES, side_lengths
from craftd.jobs import validate
from craftd.jobs.lora_resolution import Chosen
from craftd.models import folder
from craftd.models.model import Defaults, Model, ModelView
from craftd.offload import Need
from hypothesis import given
from hypothesis import strategies as st

from tests.daemon.harness import Daemon, field, reason

_CARRIED = Path(craftd.__file__).parent / "architectures"
_POCKET = Path(craftd.__file__).parent / "pocket"
PLACES = [_POCKET, *sorted(path.parent for path in _CARRIED.glob("*/model_index.json"))]
_OF_SIXTEEN = ("pocket", "sd3", "flux", "z-image", "qwen-image", "krea2")
OPENAI = ((256, 256), (512, 512), (1024, 1024), (1536, 1024), (1024, 1536), (1792, 1024), (1024, 1792))
_SIZES = st.builds(
    lambda unit, units, most: Sizes(unit, unit * units, max(most, unit * unit)),
    st.sampled_from([8, 16, 32, 64]),
    st.integers(1, 300),
    st.integers(64, 1 << 25),
)


def model_of(place: Path) -> Model:
    return Model(place.name, place, UNKNOWN, "", folder.sizes(place), folder.defaults(place, UNKNOWN), ())


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_every_architecture_has_every_size_that_a_face_offers(place: Path) -> None:
    model, limits = model_of(place), LimitSettings()
    assert model.sizes.granularity == (16 if place.name.startswith(_OF_SIXTEEN) else 8)
    offered = {side_lengths(shape, model, limits) for shape in SHAPES} | set(OPENAI)
    for width, height in offered | {(model.defaults.width, model.defaults.height)}:
        validate.check_size(width, height, model, limits)


def test_what_the_parts_tell() -> None:
    def unit(**parts: dict[str, object]) -> int:
        return sizes(parts).granularity

    blocks = [8] * 4
    assert unit(vae={"block_out_channels": blocks}, unet={"in_channels": 4}) == 8
    assert unit(vae={"encoder_block_out_channels": [8] * 5}, unet={}) == 16  # a tiny autoencoder
    assert unit(vae={"down_block_out_channels": blocks, "up_block_out_channels": [*blocks, 8]}, unet={}) == 16
    flux = {"_class_name": "FluxTransformer2DModel", "patch_size": 1}
    assert unit(vae={"block_out_channels": blocks}, transformer=flux) == 16
    sana = {"_class_name": "SanaTransformer2DModel", "patch_size": 1}
    assert unit(vae={"encoder_block_out_channels": [8] * 6}, transformer=sana) == 32
    qwen = {"_class_name": "QwenImageTransformer2DModel", "patch_size": 2}
    assert unit(vae={"temperal_downsample": [False, True, True]}, transformer=qwen) == 16
    hunyuan = {"block_out_channels": [8] * 6, "spatial_compression_ratio": 32}
    assert unit(vae=hunyuan, transformer={"patch_size": 1}) == 64
    deepfloyd = {"in_channels": 3, "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 4 + ["ResnetUpsampleBlock2D"]}
    assert unit(unet=deepfloyd) == 16
    sd3 = {"_class_name": "SD3Transformer2DModel", "patch_size": 2, "pos_embed_max_size": 192}
    assert sizes({"vae": {"block_out_channels": blocks}, "transformer": sd3}).largest_side == 192 * 16
    aura = {"_class_name": "AuraFlowTransformer2DModel", "patch_size": 2, "pos_embed_max_size": 9216}
    assert sizes({"vae": {"block_out_channels": blocks}, "transformer": aura}).largest_side == 96 * 16
    glm = {"_class_name": "GlmImageTransformer2DModel", "patch_size": 2}  # told what each square of 32 pixels shows
    assert sizes({"vae": {"block_out_channels": blocks}, "transformer": glm}) == Sizes(32)
    cosmos = {"patch_size": [1, 2, 2], "max_size": [128, 240, 240]}
    assert sizes({"vae": {"temperal_downsample": [True] * 3}, "transformer": cosmos}) == Sizes(16, 1920)
    hidream = {"_class_name": "HiDreamImageTransformer2DModel", "patch_size": 2, "max_resolution": [128, 128]}
    assert sizes({"vae": {"block_out_channels": blocks}, "transformer": hidream}) == Sizes(16, most_pixels=1024 * 1024)


@given(_SIZES, st.integers(-10, 1 << 40), st.integers(-10, 1 << 40))
def test_the_nearest_size_is_allowed(allowed: Sizes, width: int, height: int) -> None:
    near = allowed.nearest(width, height)
    assert allowed.allows(*near)
    if allowed.allows(width, height):
        assert near == (width, height)


@given(_SIZES, st.integers(0, 1 << 16), st.integers(0, 1 << 16))
def test_what_a_refusal_suggests_is_taken(found: Sizes, width: int, height: int) -> None:
    model = Model("m", Path(), SD1, "", found, Defaults(8, 8, 1, 1.0, "Euler"), ())
    limits = LimitSettings(max_side=2048, max_pixels=1 << 21)
    try:
        validate.check_size(width, height, model, limits)
    except CraftError as refusal:
        suggested = refusal.hint.removeprefix("take ").split("x")
        validate.check_size(int(suggested[0]), int(suggested[1]), model, limits)
        assert refusal.field in ("width", "height")
    else:
        assert found.allows(width, height)


@pytest.mark.parametrize("written", [{"width": 250}, {"height": 10**30}, {"width": 0}, {"width": -16}])
def test_a_default_size_that_cannot_be_drawn_is_a_broken_model(tmp_path: Path, written: dict[str, int]) -> None:
    place = tmp_path / "mine"
    place.mkdir()
    for part in ("unet", "vae"):
        (place / part).symlink_to(_POCKET / part, target_is_directory=True)
    (place / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (place / "craft.json").write_text(json.dumps(written))
    model = folder.read(place, name="mine")
    assert model.refused == "CORRUPT_FILE" and "cannot draw" in model.refused_why
    near = model.refused_hint.removeprefix("write ").removesuffix(" there").split("x")
    (place / "craft.json").write_text(json.dumps({"width": int(near[0]), "height": int(near[1])}))
    assert folder.read(place, name="mine").refused == ""


async def test_neither_create_nor_plan_takes_a_size_that_would_fail_later(idle_daemon: Daemon) -> None:
    for width, height in ((248, 256), (256, 248), (16, 4112), (8, 16)):
        spec = jobs_pb2.GenerateSpec(prompt="x", model="pocket", width=width, height=height)
        for call in (idle_daemon.jobs.PlanJob, idle_daemon.jobs.CreateJob):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(jobs_pb2.CreateJobRequest(request_id="s", generate=spec))
            assert reason(refusal.value) == "INVALID_FIELD"
            assert field(refusal.value) == ("height" if height in (248, 4112) else "width")
    assert (await idle_daemon.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs == []


def test_the_longest_picture_of_a_training_is_one_that_the_model_draws() -> None:
    from craftd.training import resolve

    model = replace(model_of(_CARRIED / "sd3-medium"), name="sd3")
    resolve._check_resolution(1024, model, LimitSettings())
    for resolution in (1000, 3072):
        with pytest.raises(CraftError) as refusal:
            resolve._check_resolution(resolution, model, LimitSettings())
        resolve._check_resolution(int(refusal.value.hint.removeprefix("take ")), model, LimitSettings())


def _resolved(asked: GenerateRequest, architecture: Architecture) -> GenerateSpec:
    model = replace(model_of(_POCKET), architecture=architecture)
    return validate.resolve(asked, Chosen(asked.prompt, (), ()), model, GenerateSettings(), LimitSettings())


@pytest.mark.parametrize(
    ("architecture", "clip_skip", "is_refused"),
    [(SDXL, 2, False), (FLUX, 2, True), (FLUX, 1, False), (UNKNOWN, 2, True)],
)
def test_clip_skip_is_refused_where_there_is_no_such_layer(
    architecture: Architecture, clip_skip: int, is_refused: bool
) -> None:
    asked = GenerateRequest("a red apple", clip_skip=clip_skip)
    try:
        spec = _resolved(asked, architecture)
    except CraftError as error:
        assert is_refused and (error.reason, error.field) == ("INVALID_FIELD", "clip_skip")
    else:
        assert not is_refused and spec.clip_skip == clip_skip


def test_a_clip_skip_of_0_or_13_is_none() -> None:
    for clip_skip in (0, 13):
        with pytest.raises(CraftError, match="clip_skip: must be from 1 to 12"):
            validate.checked(GenerateRequest("x", clip_skip=clip_skip), LimitSettings())


@pytest.mark.parametrize("rescale", [-0.1, 1.1, float("nan")])
def test_a_rescale_outside_0_to_1_is_none(rescale: float) -> None:
    with pytest.raises(CraftError, match="guidance_rescale: must be from 0 to 1"):
        validate.checked(GenerateRequest("x", guidance_rescale=rescale), LimitSettings())


def test_a_pair_is_not_told_by_half() -> None:
    row = next(row for row in registry.ROWS if "crop_left" not in row.takes)
    for asked, told in (({"original_width": 1024, "original_height": 768}, "1024x768"), ({"crop_top": 8}, "0,8")):
        with pytest.raises(CraftError, match=f": {told} means nothing"):
            _resolved(GenerateRequest("a red apple", **asked), row)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_what_an_architecture_does_not_understand_is_refused_and_named(name: str) -> None:
    """Each such field is understood by one architecture at least, and the refusal says by which."""
    understood = [row for row in registry.ROWS if name in row.takes]
    assert understood and len(understood) < len(registry.ROWS)
    values: dict[str, object] = {
        "clip_skip": 2,
        "true_cfg_scale": 4.0,
        "start": Start("ab" * 32, 0.5),
        "mask": Mask("cd" * 32, 4.0),
    }
    values |= {"references": (Reference("ef" * 32),), "controls": (Control("ab" * 32),)}
    asked = GenerateRequest("a red apple", **{name: values.get(name, 1)})
    for row in registry.ROWS:
        if row in understood:
            needed: Any = {one: values[one] for one in row.needs}
            assert getattr(_resolved(replace(asked, **needed), row), name) != OPTIONAL[name]
            continue
        with pytest.raises(CraftError, match="means nothing to the model") as refused:
            _resolved(asked, row)
        assert refused.value.field == name and understood[0].name in refused.value.hint


async def test_a_model_that_does_not_stay_on_the_device_is_refused_with_those_that_do() -> None:
    """Before pictures are sent: the plan asks it of what the worker told of its device."""
    from craftd.training.service import TrainingService

    found = replace(model_of(_CARRIED / "sd3-medium"), architecture=SD1)
    large, small, other = (replace(found, name=name) for name in ("large", "small", "other"))
    untrainable = replace(small, name="untrainable", architecture=UNKNOWN)
    rungs_of = {"large": rungs.MODEL, "small": rungs.ENCODERS, "other": rungs.BLOCKS, "untrainable": rungs.NONE}
    listed = [ModelView(one) for one in (large, small, other, untrainable)]
    service = Mock(models=Mock(list=AsyncMock(return_value=listed)))

    def need_of(model: Model) -> Need:
        return Need(rungs_of[model.name], 9_000_000_000, 8_000_000_000)

    await TrainingService.check_room(service, small, need_of)
    await TrainingService.check_room(service, large, lambda _: None)  # no worker has said
    with pytest.raises(CraftError, match=r"model large is too big to stay on the device of 8\.0 GB") as refusal:
        await TrainingService.check_room(service, large, need_of)
    assert refusal.value.hint == "train for a model that fits: small"
    assert (refusal.value.reason, refusal.value.field) == ("OUT_OF_MEMORY", "model")
