"""What was sent, sorted into pictures to train on, each with its mask, and what is left out of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from craft_protos.train import Picture

from craftd.datasets.dataset import MOST_SLENDER, SMALLEST_SIDE, BadPicture, Incoming
from craftd.store.contents import Received
from craftd.workers.pictures import PictureFindings

_MOST_SKEWED = 0.02  # how far a mask's form may be from its picture's

Checked = tuple[Incoming, Received, PictureFindings]


@dataclass(frozen=True)
class Good:
    picture: Picture
    files: tuple[Received, ...]


def sort(checked: Iterable[Checked]) -> tuple[list[Good], list[BadPicture], list[BadPicture]]:
    """(those to train on, those left out, those of them that are bad). A picture goes with its mask."""
    checked = list(checked)
    masks = {incoming.mask_of: (incoming, received, found) for incoming, received, found in checked if incoming.mask_of}
    good: dict[str, Good] = {}
    bad: list[BadPicture] = []
    twins: list[BadPicture] = []
    for incoming, received, found in checked:
        if incoming.mask_of:
            continue
        mask = masks.get(incoming.file_name)
        if why := found.why or _unfit(found) or _unfit_mask(mask, found):
            bad.append(BadPicture(incoming.file_name, why))
            continue
        made = _with_mask(_picture(incoming, received, found), received, mask)
        twin = good.setdefault(f"{found.pixels} {made.picture.mask_sha256} {made.picture.caption}", made)
        if twin is not made:
            twins.append(BadPicture(incoming.file_name, f"is the same picture as {twin.picture.file_name}"))
    return list(good.values()), bad + twins, bad


def _picture(incoming: Incoming, received: Received, found: PictureFindings) -> Picture:
    return Picture(
        incoming.file_name,
        received.sha256,
        received.size_bytes,
        found.width,
        found.height,
        incoming.caption.strip(),
        incoming.repeats,
    )


def _with_mask(picture: Picture, received: Received, mask: Checked | None) -> Good:
    if mask is None:
        return Good(picture, (received,))
    file = mask[1]
    return Good(replace(picture, mask_sha256=file.sha256, mask_bytes=file.size_bytes), (received, file))


def _unfit(found: PictureFindings) -> str:
    shorter, longer = sorted((found.width, found.height))
    if shorter < SMALLEST_SIDE:
        return f"is tiny: {found.width}x{found.height}; each side needs {SMALLEST_SIDE} pixels"
    if longer > MOST_SLENDER * shorter:
        return f"is too slender: {found.width}x{found.height}"
    return ""


def _unfit_mask(mask: Checked | None, found: PictureFindings) -> str:
    if mask is None:
        return ""
    incoming, _, seen = mask
    if seen.why:
        return f"has a mask, {incoming.file_name}, that {seen.why}"
    if abs(seen.width * found.height / (seen.height * found.width) - 1) > _MOST_SKEWED:
        return f"is {found.width}x{found.height}, and its mask, {incoming.file_name}, {seen.width}x{seen.height}"
    return ""
