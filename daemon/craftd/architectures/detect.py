"""Which architecture something is of: a folder's pipeline, a network, a single file's header, a LoRA."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from craft_protos.reasons import CraftError

from craftd.architectures import parts, registry
from craftd.architectures.architecture import Architecture, Checkpoint, Mark, Part, PartKind
from craftd.architectures.parts import FoundPart
from craftd.architectures.rows import unets
from craftd.safetensors import Header

Shapes = Mapping[str, tuple[int, ...]]

TEXT_LAYER = re.compile(
    r"^(lora_te\d?_|te\d?[._]|text_encoder|base_model\.model\.(text_model|encoder))|[._]text_model[._]"
)
_UNET_LAYER = re.compile(r"(^|[._])(down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)[._]")
_CROSS_LAYER = re.compile(r"attn2[._](processor\.)?to_[kv](_lora)?$")
_BESIDE_PARTS = ("lm_head.", "visual.", "model.visual.")  # of a language model: its head, and what sees for it
_SECOND_TEXT_LAYER = re.compile(r"^(lora_te2_|te2[._]|text_encoder_2)")


def of_pipeline(pipeline: str, text_width: object) -> Architecture:
    """By diffusers' class and, where several draw with that, the width of the text that the UNet attends to."""
    rows = [row for row in registry.ROWS if pipeline in row.pipelines]
    if len(rows) < 2:
        return rows[0] if rows else registry.UNKNOWN
    return next((row for row in rows if row.text_width == text_width), replace(rows[0], id=""))


def of_network(network: str, text_width: int) -> Architecture:
    """By the class of what is called at each step, whatever pipeline it is part of."""
    rows = [row for row in registry.ROWS if row.network == network and row.text_width in (0, text_width)]
    return rows[0] if rows else registry.UNKNOWN


# LoRAs


def of_lora(layers: Shapes, metadata: Mapping[str, str]) -> Architecture:
    """By its layers' names and the shapes of their down projections, else by what its maker says."""
    return _of_layers(layers) or _of_notes(metadata) or registry.UNKNOWN


def adapts_text_encoder(layers: Iterable[str]) -> bool:
    return any(TEXT_LAYER.search(layer) for layer in layers)


def _of_layers(layers: Shapes) -> Architecture | None:
    for row in registry.ROWS:
        if any(row.lora_layer.search(layer) for layer in layers):
            return row
    unet = [layer for layer in layers if _UNET_LAYER.search(layer)]
    width = next((layers[one][1] for one in unet if _CROSS_LAYER.search(one) and len(layers[one]) > 1), 0)
    if width:
        found = of_network(unets.SD1.network, width)
        return found if found.id else None
    has_unet = any(not TEXT_LAYER.search(layer) for layer in unet)
    return unets.SDXL if has_unet and any(_SECOND_TEXT_LAYER.search(layer) for layer in layers) else None


def _of_notes(metadata: Mapping[str, str]) -> Architecture | None:
    for key in ("modelspec.architecture", "ss_base_model_version"):
        said = metadata.get(key, "")[:100].lower()
        for row in registry.ROWS:
            if row.lora_note.search(said):
                return row
    return None


# Single files


@dataclass(frozen=True)
class Found:
    """A single file's architecture, its layout, and how its network's tensors begin."""

    architecture: Architecture
    checkpoint: Checkpoint
    network: tuple[str, ...]
    missing: tuple[Part, ...] = ()  # what must lie beside the network, and doesn't

    def left_out(self, header: Header) -> list[str]:
        """The parts of the pipeline that the file may lack, and does."""
        return [part.component for part in self.checkpoint.optional if not header.has(*part.prefixes)]

    def is_alone(self, header: Header) -> bool:
        """Says whether the file holds the network (a transformer or UNet) and no text encoder or VAE."""
        return not any(header.has(*part.prefixes) for part in (*self.checkpoint.parts, *self.checkpoint.optional))


class LacksParts(CraftError):
    """A network's text encoders or VAE are nowhere to be found; they may be added later."""


def of_checkpoint(header: Header, file_name: str, given: Iterable[str] = ()) -> Found:
    """`given`: the components that come from files of their own.

    Raises UNSUPPORTED_MODEL, naming what it is where that can be told, and the parts that it lacks.
    """
    found = of_file(header, file_name)
    missing = [part for part in found.missing if part.component not in set(given)]
    if missing:
        raise lacks(found, missing, file_name)
    return found


