"""What a job draws on, made of its start picture and mask; and how what was drawn becomes the picture asked for.

Where a mask says so, only a part of the start is drawn anew: the rest of the picture is the start's own pixels, to the
bit where it has the size that is asked for. Models see what shines through as white, as AUTOMATIC1111 has it. A
picture that is drawn as a whole is opaque; of one that is drawn in part, the rest keeps its transparency.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from craft_protos.dispatch import Dispatch, File
from craft_protos.generate import GenerateSpec, Mask, Start
from craft_protos.reasons import CraftError
from PIL import Image

from craftd.worker.inputs import masks
from craftd.worker.inputs.fitting import Box, Size, edged, place, rounded_up
from craftd.worker.inputs.masks import Levels
from craftd.worker.inputs.reading import read_mask, read_start
from craftd.worker.output.picture import Pixels

CanvasKey = tuple[Start, Mask | None, Size, int]


@dataclass(frozen=True)
class Paste:
    """Where what was drawn goes: the canvas's part `shown` into the picture's `box`, as far as the mask is white."""

    mask: Levels  # of the picture
    shown: Box
    box: Box

    def onto(self, base: Pixels, drawn: Pixels) -> Pixels:
        part = Image.fromarray(drawn).crop(self.shown)
        left, top, right, bottom = self.box
        size = right - left, bottom - top
        if part.size != size:
            part = part.resize(size, Image.Resampling.LANCZOS)
        pixels = base.copy()
        within = np.s_[top:bottom, left:right]
        pixels[within] = _mixed(pixels[within], np.asarray(part), self.mask[within])
        return pixels


@dataclass(frozen=True)
class Canvas:
    """`pixels` are what the model draws over, `base` is the start in the size of the picture that is asked for.

    `mask` is of the canvas; None: all of it is drawn anew.
    """

    key: Hashable  # of canvases with the same pixels
    pixels: Pixels
    base: Pixels  # height, width, 3; or 4 where anything shines through
    mask: Levels | None = None
    paste: Paste | None = None  # None: what is drawn is the picture
    is_blank: bool = False  # the mask is black: nothing is drawn
    remarks: Sequence[str] = ()

    @property
    def size(self) -> Size:
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def size_bytes(self) -> int:
        held_masks = (self.mask, None if self.paste is None else self.paste.mask)
        return self.pixels.nbytes + self.base.nbytes + sum(mask.nbytes for mask in held_masks if mask is not None)

    @property
    def shines_through(self) -> bool:
        return bool(self.base.shape[2] > 3)

    def finished(self, drawn: Pixels) -> Pixels:
        return drawn if self.paste is None else self.paste.onto(self.base, drawn)


def of_made(pixels: Pixels) -> Canvas:
    """Of what was drawn before, to be drawn over as a whole."""
    picture = _opaque(Image.fromarray(pixels))
    return Canvas(object(), picture, picture)


def key_of(job: Dispatch, granularity: int) -> CanvasKey:
    """Equal for jobs that draw on the same canvas."""
    spec = job.drawing
    start = _start(spec)
    return replace(start, strength=None), spec.mask, (spec.width, spec.height), granularity


def prepare(files: Path, job: Dispatch, granularity: int) -> Canvas:
    """In any thread. Raises UNKNOWN_INPUT, BAD_INPUT, OUT_OF_MEMORY."""
    spec = job.drawing
    start, size = _start(spec), (spec.width, spec.height)
    picture, remarks = read_start(files, file_of(job, start.sha256))
    if spec.mask is None:
        canvas = _whole(picture, start, size)
    else:
        mask = masks.refined(read_mask(files, file_of(job, spec.mask.sha256)), spec.mask, picture.size)
        asked = _InPart(picture, mask, start, size, granularity)
        canvas = asked.over_all() if spec.mask.padding is None else asked.around(spec.mask.padding)
    return replace(canvas, remarks=remarks)


def _whole(picture: Image.Image, start: Start, size: Size) -> Canvas:
    base = place(picture.size, size, start.fit).laid(picture)
    return Canvas((start.sha256, start.fit, size), _opaque(base), np.asarray(base))


@dataclass(frozen=True)
class _InPart:
    """A picture and a mask of its size, of which a canvas of `size` or a little more is to be made."""

    picture: Image.Image
    mask: Image.Image
    start: Start
    size: Size
    granularity: int

    def over_all(self) -> Canvas:
        """Of the whole picture, which comes to that size."""
        placement = place(self.picture.size, self.size, self.start.fit)
        base, mask = placement.laid(self.picture), placement.laid(self.mask)
        fitted = placement.laid(self.mask, Image.Resampling.BILINEAR)  # others ring
        return Canvas(
            (self.start.sha256, self.start.fit, self.size, self.granularity),
            _opaque(edged(base, self._margins)),
            np.asarray(base),
            _unless_white(edged(mask, self._margins)),
            Paste(np.asarray(fitted), (0, 0, *self.size), (0, 0, *self.size)),
            is_blank=fitted.getbbox() is None,
        )

    def around(self, padding: int) -> Canvas:
        """Of what lies around the white alone, enlarged to that size; the picture keeps its own."""
        base = np.asarray(self.picture)
        box = masks.region(self.mask, padding, self.size)
        if box is None:
            return Canvas((self.start.sha256,), _opaque(self.picture), base, is_blank=True)
        placement = place((box[2] - box[0], box[3] - box[1]), self.size, "fill")
        pixels, mask = placement.laid(self.picture.crop(box)), placement.laid(self.mask.crop(box))
        return Canvas(
            (self.start.sha256, box, self.size, self.granularity),
            _opaque(edged(pixels, self._margins)),
            base,
            _unless_white(edged(mask, self._margins)),
            Paste(np.asarray(self.mask), placement.box, box),
        )

    @property
    def _margins(self) -> Box:
        """On the right and below, up to a size that the model can draw."""
        width, height = rounded_up(self.size, self.granularity)
        return 0, 0, width - self.size[0], height - self.size[1]


def _unless_white(mask: Image.Image) -> Levels | None:
    return None if mask.getextrema() == (255, 255) else np.asarray(mask)


def opaque(picture: Image.Image, colour: str = "white") -> Image.Image:
    """As a model sees it: over that colour."""
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGBA", picture.size, colour)
    return Image.alpha_composite(ground, picture).convert("RGB")


def _opaque(picture: Image.Image) -> Pixels:
    return np.asarray(opaque(picture))


def _mixed(base: Pixels, drawn: Pixels, mask: Levels) -> Pixels:
    """What was drawn, as far as the mask is white, over what was there; where it is black, that to the bit."""
    mixed = base.copy()
    touched = mask > 0
    above, below = drawn[touched].astype(np.uint32), base[touched].astype(np.uint32)
    share = mask[touched].astype(np.uint32)[:, None]
    if base.shape[2] == 3:
        mixed[touched] = (share * above + (255 - share) * below + 127) // 255
        return mixed
    weights = share * 255, (255 - share) * below[:, 3:]
    whole = weights[0] + weights[1]  # of 255 times 255; above nought, as the mask is
    colours = (weights[0] * above + weights[1] * below[:, :3] + whole // 2) // whole
    mixed[touched] = np.concatenate([colours, (whole + 127) // 255], axis=1)
    return mixed


def _start(spec: GenerateSpec) -> Start:
    assert spec.start is not None, "a canvas is of a start picture"
    return spec.start


def file_of(job: Dispatch, sha256: str) -> File:
    """As the front has listed it. Raises UNKNOWN_INPUT for any other, though the store may hold it for someone else."""
    for file in job.inputs:
        if file.sha256 == sha256:
            return file
    raise CraftError("UNKNOWN_INPUT", f"the picture {sha256[:12]} is none of the job's", "send the picture again")
