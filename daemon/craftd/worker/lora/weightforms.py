"""Changes that are of a layer's own weight, or a whole difference of it, by their shapes, without torch.

Full differences ("diff", and "diff_b" of the bias), (IA)3 ("ia3", "on_input"), diag-OFT and BOFT ("oft_blocks",
"rescale") and GLoRA ("a1", "a2", "b1", "b2"), as LyCORIS and kohya's scripts save them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # part -> shape

DIFF, IA3, OFT, GLORA, BIAS = "diff", "ia3", "oft", "glora", "bias"
_WANTED = {DIFF: {"diff"}, IA3: {"ia3", "on_input"}, OFT: {"oft_blocks"}, GLORA: {"a1", "a2", "b1", "b2"}, BIAS: set()}
_BESIDE = {"alpha", "diff_b"}  # what any of them may have, and OFT its rescale
_MOST_RANK = 4096
_MOST_FACTORS = 20  # of BOFT
_MOST_BLOCK = 4096  # outputs of OFT's blocks, each of which is inverted


def of(parts: Iterable[str]) -> str:
    """The form that a layer's parts are of; "" for what is none of these."""
    found = set(parts)
    for form, wanted in _WANTED.items():
        if found & wanted:
            return form
    return BIAS if "diff_b" in found and found <= _BESIDE else ""


def complaint(form: str, parts: Iterable[str]) -> str:
    """Why the parts are no change of this form; "" where they are."""
    found = set(parts)
    if _WANTED[form] - found:
        return "the other half of it is missing"
    more = found - _WANTED[form] - _BESIDE - ({"rescale"} if form == OFT else set())
    return "it is changed in two ways at once" if more else ""


def rank(form: str, shapes: Shapes) -> int:
    """What alpha is divided by: 0 where it does not count so."""
    return shapes["b2"][0] if form == GLORA and shapes["b2"] else 0


def makes(form: str, shapes: Shapes, layer: Shape, *, is_one_layer: bool) -> bool:
    """Whether the parts make a change of exactly this shape: told before anything is computed."""
    if form == DIFF:
        return _sides(shapes["diff"]) == _sides(layer)
    if form == IA3:
        return math.prod(shapes["on_input"]) == 1 and math.prod(shapes["ia3"]) in layer[:2]
    if form == OFT:
        return is_one_layer and _turns(shapes, layer[0])
    return form == BIAS or _is_general(shapes, layer)


def _turns(shapes: Shapes, outputs: int) -> bool:
    """Blocks by their sides; before these BOFT's factors, whose outputs lie so far apart at last."""
    *factors, count, side, other = shapes["oft_blocks"] if len(shapes["oft_blocks"]) > 2 else (0, 0, 0)
    is_butterfly = not factors or (
        len(factors) == 1
        and side % 2 == 0
        and 0 < factors[0] <= _MOST_FACTORS
        and outputs % (2 ** (factors[0] - 1) * side) == 0
    )
    return (
        0 < side == other <= _MOST_BLOCK
        and is_butterfly
        and count * side == outputs
        and ("rescale" not in shapes or math.prod(shapes["rescale"]) == outputs)
    )


def _is_general(shapes: Shapes, layer: Shape) -> bool:
    a1, a2, b1, b2 = (shapes[part] for part in ("a1", "a2", "b1", "b2"))
    if min(map(len, (a1, a2, b1, b2))) < 2 or not 0 < b2[0] <= _MOST_RANK:
        return False
    outputs, inputs = layer[:2]
    products = math.prod(a1) == inputs * b2[0] == math.prod(a2) and math.prod(b1) == outputs * b2[0]
    first = a1[:2] == (inputs, b2[0]) and a2[:2] == (b2[0], inputs) and b1[:2] == (outputs, b2[0])
    return products and first and _sides(b2) == _sides((b2[0], *layer[1:]))


def _sides(shape: Shape) -> list[int]:
    return [*shape[:2], *(side for side in shape[2:] if side != 1)]
