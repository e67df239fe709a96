"""What control models are shown: a job's control pictures, laid out as its canvas is, and what is made of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from craft_protos.dispatch import Dispatch
from craft_protos.generate import Control
from PIL import Image

from craftd.worker.inputs import maps, masks
from craftd.worker.inputs.ahead import ReadAhead
from craftd.worker.inputs.canvas import file_of, opaque
from craftd.worker.inputs.fitting import Box, Size, edged, place, rounded_up
from craftd.worker.inputs.reading import read_mask, read_start
from craftd.worker.lora.reader import Reader
from craftd.worker.output.picture import Pixels


@dataclass(frozen=True)
class ControlPicture:
    """One of them. Pixels are height, width, 3, of the size that is drawn."""

    key: Hashable  # of those with the same pixels
    pixels: Pixels


@dataclass(frozen=True)
class ControlPictures:
    """All of a job's, in the order of its controls."""

    pictures: tuple[ControlPicture, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(one.pixels.nbytes for one in self.pictures)


@dataclass(frozen=True)
class Framing:
    """How a picture that shows what the start shows comes to the size that is drawn.

    `size`: asked for. `margins`: on its right and below, up to a size that the model can draw. `box`: the part of the
    start, which has the size `own`, that is drawn; None: all of it.
    """

    size: Size
    margins: Box = (0, 0, 0, 0)
    own: Size = (0, 0)
    box: Box | None = None

    def laid(self, picture: Image.Image, fit: str) -> Image.Image:
        """The picture in the size that is drawn; to the bit where it has it already."""
        if self.box is None:
            return edged(place(picture.size, self.size, fit).laid(picture), self.margins)
        part = place(picture.size, self.own, fit).laid(picture).crop(self.box)
        return edged(place(part.size, self.size, "fill").laid(part), self.margins)


class ControlsAhead(ReadAhead[ControlPictures]):
    """`granularity`: sides of what the model draws are multiples of it."""

    def __init__(self, reader: Reader, granularity: int) -> None:
        super().__init__(reader)
        self._granularity = granularity

    def of(self, job: Dispatch) -> ControlPictures:
        return self.get(job) if self._is_needed(job) else ControlPictures()

    def _key(self, job: Dispatch) -> Hashable:
        spec = job.drawing
        shown = tuple((one.sha256, one.kind, one.fit) for one in spec.controls)
        part = None if spec.start is None or not _is_in_part(job) else (spec.start.sha256, spec.mask)
        return shown, (spec.width, spec.height), spec.mask is not None, part

    def _is_needed(self, job: Dispatch) -> bool:
        return bool(job.drawing.controls)

    def _prepared(self, job: Dispatch) -> ControlPictures:
        files, framing = self._reader.files, framing_of(self._reader.files, job, self._granularity)
        return ControlPictures(tuple(_made(files, job, one, framing) for one in job.drawing.controls))


def framing_of(files: Path, job: Dispatch, granularity: int) -> Framing:
    """As the job's canvas is laid out, where it has one. Raises UNKNOWN_INPUT, BAD_INPUT."""
    spec, size = job.drawing, (job.drawing.width, job.drawing.height)
    if spec.start is None or spec.mask is None:
        return Framing(size)
    width, height = rounded_up(size, granularity)
    margins = 0, 0, width - size[0], height - size[1]
    if spec.mask.padding is None:
        return Framing(size, margins)
    start, _ = read_start(files, file_of(job, spec.start.sha256))
    mask = masks.refined(read_mask(files, file_of(job, spec.mask.sha256)), spec.mask, start.size)
    return Framing(size, margins, start.size, masks.region(mask, spec.mask.padding, size))


def _made(files: Path, job: Dispatch, control: Control, framing: Framing) -> ControlPicture:
    picture, _ = read_start(files, file_of(job, control.sha256))
    pixels = np.asarray(framing.laid(opaque(picture, maps.ground_of(control.kind)), control.fit))
    return ControlPicture((control.sha256, control.kind, control.fit, framing), maps.made_of(control.kind, pixels))


def _is_in_part(job: Dispatch) -> bool:
    mask = job.drawing.mask
    return mask is not None and mask.padding is not None
