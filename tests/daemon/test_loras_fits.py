"""How LoRAs fit the models that are here: by layers' names and shapes, found out once and kept."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from craft_protos import jobs_pb2, loras_pb2, models_pb2
from craft_protos.reasons import CraftError
from craftd.architectures import detect
from craftd.jobs.fits.service import Fits
from craftd.loras.files import look
from craftd.loras.lora import Lora, Place
from craftd.models.model import Defaults, Model, ModelFile, Sizes
from craftd.store.database import Database
from craftd.workers.fitting import Fit, Parts, ask_fits
from craftd.workers.inspector import LoraFindings

from tests.daemon.harness import Daemon, reason, request, running
from tests.daemon.loras import add, find, hint, listed, refused, use
from tests.home import Home
from tests.lora_files import kohya, layer, write

TO_K = "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT = f"lora_unet_{TO_K.replace('.', '_')}"


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Iterator[Home]:
    """`flat`, of which nothing is known, and two models of Stable Diffusion 1 with other layers."""
    made = make_home()
    for name, layers in (("one", {TO_K: [64, 768]}), ("two", {TO_K: [32, 768], "conv_in": [8, 4, 3, 3]})):
        shutil.copytree(made.paths.models_dir / "flat", made.paths.models_dir / name)
        config = {"sample_size": 8, "cross_attention_dim": 768, "fake_layers": layers}
        (made.paths.models_dir / name / "unet" / "config.json").write_text(json.dumps(config))
    yield made


@pytest.fixture
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    async with running(home) as started:
        await add(started, kohya(home.root / "it.safetensors", width=768))
        part = {**layer(FLAT, width=768), **layer("lora_unet_nowhere", width=8)}
        await add(started, write(home.root / "part.safetensors", part))
        yield started


def told(lora: loras_pb2.Lora) -> dict[str, tuple[bool, int, int]]:
    return {fit.model: (fit.fits, fit.matched, fit.total) for fit in lora.fits if fit.model != "pocket"}


async def test_every_answer_says_the_same(daemon: Daemon) -> None:
    whole, part = await find(daemon, "it"), await find(daemon, "part")
    assert told(whole) == {"flat": (False, 0, 0), "one": (True, 3, 3), "two": (False, 0, 3)}
    assert told(part) == {"flat": (False, 0, 0), "one": (False, 3, 6), "two": (False, 0, 6)}
    assert {model: await listed(daemon, model) for model in ("one", "two", "flat")} == {
        "one": ["it"],
        "two": [],
        "flat": [],
    }
    answer = await daemon.models.ListModels(models_pb2.ListModelsRequest())
    assert {model.name: list(model.loras) for model in answer.models if model.name in ("one", "two")} == {
        "one": ["it"],
        "two": [],
    }
    for model, fits in (("one", [True, False]), ("two", [False, False])):
        plan = await daemon.jobs.PlanJob(request(model=model, loras=[use("it"), use("part")]))
        assert [one.fits for one in plan.loras] == fits
        assert [(one.matched, one.total) for one in plan.loras] == [told(lora)[model][1:] for lora in (whole, part)]


async def test_what_fits_in_part_is_refused_before_it_is_queued_unless_that_is_enough(daemon: Daemon) -> None:
    """Row 28: both names, and how many of its tensors fit."""
    error = await refused(daemon.create(model="one", loras=[use("part")]))
    assert reason(error) == "LORA_MISMATCH"
    assert "LoRA part does not fit model one: 3 of 6 tensors fit (not lora_unet_nowhere" in str(error.details())
    assert "--lora-missing=skip" in hint(error)
    skip = jobs_pb2.LORA_MISSING_SKIP
    assert (await daemon.create(model="one", loras=[use("part")], lora_missing=skip)).id
    plan = await daemon.jobs.PlanJob(request(model="one", loras=[use("part")], lora_missing=skip))
    assert (plan.loras[0].fits, plan.loras[0].matched) == (True, 3)
    assert reason(await refused(daemon.create(model="two", loras=[use("part")], lora_missing=skip))) == "LORA_MISMATCH"


async def test_a_model_that_comes_later_is_compared_when_it_is_asked_for(daemon: Daemon, home: Home) -> None:
    shutil.copytree(home.paths.models_dir / "one", home.paths.models_dir / "later")
    assert await listed(daemon, "later") == ["it"]
    config = home.paths.models_dir / "later" / "unet" / "config.json"
    config.write_text(config.read_text().replace("768]", "769]"))
    assert await listed(daemon, "later") == []
    plan = await daemon.jobs.PlanJob(request(model="later", loras=[use("it")]))
    assert "another shape: 64x769" in plan.loras[0].why_not


async def test_what_was_found_out_outlives_the_daemon_and_goes_with_the_lora(daemon: Daemon, home: Home) -> None:
    await daemon.loras.DeleteLora(loras_pb2.DeleteLoraRequest(lora="part"))
    kept = (await find(daemon, "it")).sha256
    await daemon.stop()
    assert {sha256 for (sha256,) in home.rows("SELECT sha256 FROM lora_fits")} == {kept}
    assert len(home.rows("SELECT key FROM model_layouts")) >= 3
    async with running(home) as again:
        error = await refused(again.create(model="two", loras=[use("it")]))
        assert reason(error) == "LORA_MISMATCH" and "0 of 3 tensors fit" in str(error.details())


# Without a daemon


class Asked:
    """Counts what is asked, and answers with layouts of one layer."""

    def __init__(self) -> None:
        self.layouts = 0
        self.fits: list[int] = []
        self.has_asked = asyncio.Event()

    async def ask_layouts(self, models: Sequence[Parts]) -> list[str | CraftError]:
        self.layouts += len(models)
        self.has_asked.set()
        unet = {"kind": "UNet2DConditionModel", "layers": {TO_K: [64, 768]}, "depth": 1}
        layout = {"pipeline": "StableDiffusionPipeline", "components": {"unet": unet}, "has_converter": True}
        return [json.dumps(layout) for _ in models]

    async def ask_fits(self, loras: Sequence[Path], layouts: Sequence[str]) -> list[list[Fit] | CraftError]:
        self.fits.append(len(loras))
        return await ask_fits(loras, layouts)


def model(folder: Path, name: str, **config: object) -> Model:
    files = []
    for path, text in (
        ("model_index.json", {"_class_name": "StableDiffusionPipeline"}),
        ("unet/config.json", {"sample_size": 8, **config}),
    ):
        source = folder / name / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(json.dumps(text))
        files.append(ModelFile(path, source, source.stat().st_size))
    architecture = detect.of_pipeline("StableDiffusionPipeline", config.get("cross_attention_dim"))
    return Model(
        name, folder, architecture, "StableDiffusionPipeline", Sizes(8), Defaults(64, 64, 1, 1.0, "Euler"), tuple(files)
    )


def lora(path: Path, sha256: str) -> Lora:
    found = LoraFindings(sha256, "", 1, "kohya", "sd1", 4, 1, False, False, False, "", {})
    return Lora(sha256, path.stem, path.name, 1.0, "", Place(path, look(path), str(path)), found, 0.0, "local", True)


async def test_many_who_ask_at_once_have_it_found_out_once(database: Database, tmp_path: Path) -> None:
    """Models of one configuration share it too."""
    asked = Asked()
    fits = Fits(database, asked.ask_layouts, asked.ask_fits)
    one = lora(kohya(tmp_path / "it.safetensors", width=768), "1" * 64)
    models = [model(tmp_path, "a"), model(tmp_path, "b")]
    answers = await asyncio.gather(*(fits.learn([one], models) for _ in range(20)))
    assert all(found.is_whole for answer in answers for (found,) in answer)
    assert (asked.layouts, asked.fits) == (1, [1])
    again = Fits(database, asked.ask_layouts, asked.ask_fits)
    await again.open()
    assert (await again.known([one], models[1]))[0].is_whole
    assert await again.fitting([one], models[0]) == [one]
    assert (asked.layouts, asked.fits) == (1, [1])


async def test_what_is_not_known_is_found_out_in_the_background(database: Database, tmp_path: Path) -> None:
    asked = Asked()
    fits = Fits(database, asked.ask_layouts, asked.ask_fits)
    one, own = lora(kohya(tmp_path / "it.safetensors", width=768), "1" * 64), model(tmp_path, "a")
    assert await fits.fitting([one], own) == []  # of an architecture that nobody knows
    working = asyncio.create_task(fits.run())
    await asked.has_asked.wait()
    await fits.learn([one], [own])  # after what is under way
    assert (asked.layouts, asked.fits) == (1, [1])
    assert await fits.fitting([one], own) == [one]
    working.cancel()


async def test_a_file_that_has_changed_is_not_compared_under_its_old_hash(database: Database, tmp_path: Path) -> None:
    asked = Asked()
    fits = Fits(database, asked.ask_layouts, asked.ask_fits)
    path = kohya(tmp_path / "it.safetensors", width=768)
    one = lora(path, "1" * 64)
    kohya(path, width=640, rank=8)
    ((found,),) = await fits.learn([one], [model(tmp_path, "a")])
    assert (found.fit, asked.fits) == (None, [])


async def test_trouble_is_not_kept(database: Database, tmp_path: Path) -> None:
    asked, one = Asked(), lora(kohya(tmp_path / "it.safetensors", width=768), "1" * 64)

    async def fail(_models: Sequence[Parts]) -> list[str | CraftError]:
        raise CraftError("CORRUPT_FILE", "it took longer than 60 s", "try again")

    ((found,),) = await Fits(database, fail, asked.ask_fits).learn([one], [model(tmp_path, "a")])
    assert found.fit is None
    ((found,),) = await Fits(database, asked.ask_layouts, asked.ask_fits).learn([one], [model(tmp_path, "a")])
    assert found.is_whole


async def test_names_in_a_message_are_the_ones_that_are_meant(tmp_path: Path) -> None:
    """Whatever a stranger calls a tensor."""
    tensors = {**layer("{lora}{model}", width=8)}
    path = write(tmp_path / "it.safetensors", tensors)
    (layout,) = await Asked().ask_layouts([{}])
    ((fit,),) = await ask_fits([path], [str(layout).replace("true", "false")])  # type: ignore[misc]
    message = replace(fit).mismatch("my {model}", "{lora}").message  # type: ignore[arg-type]
    assert message.startswith("LoRA my {model} does not fit model {lora}: 0 of 3 tensors fit")