def of_file(header: Header, file_name: str) -> Found:
    """A checkpoint, or its network alone. Raises UNSUPPORTED_MODEL, naming what it is where that can be told."""
    _refuse_adapters(header, file_name)
    _refuse(registry.STRANGERS | _drawn_as_folders(), header, file_name)
    alike: list[tuple[Architecture, int]] = []  # whose networks take other inputs than the file's
    for row, checkpoint in _checkpoints(file_name):
        prefix = _prefix(checkpoint.mark, header)
        if prefix is None:
            continue
        if (channels := _other_inputs(checkpoint, prefix, header)) is None:
            missing = tuple(part for part in checkpoint.parts if not header.has(*part.prefixes))
            return Found(row, checkpoint, (prefix,) if prefix else checkpoint.mark.has, missing)
        alike.append((row, channels))
    for row, channels in alike:
        variant = row.variants.get(channels, "a variant of {}").format(row.name)
        raise _unsupported(file_name, f"it is {variant}, which needs more than a prompt")
    _refuse(registry.LEFTOVERS, header, file_name)
    raise _unsupported(file_name, "its tensors are those of no architecture that craft knows")


def _checkpoints(file_name: str) -> list[tuple[Architecture, Checkpoint]]:
    """The layouts that a file of that name may have, those first that are told by it."""
    known = [(row, checkpoint) for row in registry.ROWS for checkpoint in row.checkpoints]
    return sorted((one for one in known if one[1].may_be_called(file_name)), key=lambda one: not one[1].word)


def check_known(header: Header, name: str) -> None:
    """Raises UNSUPPORTED_MODEL for what craft can name and does not draw with."""
    _refuse(registry.STRANGERS, header, name)


def of_part(header: Header) -> FoundPart | None:
    """What part of a model it is, where it holds one alone."""
    for kind in parts.KINDS:
        prefix = _prefix(kind.mark, header)
        if prefix is not None and all(_belongs(name, prefix) for name in header.shapes):
            return FoundPart(kind, prefix)
    return None


def _belongs(name: str, prefix: str) -> bool:
    """Whether a tensor is the part's; whole checkpoints have parts too, each behind its own beginning."""
    return name.startswith((prefix, *_BESIDE_PARTS)) or "." not in name


def lacks(found: Found, missing: Iterable[Part], file_name: str) -> CraftError:
    """UNSUPPORTED_MODEL: which parts, what their files are called elsewhere, and where they are published."""
    told = list(missing)
    folder = found.checkpoint.configurations
    message = f"{file_name}: {folder} without {' and '.join(part.name for part in told)}"
    known = [part.kind for part in told if part.kind is not None]
    if len(known) < len(told):
        return CraftError(
            "UNSUPPORTED_MODEL",
            f"{message}: only a checkpoint that has every part can be drawn with",
            "get the whole checkpoint, or the model's diffusers folder: craft models pull ORG/NAME",
        )
    return LacksParts(
        "UNSUPPORTED_MODEL",
        f"{message}; not registered, not beside it, and not in the folders around it: {'; '.join(map(_told, known))}",
        "put them beside it, or name them: --text-encoder FILE, --vae FILE",
    )


def _told(kind: PartKind) -> str:
    called = f" is called {' or '.join(kind.files)} elsewhere" if kind.files else ""
    published = f", published as {kind.published}" if kind.published else ""
    return f"{kind.name}{called}{published}"


def _drawn_as_folders() -> dict[str, tuple[Mark, ...]]:
    return {f"{row.name}, which craft draws with as a diffusers folder": row.marks for row in registry.ROWS}


def _prefix(mark: Mark, header: Header) -> str | None:
    """Behind which the header has all that the mark says."""
    return next((prefix for prefix in mark.prefixes if _is_marked(mark, prefix, header)), None)


def _is_marked(mark: Mark, prefix: str, header: Header) -> bool:
    return (
        all(header.has(prefix + beginning) for beginning in mark.has)
        and not any(header.has(prefix + beginning) for beginning in mark.lacks)
        and (mark.side is None or _side(prefix, *mark.side[:2], header) == mark.side[2])
    )


def _side(prefix: str, name: str, axis: int, header: Header) -> int:
    if not name.startswith("*"):
        return header.side(prefix + name, axis)
    found = (one for one in header.shapes if one.startswith(prefix) and one.endswith(name[1:]))
    return header.side(next(found, ""), axis)


def _other_inputs(checkpoint: Checkpoint, prefix: str, header: Header) -> int | None:
    """How many channels the file's network takes, where the layout's takes others."""
    if checkpoint.inputs is None:
        return None
    name, expected = checkpoint.inputs
    channels = header.side(prefix + name, 1)
    return channels if channels != expected else None


def _refuse_adapters(header: Header, file_name: str) -> None:
    if any(name.startswith("lora_") or ".lora_" in name or "lora_A" in name for name in header.shapes):
        raise CraftError("UNSUPPORTED_MODEL", f"{file_name}: it is a LoRA, not a model", "add it: craft lora add FILE")


def _refuse(strangers: Mapping[str, tuple[Mark, ...]], header: Header, file_name: str) -> None:
    for what, marks in strangers.items():
        if any(_prefix(mark, header) is not None for mark in marks):
            raise _unsupported(file_name, f"it is {what}")


def _unsupported(file_name: str, why: str) -> CraftError:
    return CraftError("UNSUPPORTED_MODEL", f"{file_name}: {why}", "`craft models list` shows what can be used")
