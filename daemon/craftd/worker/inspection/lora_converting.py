"""A LoRA's file in another form, as the bytes of a safetensors file.

The layers are those of its architecture, by the configurations that craft carries: no model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from craft_protos.reasons import CraftError

from craftd import architectures, safetensors
from craftd.architectures import registry
from craftd.worker.inspection import layouts
from craftd.worker.inspection.tree import single
from craftd.worker.lora import file, writing
from craftd.worker.lora.fit import fit, mismatch
from craftd.worker.lora.layout import Layout
from craftd.worker.lora.spellings import Spellings
from craftd.worker.lora.writing import Written

_CARRIED = Path(architectures.__file__).parent
_NETWORKS = ("transformer", "unet", *layouts.TEXT_ENCODERS)


def converted(path: Path, form: str) -> Written:
    """Raises UNSUPPORTED_LORA, CORRUPT_FILE, LORA_MISMATCH."""
    metadata = safetensors.read(single(path)).metadata
    with file.opened(path, path.name) as opened, torch.inference_mode():
        if opened.reading.vectors:
            raise CraftError("UNSUPPORTED_LORA", f"{path.name} is an embedding, which has one form", "use it as it is")
        known = [Spellings(Layout.from_json(layouts.of(parts))) for parts in _configurations(opened.reading.base)]
        if not known:
            base = opened.reading.base or "not known"
            message = f"LoRA {path.name}: what it was made for is {base}, whose layers craft does not carry"
            raise CraftError("UNSUPPORTED_LORA", message, "use it as it is")
        return _written(form, opened, known, metadata)


def _written(form: str, opened: file.LoraFile, known: Sequence[Spellings], metadata: dict[str, str]) -> Written:
    fits = [(fit(opened.reading, spellings), spellings.layout) for spellings in known]
    found, layout = max(fits, key=lambda one: one[0].matched)
    if found.unmatched:
        raise mismatch(opened.name, layout.pipeline, found.matched, found.total, found.unmatched)
    return writing.written(form, opened, found, layout, metadata)


def _configurations(base: str) -> list[dict[str, str]]:
    row = next((row for row in registry.ROWS if row.id == base and base), None)
    folders = dict.fromkeys(checkpoint.configurations for checkpoint in row.checkpoints) if row is not None else {}
    return [_parts(_CARRIED / folder) for folder in folders]


def _parts(folder: Path) -> dict[str, str]:
    files = [folder / "model_index.json", *(folder / name / "config.json" for name in _NETWORKS)]
    return {str(one.relative_to(folder)): one.read_text("utf-8") for one in files if one.is_file()}
