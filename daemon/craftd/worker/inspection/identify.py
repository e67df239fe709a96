"""What a file is, by its header: a checkpoint, a network alone, a text encoder, a VAE, a LoRA; or why none of these."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from craftd import gguf, safetensors
from craftd.architectures import detect
from craftd.worker.inspection import model

_DOWNS = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight")


@dataclass(frozen=True)
class Identity:
    """`what`: "checkpoint", "network", "part" or "lora". `of`: the architecture's name, or the part's."""

    what: str
    of: str
    kind: str = ""  # of a part
    missing: tuple[str, ...] = ()  # of a checkpoint or a network: the components that it lacks
    precision: str = ""
    lacks: str = ""  # the same in a sentence


def of(path: Path) -> dict[str, object]:
    """Raises UNSAFE_PATH, UNSAFE_FORMAT, CORRUPT_FILE, UNSUPPORTED_MODEL."""
    model.check(path)
    return asdict(_of(gguf.header(path), path.name))


def _of(header: safetensors.Header, name: str) -> Identity:
    if any(tensor.endswith(_DOWNS) for tensor in header.shapes):
        return Identity("lora", _lora_base(header))
    part = detect.of_part(header)
    if part is not None:
        return Identity("part", part.shown, part.kind.id, precision=header.precision(part.prefix))
    found = detect.of_file(header, name)
    what = "network" if found.is_alone(header) else "checkpoint"
    missing = tuple(one.component for one in found.missing)
    lacks = detect.lacks(found, found.missing, name).message if missing else ""
    return Identity(what, found.architecture.name, "", missing, header.precision(*found.network), lacks)


def _lora_base(header: safetensors.Header) -> str:
    layers = {
        name.removesuffix(end): shape for name, shape in header.shapes.items() for end in _DOWNS if name.endswith(end)
    }
    return detect.of_lora(layers, header.metadata).name
