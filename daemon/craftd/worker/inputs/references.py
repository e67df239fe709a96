"""The pictures that a model is shown, in the sizes that it is shown them in, and their order."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from craft_protos.dispatch import Dispatch

from craftd.worker.inputs.ahead import ReadAhead
from craftd.worker.inputs.canvas import file_of, opaque
from craftd.worker.inputs.fitting import Placement, Size
from craftd.worker.inputs.reading import read_start
from craftd.worker.lora.reader import Reader
from craftd.worker.output.picture import Pixels


@dataclass(frozen=True)
class Layout:
    """How the parts of a model are shown a picture; `read`: its text encoder, where that sees any."""

    encoded: Placement
    read: Placement | None = None


Lay = Callable[[Size], Layout]  # by the picture's own size; raises INVALID_FIELD where the model takes none


@dataclass(frozen=True)
class Reference:
    """One such picture. Pixels are height, width, 3; what shines through is white."""

    key: Hashable  # of references with the same pixels
    pixels: Pixels
    read: Pixels | None = None


@dataclass(frozen=True)
class Shown:
    """All of a job's."""

    references: tuple[Reference, ...] = ()

    @property
    def key(self) -> Hashable:
        return tuple(one.key for one in self.references)

    @property
    def size_bytes(self) -> int:
        held = (pixels for one in self.references for pixels in (one.pixels, one.read))
        return sum(pixels.nbytes for pixels in held if pixels is not None)


NOTHING = Shown()


class References(ReadAhead[Shown]):
    """`lay`: the model's family's."""

    def __init__(self, reader: Reader, lay: Lay) -> None:
        super().__init__(reader)
        self._lay = lay

    def of(self, job: Dispatch) -> Shown:
        return self.get(job) if self._is_needed(job) else NOTHING

    def _key(self, job: Dispatch) -> Hashable:
        return job.drawing.references

    def _is_needed(self, job: Dispatch) -> bool:
        return bool(job.drawing.references)

    def _prepared(self, job: Dispatch) -> Shown:
        files = self._reader.files
        return Shown(tuple(_reference(files, job, one.sha256, self._lay) for one in job.drawing.references))


def _reference(files: Path, job: Dispatch, sha256: str, lay: Lay) -> Reference:
    picture, _ = read_start(files, file_of(job, sha256))
    seen = opaque(picture)
    layout = lay(seen.size)
    read = None if layout.read is None else np.asarray(layout.read.laid(seen))
    return Reference(sha256, np.asarray(layout.encoded.laid(seen)), read)
