"""The one reading of a LoRA's file: by its header alone, which layers it changes, how, and how strongly.

The check that a file passes before it is added, what is told of it, whether it fits a model and the pictures that are
drawn with it all follow from this. It needs no more than names, shapes and metadata, so it runs without torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from craft_protos.reasons import CraftError

from craftd.architectures import detect
from craftd.worker.lora import embedding, roles, strength
from craftd.worker.lora.embedding import Vectors
from craftd.worker.lora.strength import Strengths

MOST_TENSORS, _LONGEST_NAME = 20_000, 500  # the largest LoRAs have some 5,000
_MODELS = ("model.diffusion_model.", "conv_in.", "first_stage_model.")

# Parts that tell a layer's inputs, and then those that tell only that it is one.
_TELLING = ("down", "whole", "diff", "b2", "oft_blocks", "ia3", "diff_b")
_NO_INPUTS = ("oft_blocks", "ia3", "diff_b")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """The tensors, by the layer's path in the file and their part."""

    name: str
    shapes: Mapping[str, Shape]  # of every tensor
    paths: Mapping[str, Mapping[str, str]]  # path -> part -> tensor's name
    unknown: Mapping[str, str]  # tensors without a part -> what they are, where that can be told
    strengths: Strengths
    forms: frozenset[str]
    base: str = ""  # the architecture that it was made for, where that can be told
    vectors: Vectors = field(default_factory=dict)  # of an embedding, which has no layers
    bundled: Mapping[str, Vectors] = field(default_factory=dict)  # embeddings beside the layers, by their words

    @property
    def layers(self) -> dict[str, Shape]:
        """The shape of each down projection (of a LoKr, as if it were one for all of the layer's inputs), by path."""
        return {
            path: () if part in _NO_INPUTS else self._down(parts, self.shapes[parts[part]])
            for path, parts in self.paths.items()
            if (part := next((one for one in _TELLING if one in parts), ""))
        }

    def _down(self, parts: Mapping[str, str], shape: Shape) -> Shape:
        first = parts.get("kron") or parts.get("kron_b")
        if first is None or len(shape) < 2 or len(self.shapes[first]) < 2:
            return shape
        return (shape[0], shape[1] * self.shapes[first][1], *shape[2:])

    @property
    def rank(self) -> int:
        """The largest."""
        downs = (self.shapes[parts["down"]] for parts in self.paths.values() if "down" in parts)
        return max((shape[0] for shape in downs if len(shape) > 1), default=0)

    @property
    def adapts_text_encoder(self) -> bool:
        return bool(self.vectors) or detect.adapts_text_encoder(self.layers)

    @property
    def is_dora(self) -> bool:
        return any("magnitude" in parts or "dora_scale" in parts for parts in self.paths.values())

    @property
    def has_conv(self) -> bool:
        """Beyond pointwise ones, which are as good as linear."""
        kernels = [
            parts[part]
            for parts in self.paths.values()
            for part in [next((part for part in ("mid", "down", "whole", "diff", "b2") if part in parts), "")]
            if part
        ]
        return any(side > 1 for kernel in kernels for side in self.shapes[kernel][2:])

    @property
    def notes(self) -> list[str]:
        """What whoever uses it should know, beyond what it changes."""
        if self.vectors:
            return ["it is an embedding: it works where a prompt or a negative prompt has its name"]
        found = sorted({f"it also holds {what}" for what in self.unknown.values() if what})
        for word in self.bundled:
            found.append(f"it also holds the embedding {roles.shown(word)}, which works where a prompt has that word")
        if self.strengths.complaint:
            found.append(f"{self.strengths.complaint}: its alpha is taken to be its rank")
        elif self._is_of_peft_alone and not self.strengths:
            found.append(
                "it does not say how strong it is (peft has that in the adapter_config.json beside"
                " adapter_model.safetensors): its alpha is taken to be its rank"
            )
        return found

    @property
    def _is_of_peft_alone(self) -> bool:
        """As peft saves a model's adapter; pipelines of diffusers put the strength into the numbers."""
        with_alpha = any("alpha" in parts for parts in self.paths.values())
        return not with_alpha and any(path.startswith("base_model.model.") for path in self.paths)


def read(name: str, shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> Reading:
    """Raises UNSUPPORTED_LORA, saying what it is instead; CORRUPT_FILE."""
    if len(shapes) > MOST_TENSORS or any(len(key) > _LONGEST_NAME for key in shapes):
        expected = f"expected at most {MOST_TENSORS} tensors with names of {_LONGEST_NAME} characters, found more"
        raise CraftError("CORRUPT_FILE", f"LoRA {name}: {expected}", "use another one")
    if vectors := embedding.of(shapes):
        form, base = frozenset({embedding.FORM}), embedding.base_of(vectors, shapes)
        return Reading(name, shapes, {}, {}, strength.read(name, metadata), form, base, vectors)
    roles.refuse_others(name, shapes)
    found = sort(name, shapes, strength.read(name, metadata))
    if not found.layers:
        raise _no_lora(name, shapes)
    return replace(found, base=detect.of_lora(found.layers, metadata).id)


def sort(name: str, shapes: Mapping[str, Shape], strengths: Strengths) -> Reading:
    """Tensors by what their names say."""
    found = {key: roles.of(key) for key in shapes}
    found |= {scaled[0]: scaled[1] for key in shapes if (scaled := roles.scaled_by(key)) and scaled[0] in shapes}
    adapters: dict[str, str] = {}  # of several that a layer has in one file, only one is read
    for role in found.values():
        if role is not None and role.part in ("down", "up"):
            adapters[role.path] = min(role.adapter, adapters.get(role.path, role.adapter))
    paths: dict[str, dict[str, str]] = defaultdict(dict)
    unknown: dict[str, str] = {}
    for key, role in found.items():
        if role is None:
            unknown[key] = roles.what_else(key)
        elif role.part in paths[role.path] or (role.part in ("down", "up") and role.adapter != adapters[role.path]):
            unknown[key] = f"a second change of {roles.shown(role.path)}"
        else:
            paths[role.path][role.part] = key
    forms = frozenset(role.form for role in found.values() if role is not None and role.form)
    bundled = embedding.bundled(shapes)
    for key in (key for vectors in bundled.values() for key in vectors.values()):
        del unknown[key]
    told = {path: parts for path, parts in paths.items() if parts}
    return Reading(name, shapes, told, unknown, strengths, forms, bundled=bundled)


def _no_lora(name: str, shapes: Mapping[str, Shape]) -> CraftError:
    if any(key.startswith(_MODELS) for key in shapes):
        what, hint = "holds a whole model, not a LoRA", "craft models add takes models"
    elif embeddings := sorted({what for key in shapes if (what := roles.what_else(key))}):
        what, hint = f"holds no LoRA layers, but {embeddings[0]}", "see that it is a LoRA's file"
    else:
        what, hint = f"holds no LoRA layers among its {len(shapes)} tensors", "see that it is a LoRA's file"
    return CraftError("UNSUPPORTED_LORA", f"LoRA {name} {what}", hint)
