"""Whether numbers are finite, by their bits: no library decodes a stranger's tensors here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Plane:
    """One byte of each number: 1 in `table` for the values that NaN and infinity have there."""

    place: int  # little-endian: 0 is the lowest
    table: bytes


def _plane(place: int, is_hit: Callable[[int], bool]) -> _Plane:
    return _Plane(place, bytes(map(is_hit, range(256))))


def _all_of(mask: int) -> Callable[[int], bool]:
    return lambda byte: byte & mask == mask


# dtype -> (bytes of a number, what all must hold for it to be NaN or infinite)
_SINGLE = (4, (_plane(3, _all_of(0x7F)), _plane(2, _all_of(0x80))))
_FORMS: dict[str, tuple[int, tuple[_Plane, ...]]] = {
    "F64": (8, (_plane(7, _all_of(0x7F)), _plane(6, _all_of(0xF0)))),
    "F32": _SINGLE,
    "C64": _SINGLE,
    "F16": (2, (_plane(1, _all_of(0x7C)),)),
    "BF16": (2, (_plane(1, _all_of(0x7F)), _plane(0, _all_of(0x80)))),
    "F8_E5M2": (1, (_plane(0, _all_of(0x7C)),)),
    "F8_E4M3": (1, (_plane(0, _all_of(0x7F)),)),  # without an infinity
    "F8_E4M3FNUZ": (1, (_plane(0, lambda byte: byte == 0x80),)),
    "F8_E5M2FNUZ": (1, (_plane(0, lambda byte: byte == 0x80),)),
    "F8_E8M0": (1, (_plane(0, lambda byte: byte == 0xFF),)),
}


def is_finite(dtype: str, data: bytes) -> bool:
    """`data`: whole numbers of `dtype`, little-endian. Integers are always."""
    size, planes = _FORMS.get(dtype, (1, ()))
    if not planes:
        return True
    hits: int | None = None
    for plane in planes:
        found = data[plane.place :: size].translate(plane.table)
        if b"\1" not in found:
            return True  # the usual end, at the first plane
        number = int.from_bytes(found, "little")
        hits = number if hits is None else hits & number
    return hits == 0
