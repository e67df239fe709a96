"""diffusers' modular pipelines, put together of a folder's components and diffusers' own blocks.

diffusers would run the blocks that a folder brings as code; nothing here looks at them.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from craft_protos.reasons import CraftError
from diffusers.models.transformers import transformer_cosmos
from diffusers.modular_pipelines.modular_pipeline import ModularPipeline, ModularPipelineBlocks

from craftd import modular
from craftd.modular import INDEX
from craftd.refusal import shown
from craftd.worker.models.folder import read_json

WORKFLOW = "text2image"
_ESSENTIAL = {"transformer", "unet", "vae", "scheduler", "text_encoder", "tokenizer"}
_LIBRARIES = ("diffusers", "transformers")


def is_one(folder: Path) -> bool:
    return (folder / INDEX).is_file() and not (folder / "model_index.json").is_file()


def begin(folder: Path, kind: str, unused: Collection[str], model: str) -> Any:
    """The pipeline without its components, of the blocks that make a picture of a text. Raises UNSUPPORTED_MODEL.

    Blocks that need one of `unused` are left out.
    """
    told = modular.settings(read_json(folder / INDEX, model))
    pipeline: Any = getattr(diffusers, kind)
    if not issubclass(pipeline, ModularPipeline):
        raise _unsupported(model, f"is a {kind}, which is no modular pipeline")
    blocks = _of_texts(_blocks(told, pipeline, model), kind, model)
    for name in [name for name, block in blocks.sub_blocks.items() if _needs(block) & set(unused)]:
        del blocks.sub_blocks[name]
    lend_resizing()
    made = pipeline(blocks=blocks, modular_config_dict=told)
    for block in _loops(blocks):
        block.set_progress_bar_config(disable=True)
    return made


def finish(pipe: Any, folder: Path, components: Mapping[str, tuple[str, str]], parts: Mapping[str, Any]) -> None:
    """Give it its networks, `parts`, and what has no weights. Raises UNSUPPORTED_MODEL, OSError, ValueError."""
    light = {name: _light(folder / name, *of) for name, of in components.items() if name not in parts}
    pipe.update_components(**light, **parts)


def check_complete(pipe: Any, components: Collection[str], model: str) -> None:
    """Raises UNSUPPORTED_MODEL where one is missing that nothing is drawn without."""
    missing = sorted(_ESSENTIAL & set(pipe.pretrained_component_names) - set(components))
    if missing:
        raise _unsupported(model, f"has no {' and no '.join(missing)}, which its pipeline needs")


def lend_resizing() -> None:
    """Cosmos' transformer resizes a mask with torchvision, which craft does not need."""
    if not hasattr(transformer_cosmos, "transforms"):
        modes = SimpleNamespace(NEAREST="nearest")
        place: Any = transformer_cosmos
        place.transforms = SimpleNamespace(functional=SimpleNamespace(resize=_resize), InterpolationMode=modes)


def _resize(image: torch.Tensor, size: list[int], interpolation: str) -> torch.Tensor:
    return torch.nn.functional.interpolate(image, size, mode=interpolation)


def _blocks(told: Mapping[str, Any], pipeline: Any, model: str) -> Any:
    """diffusers' own that the index names; the pipeline's own, as diffusers takes them, where it names a bare kind."""
    name = told.get("_blocks_class_name") or pipeline.default_blocks_name
    found = getattr(diffusers, str(name), None)
    if not (isinstance(found, type) and issubclass(found, ModularPipelineBlocks)):
        raise _unsupported(model, f"is drawn by blocks of its own, {shown(str(name))}: craft runs no code of a model's")
    kind = found if getattr(found, "block_classes", None) else getattr(diffusers, pipeline.default_blocks_name)
    return kind()


def _of_texts(blocks: Any, kind: str, model: str) -> Any:
    try:
        workflows = blocks.available_workflows
    except NotImplementedError:
        workflows = []
    draws = any(output.name == "images" for output in blocks.outputs)
    if not draws or WORKFLOW not in (workflows or []):
        raise _unsupported(model, f"is a {kind}, which makes no picture of a text alone")
    return blocks.get_workflow(WORKFLOW)


def _needs(block: Any) -> set[str]:
    return {spec.name for spec in block.expected_components}


def _loops(block: Any) -> Iterator[Any]:
    """The blocks within it that show a bar."""
    if hasattr(block, "set_progress_bar_config"):
        yield block
    for inner in getattr(block, "sub_blocks", {}).values():
        yield from _loops(inner)


def _light(folder: Path, library: str, kind: str) -> Any:
    if library not in _LIBRARIES:
        raise ValueError(f"{folder.name} is from {library}, neither diffusers nor transformers")
    return getattr(importlib.import_module(library), kind).from_pretrained(folder, local_files_only=True)


def _unsupported(model: str, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"model {model} {why}", "`craft models list` shows what can be used")
