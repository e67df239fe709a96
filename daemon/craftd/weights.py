"""What tensors of a file take in memory, told from its header: numbers as they are computed with, packed ones as is.

Which layers are packed follows from their names here and from the network itself in `craftd.worker.quantized.packing`:
what both say is the same but for a few small layers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from craftd.gguf import BLOCKS
from craftd.safetensors import Header, Tensor

ITEM_BYTES = {"fp64": 8, "fp32": 4, "fp16": 2, "bf16": 2}
PACKED = ("fp8", "int8")  # precisions whose layers take a byte a number
_FP8 = ("F8_E4M3", "F8_E5M2")
_PLAIN = ("F32", "F16", "BF16", "F64")
_WHOLE = re.compile(r"norm_out|embed|lm_head|first_stage_model|(^|[._])vae[._]|clip|conditioner|cond_stage")
_BLOCK = re.compile(r".*?\.\d+\.(?:(?!\d)[^.]+\.\d+\.)?")  # down_blocks.0.attentions.1., transformer_blocks.7.
_NETWORKS = ("transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3", "")


@dataclass(frozen=True)
class Weights:
    """How much of a file, or of a model, is kept in which way."""

    packed_bytes: int = 0  # as they lie in the file
    layers: int = 0  # numbers that a packed precision keeps in a byte each
    others: int = 0  # numbers that are computed with as they are

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.packed_bytes + other.packed_bytes, self.layers + other.layers, self.others + other.others)

    def resident_bytes(self, computed: str, kept_in: str) -> int:
        """`computed`: the worker's precision; `kept_in`: what the model's user said, or ""."""
        item = ITEM_BYTES.get(kept_in) or ITEM_BYTES.get(computed, 4)
        return self.packed_bytes + self.layers * (1 if kept_in in PACKED else item) + self.others * item


def of(header: Header, part: str = "") -> Weights:
    """`part`: of the pipeline, "transformer"; "" for a file with all of them."""
    found = Weights()
    for tensor in header.tensors:
        found += _of_tensor(tensor, part)
    return found


def by_blocks(header: Header, part: str = "") -> dict[tuple[str, str], Weights]:
    """The same of each network and block of it ("" outside of blocks); "" as part: each of the file's networks."""
    found: dict[tuple[str, str], Weights] = {}
    for tensor in header.tensors:
        network = part or ".".join(tensor.name.split(".")[:2])
        numbered = _BLOCK.match(tensor.name)
        place = network, numbered[0] if numbered else ""
        found[place] = found.get(place, Weights()) + _of_tensor(tensor, part)
    return found


def _of_tensor(tensor: Tensor, part: str) -> Weights:
    numbers = math.prod(tensor.shape)
    is_layer = len(tensor.shape) > 1 and part in _NETWORKS and not _WHOLE.search(tensor.name)
    is_packed = tensor.dtype in _FP8 or (tensor.dtype in BLOCKS and tensor.dtype not in _PLAIN)
    if tensor.dtype[0] in "UI" and not tensor.dtype.startswith("IQ"):
        return Weights(packed_bytes=tensor.end - tensor.start)
    if is_packed and is_layer:
        return Weights(packed_bytes=tensor.end - tensor.start)
    return Weights(layers=numbers) if is_layer else Weights(others=numbers)
