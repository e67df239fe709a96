"""Folders of diffusers' modular pipelines: drawn by diffusers' own blocks, refused with code or without a part."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from craft_protos.reasons import CraftError
from craftd.models import folder
from craftd.modular import INDEX
from craftd.worker.inspection import model
from craftd.worker.models import modular

from tests import tried

Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(20)
    place = tmp_path_factory.mktemp("modular") / "anima"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried.save(tried.MAKERS["anima"](), place)
    return place


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "anima"))


def _code(name: str) -> Spoil:
    return lambda place: (place / name).write_text('{"auto_map": {"ModularPipelineBlocks": "block.Mine"}}')


def _index(**changed: Any) -> Spoil:
    def change(place: Path) -> None:
        read = json.loads((place / INDEX).read_text())
        (place / INDEX).write_text(json.dumps(read | changed))

    return change


def _part(name: str, **changed: Any) -> Spoil:
    spec = {"pretrained_model_name_or_path": "x/y", "subfolder": name, "type_hint": ["transformers", "Qwen2Tokenizer"]}
    return _index(**{name: [None, None, spec | changed]})


def test_a_whole_one_is_let_in(whole: Path) -> None:
    model.check(whole)


@pytest.mark.parametrize(
    ("spoil", "reason", "said"),
    [
        (_code("modular_config.json"), "UNSAFE_CONFIG", "auto_map"),
        (_code("config.json"), "UNSAFE_CONFIG", "auto_map"),
        (_index(auto_map={"ModularPipelineBlocks": "block.Mine"}), "UNSAFE_CONFIG", "auto_map"),
        (_part("tokenizer", type_hint=["os", "System"]), "UNSAFE_CONFIG", "'os'"),
        (_part("tokenizer", subfolder="../other"), "UNSUPPORTED_MODEL", "'../other'"),
        (_index(_class_name="Mine"), "UNSUPPORTED_MODEL", "no pipeline"),
        (lambda place: shutil.rmtree(place / "vae"), "UNSUPPORTED_MODEL", "its vae lies elsewhere: in 'someone/some"),
    ],
)
def test_what_brings_code_or_lacks_a_part_is_refused(copied: Path, spoil: Spoil, reason: str, said: str) -> None:
    spoil(copied)
    with pytest.raises(CraftError) as caught:
        model.check(copied)
    assert (caught.value.reason, said in caught.value.message, bool(caught.value.hint)) == (reason, True, True)


def test_a_part_that_lies_elsewhere_is_named_by_the_front_too(copied: Path) -> None:
    shutil.rmtree(copied / "t5_tokenizer")
    read = folder.read(copied, name="anima")
    assert read.refused == "UNSUPPORTED_MODEL" and "someone/somewhere" in read.refused_why


@pytest.mark.parametrize(
    ("kind", "spoil", "said"),
    [
        ("AnimaModularPipeline", _index(_blocks_class_name="MineAutoBlocks"), "blocks of its own, 'MineAutoBlocks'"),
        ("WanModularPipeline", _index(_blocks_class_name=None), "no picture of a text alone"),
        ("QwenImageEditPlusModularPipeline", _index(_blocks_class_name=None), "no picture of a text alone"),
        ("ZImagePipeline", _index(), "no modular pipeline"),
    ],
)
def test_what_diffusers_own_blocks_do_not_draw_is_not_loaded(copied: Path, kind: str, spoil: Spoil, said: str) -> None:
    spoil(copied)
    with pytest.raises(CraftError, match=said) as caught:
        modular.begin(copied, kind, (), "mine")
    assert caught.value.reason == "UNSUPPORTED_MODEL"
