"""FLUX.1 as one file in its makers' layout, which diffusers converts for the published width alone.

Two halves, since that width is too big to draw with here: at a tiny width, with diffusers' own converter told so,
the picture is the folder's; at the published one, with the converter as it is, so is every tensor.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.codec import from_message
from craft_protos.dispatch import Dispatch
from craft_protos.worker_pb2 import ModelManifest
from craftd.models import checkpoint
from craftd.worker.families.base import Runner
from craftd.worker.lora.reader import Reader
from craftd.worker.models.loader import Loader
from craftd.worker.models.single_file import CHECKPOINT, SingleFile
from craftd.worker.process.device import Device
from craftd.worker.quantized.layers import form_of
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file

from tests import tiny_models
from tests.worker import original_layout
from tests.worker.client import put_model, submit
from tests.worker.families import Truth, assert_same
from tests.worker.packed import unpacked

PUBLISHED_WIDTH = 3072
LARGEST = 18_432 * PUBLISHED_WIDTH  # numbers in one of its tensors: what shifts and scales in a double block
GUIDANCE = 3.5


@pytest.mark.parametrize("kind", ["flux", "flux-schnell"])
def test_the_picture_is_the_folders(
    tmp_path: Path, files: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    place = tmp_path / "model"
    _folder(kind, place)
    transformer = json.loads((place / "transformer/config.json").read_text())
    _narrow(monkeypatch, transformer["num_attention_heads"] * transformer["attention_head_dim"])
    original_layout.write(tiny_models.cached(kind), place / CHECKPOINT)
    drawn = _draw(put_model(place, files, f"{kind}-original"), files, tmp_path, guidance_scale=GUIDANCE)
    assert_same(drawn, truth(kind, guidance_scale=GUIDANCE))


def test_every_tensor_at_the_published_width(tmp_path: Path) -> None:
    """One block of each kind; all else is as in the configurations that craft carries."""
    place = tmp_path / "model"
    _folder("flux", place)
    published = json.loads((checkpoint._CARRIED / "flux-dev/transformer/config.json").read_text())
    config = published | {"num_layers": 1, "num_single_layers": 1}
    assert config["num_attention_heads"] * config["attention_head_dim"] == PUBLISHED_WIDTH
    (place / "transformer/config.json").write_text(json.dumps(config))
    shapes, numbers = _shapes(config), _numbers()
    given = original_layout.flux(tiny_models.cached("flux"), _stretches(numbers, shapes))
    save_file({name: tensor.clone().contiguous() for name, tensor in given.items()}, place / CHECKPOINT)
    del given
    transformer = _transformer(place)
    assert form_of(transformer) == "fp8 e4m3"  # as the file has it
    loaded, expected = unpacked(transformer).state_dict(), _stretches(numbers.bfloat16(), shapes)
    assert loaded.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(loaded[name], tensor)] == []


def _folder(kind: str, place: Path) -> None:
    """As the front hands a checkpoint over, but for the checkpoint."""
    shutil.copytree(tiny_models.cached(kind), place, ignore=shutil.ignore_patterns("*.safetensors"))


def _narrow(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Another number in the place of the width that diffusers' converter knows; nothing else of it changes."""
    converter = convert_flux_transformer_checkpoint_to_diffusers
    assert isinstance(converter, FunctionType)
    constants = converter.__code__.co_consts
    assert constants.count(PUBLISHED_WIDTH) == 1
    narrow = tuple(width if one == PUBLISHED_WIDTH else one for one in constants)
    monkeypatch.setattr(converter, "__code__", converter.__code__.replace(co_consts=narrow))


def _draw(message: ModelManifest, files: Path, work_folder: Path, **spec: Any) -> np.ndarray:
    """One image, in this process."""
    device = Device(torch.device("cpu"), "one of a test", 1 << 40, "fp32")
    loader = Loader(files, work_folder, device, Reader(files, lambda _: None))
    draw = from_message(Dispatch, submit(message, **spec).dispatch)
    runner: Runner = loader.load(draw.model, lambda _: None)
    drawing = runner.begin(draw, draw.drawing.seed, {})
    while not drawing.is_done:
        assert runner.advance([drawing], with_preview=[False]) == [None]
    (picture,) = runner.render([drawing])
    runner.close()
    return picture.astype(int)


def _shapes(config: dict[str, Any]) -> dict[str, torch.Size]:
    """Of a transformer's tensors."""
    made: Any = FluxTransformer2DModel
    with torch.device("meta"):
        return {name: one.shape for name, one in made.from_config(config).state_dict().items()}


def _numbers() -> torch.Tensor:
    """In eight bits, as such checkpoints come."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-100, 100, (LARGEST + 1000,), generator=generator).to(torch.float8_e4m3fn)


def _stretches(numbers: torch.Tensor, shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Each tensor is a stretch of the numbers, and begins where no other does."""
    return {
        name: numbers[start : start + shape.numel()].view(shape) for start, (name, shape) in enumerate(shapes.items())
    }


def _transformer(place: Path) -> torch.nn.Module:
    """As craft loads it."""
    index = json.loads((place / "model_index.json").read_text())
    components = {name: tuple(where) for name, where in index.items() if isinstance(where, list) and where[1]}
    found = SingleFile(place, "FluxPipeline", components, torch.bfloat16).load(lambda: None)["transformer"]
    assert isinstance(found, FluxTransformer2DModel)
    return found
