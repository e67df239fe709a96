"""Embeddings in jobs: found where a prompt names them, told, and never silently without effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon.harness import Daemon
from tests.daemon.loras import add, hint, refused, use
from tests.lora_files import POCKETS_WIDTH, kohya, numbers, write


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return _write(tmp_path / "easynegative.safetensors", POCKETS_WIDTH)


def _write(path: Path, width: int) -> Path:
    return write(path, {"emb_params": ("F32", (4, width), numbers(4 * width, 1))})


async def test_it_is_known_for_what_it_is(daemon: Daemon, tmp_path: Path) -> None:
    made = await add(daemon, _write(tmp_path / "easynegative.safetensors", 768))
    assert (made.format, made.base, made.adapts_text_encoder, made.layers) == ("embedding", "sd1", True, 0)
    assert any("where a prompt" in note for note in made.notes)


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "a cat, embedding:easynegative"},
        {"prompt": "a cat", "negative_prompt": "blurred, (embedding:EasyNegative:1.2)"},
    ],
)
async def test_a_prompt_that_names_it_brings_it_along(daemon: Daemon, embedding: Path, texts: dict[str, str]) -> None:
    made = await add(daemon, embedding)
    job = await daemon.create(**texts)
    assert [(one.lora, one.name, one.weight) for one in job.generate.loras] == [(made.id, "easynegative", 1.0)]
    assert job.generate.prompt == texts["prompt"]
    assert not (await daemon.create("a cat")).generate.loras


async def test_one_that_no_prompt_names_does_nothing_and_is_refused(daemon: Daemon, embedding: Path) -> None:
    await add(daemon, embedding)
    error = await refused(daemon.create("a cat", loras=[use("easynegative")]))
    assert "works where its name stands" in (error.details() or "") and "negative prompt" in hint(error)
    job = await daemon.create("a cat, easynegative", loras=[use("easynegative")])
    assert len(job.generate.loras) == 1


async def test_an_unknown_one_and_a_lora_by_that_word_are_named(
    daemon: Daemon, embedding: Path, tmp_path: Path
) -> None:
    await add(daemon, embedding)
    error = await refused(daemon.create("a cat, embedding:easynegativ"))
    assert "easynegativ" in (error.details() or "") and "easynegative" in hint(error)
    await add(daemon, kohya(tmp_path / "detail.safetensors"))
    error = await refused(daemon.create("a cat, embedding:detail"))
    assert "is a LoRA" in (error.details() or "") and "<lora:detail:1>" in hint(error)


async def test_a_bare_name_is_a_word_where_it_is_for_another_architecture(daemon: Daemon, tmp_path: Path) -> None:
    await add(daemon, _write(tmp_path / "style.safetensors", 1024))
    assert not (await daemon.create("a cat in this style")).generate.loras
    assert len((await daemon.create("a cat, embedding:style")).generate.loras) == 1
