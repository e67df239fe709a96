"""What is found out about a model and a LoRA without either being loaded is what the engine finds when they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.reasons import CraftError
from craftd.worker.lora import match
from craftd.worker.lora.layout import Layout
from craftd.worker.lora.targets import Targets
from craftd.workers.fitting import Fit, Parts, ask_fits, ask_layouts

from tests import tiny_loras, tiny_models
from tests.worker import flows

KINDS = ("sd", "sdxl", "sd3", "flux", "lcm", *flows.KINDS)


def parts(folder: Path) -> Parts:
    names = ("transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3")
    wanted = ("model_index.json", *(f"{name}/config.json" for name in names))
    return {name: (folder / name).read_text() for name in wanted if (folder / name).is_file()}


async def test_layers_are_those_of_the_loaded_model(pipelines: Callable[[str], Any]) -> None:
    answers = await ask_layouts([parts(tiny_models.cached(kind)) for kind in KINDS])
    for kind, answer in zip(KINDS, answers, strict=True):
        assert isinstance(answer, str), answer
        assert Layout.from_json(answer) == Targets(pipelines(kind)).spellings.layout, kind


async def test_a_model_that_cannot_be_built_says_why() -> None:
    index = '{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}'
    wrong = {
        "no index": {"unet/config.json": "{}"},
        "no object": {"model_index.json": "[]"},
        "another pipeline": {"model_index.json": '{"_class_name": "os"}', "unet/config.json": "{}"},
        "a class of another kind": {
            "model_index.json": index.replace("UNet2DConditionModel", "logging"),
            "unet/config.json": "{}",
        },
        "a configuration that is none": {"model_index.json": index, "unet/config.json": '{"layers_per_block": "x"}'},
    }
    for name, answer in zip(wrong, await ask_layouts(list(wrong.values())), strict=True):
        assert isinstance(answer, CraftError) and answer.reason == "UNSUPPORTED_MODEL", name


async def test_fits_are_the_engines(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    """In whole, in part, and of names that only diffusers knows."""
    flux, sd = pipelines("flux"), pipelines("sd")
    features = flux.transformer.x_embedder.out_features
    files = {
        "flux": tiny_loras.peft(tiny_loras.random(flux, seed=1)),
        "part": tiny_loras.kohya(tiny_loras.random(sd, seed=1))
        | {f"lora_unet_nowhere.lora_{part}.weight": torch.ones(4, 4) for part in ("down", "up")},
        "xlabs": {
            f"double_blocks.0.processor.proj_lora1.{part}.weight": torch.randn(shape)
            for part, shape in (("down", (4, features)), ("up", (features, 4)))
        },
    }
    paths = [tiny_loras.save(tensors, tmp_path / f"{name}.safetensors") for name, tensors in files.items()]
    targets = [Targets(sd), Targets(flux)]
    answers = await ask_fits(paths, [one.spellings.layout.to_json() for one in targets])
    counted = []
    for path, answer in zip(paths, answers, strict=True):
        assert not isinstance(answer, CraftError)
        for fit, target in zip(answer, targets, strict=True):
            facts = match.read(path, target, name=path.stem, sha256="0" * 64, size_bytes=0).facts
            assert (fit.matched, fit.total) == (facts.matched, facts.total)
            assert list(fit.unmatched) == list(facts.unmatched)[: len(fit.unmatched)]
            counted.append((fit.matched, fit.total))
    whole, part = len(files["flux"]), len(files["part"])
    assert counted == [(0, whole), (whole, whole), (part - 2, part), (0, part), (0, 2), (2, 2)]


async def test_a_file_that_is_none_is_told_beside_the_others(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_text("<!DOCTYPE html>")
    good = tiny_loras.save(tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1)), tmp_path / "good.safetensors")
    layout = Targets(pipelines("sd")).spellings.layout.to_json()
    bad, fits = await ask_fits([tmp_path / "bad.safetensors", good], [layout])
    assert isinstance(bad, CraftError) and bad.reason == "CORRUPT_FILE"
    assert isinstance(fits, list) and isinstance(fits[0], Fit) and fits[0].is_whole
    assert fits[0].layers == {"unet": len(tiny_loras.random(pipelines("sd"), seed=1))}


async def test_a_pipeline_without_loras_says_so(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    path = tiny_loras.save(tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1)), tmp_path / "it.safetensors")
    (layout,) = await ask_layouts([parts(tiny_models.cached("pixart"))])
    assert isinstance(layout, str)
    ((fit,),) = await ask_fits([path], [layout])  # type: ignore[misc]
    assert isinstance(fit, Fit) and fit.matched == 0 and "PixArtAlphaPipeline takes no LoRAs" in fit.message


@pytest.mark.parametrize("text", ["", "{}", '{"loras": ["x"], "layouts": ["{"]}'])
async def test_an_inspecting_process_that_cannot_follow_is_no_answer(text: str) -> None:
    from craftd.workers.inspector import asked

    with pytest.raises(CraftError) as caught:
        await asked("a LoRA", ["--fits"], 60.0, text.encode() or b" ")
    assert caught.value.reason == "CORRUPT_FILE"
