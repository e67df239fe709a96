"""LyCORIS' products by their shapes: LoHa (Hadamard) and LoKr (Kronecker), without torch.

Of a LoHa the parts are "up", "down" and "up_2", "down_2", with "mid" and "mid_2" in Tucker form; of a LoKr "kron"
(or "kron_a" and "kron_b") for the first factor, "up" and "down", with "mid" in Tucker form, or "whole" for the second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]  # part -> shape

_FIRST = ("up", "down", "mid")
_SECOND = ("up_2", "down_2", "mid_2")
_MOST_DIMENSIONS = 4
_MOST_RANK = 4096  # in Tucker form, where a matrix of rank times inputs is made


def is_one(parts: Mapping[str, str]) -> bool:
    """Whether a layer's parts are of a LoHa or a LoKr."""
    return any(part.startswith(("kron", "whole")) or part in _SECOND for part in parts)


def is_kronecker(parts: Mapping[str, str]) -> bool:
    return any(part.startswith(("kron", "whole")) for part in parts)


def rank(shapes: Shapes) -> int:
    """What alpha is divided by: 0 where a LoKr has both of its factors whole, and alpha does not count."""
    named = shapes.get("down") or shapes.get("kron_b")
    return named[0] if named else 0


def makes(shapes: Shapes, layer: Shape) -> bool:
    """Whether the parts make a change of exactly this shape: told before anything is computed."""
    if any(not 2 <= len(shape) <= _MOST_DIMENSIONS or not all(shape) for shape in _of_product(shapes)):
        return False
    if not is_kronecker(dict.fromkeys(shapes, "")):
        first, second = (_product(shapes, names, layer[0], layer[1:]) for names in (_FIRST, _SECOND))
        return first and second
    first_factor = None if shapes.keys() & set(_SECOND) else _kron(shapes)
    if first_factor is None or layer[0] % first_factor[0] or layer[1] % first_factor[1]:
        return False
    outputs, inputs = layer[0] // first_factor[0], layer[1] // first_factor[1]
    if "whole" in shapes:
        return not (shapes.keys() & set(_FIRST)) and _sides(shapes["whole"]) == _sides((outputs, inputs, *layer[2:]))
    return _product(shapes, _FIRST, outputs, (inputs, *layer[2:]))


def _of_product(shapes: Shapes) -> list[Shape]:
    return [shape for part, shape in shapes.items() if part not in ("alpha", "dora_scale")]


def _kron(shapes: Shapes) -> Shape | None:
    if "kron" in shapes:
        whole = shapes["kron"]
        return whole if len(whole) == 2 and not shapes.keys() & {"kron_a", "kron_b"} else None
    a, b = shapes.get("kron_a", ()), shapes.get("kron_b", ())
    return (a[0], b[1]) if len(a) == len(b) == 2 and a[1] == b[0] else None


def _product(shapes: Shapes, names: tuple[str, str, str], outputs: int, inputs: Shape) -> bool:
    up, down, mid = (shapes.get(name, ()) for name in names)
    if not up or not down:
        return False
    if not mid:
        return up == (outputs, down[0]) and math.prod(down[1:]) == math.prod(inputs)
    # In Tucker form both matrices have the rank first, and the kernel lies between them.
    return (
        len(mid) == _MOST_DIMENSIONS
        and max(mid[:2]) <= _MOST_RANK
        and up == (mid[0], outputs)
        and down == (mid[1], inputs[0])
        and mid[2:] == inputs[1:]
    )


def _sides(shape: Shape) -> list[int]:
    return [*shape[:2], *(side for side in shape[2:] if side != 1)]
