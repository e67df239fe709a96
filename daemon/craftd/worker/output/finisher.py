"""Last steps of an image, away from the engine's thread: latents -> pixels -> a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import diffusers
import torch
from craft_protos import formats
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

from craftd.worker.engine.row import Row
from craftd.worker.engine.stages import HalfDone
from craftd.worker.models import memory
from craftd.worker.models.memory import Rung
from craftd.worker.models.model_cache import LoadedModel
from craftd.worker.output import picture, provenance
from craftd.worker.output.picture import Pixels
from craftd.worker.output.provenance import Circumstances
from craftd.worker.process.device import Device
from craftd.worker.process.reporter import Picture

_log = logging.getLogger(__name__)

_DECODED_PIXELS = 4 * 512 * 512  # in one call of the autoencoder


@dataclass(frozen=True)
class Finished:
    """Posted when a row's file is there, or cannot be."""

    row: Row
    loaded: LoadedModel
    picture: Picture | None = None
    made: Pixels | HalfDone | None = None  # where another stage follows
    error: CraftError | None = None


class Finisher:
    """One thread decodes, two encode; on a CPU the engine's own thread decodes.

    On a CUDA device all threads' work stands in one line, so that what is decoded has been drawn by then.
    A second thread would bring a second team of compute threads, and two teams on the same
    cores take longer than one after the other.
    """

    def __init__(self, device: Device, post: Callable[[Finished | Exception], None]) -> None:
        self._device = device
        self._post = post
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._encoding = ThreadPoolExecutor(2, thread_name_prefix="encode")

    def finish(self, rows: Sequence[Row], loaded: LoadedModel) -> None:
        """Take over rows whose last step is done."""
        if self._device.is_cpu:
            self._decode(rows, loaded)
        else:
            self._decoding.submit(self._finish, rows, loaded)

    def _finish(self, rows: Sequence[Row], loaded: LoadedModel) -> None:
        try:
            self._decode(rows, loaded)
        except Exception as exc:  # the task's outermost: the engine raises it again, which ends the process
            self._post(exc)

    def _decode(self, rows: Sequence[Row], loaded: LoadedModel) -> None:
        for some in _portions(rows):
            for row, result in zip(some, render(some, loaded), strict=True):
                if isinstance(result, CraftError):
                    self._post(Finished(row, loaded, error=result))
                else:
                    self._encoding.submit(self._encode, row, loaded, result)

    def _encode(self, row: Row, loaded: LoadedModel, made: Pixels | HalfDone) -> None:
        try:
            finished = made if isinstance(made, HalfDone) else row.drawn.finished(made)
            if row.how is None:
                row.how, row.applied = self._circumstances(row, loaded), row.drawn.loras
            file = None if isinstance(finished, HalfDone) or not row.is_last else self._file(row, row.how, finished)
        except Exception as exc:  # the task's outermost: the row must hear of it
            self._post(Finished(row, loaded, error=as_craft_error(exc)))
        else:
            self._post(Finished(row, loaded, picture=file, made=None if file else finished))

    def _circumstances(self, row: Row, loaded: LoadedModel) -> Circumstances:
        return Circumstances(
            scheduler=row.drawn.scheduler_name,
            device=str(self._device.place),
            precision=loaded.runner.precision,
            weights=loaded.runner.weights,
            versions={"craft": __version__, "torch": torch.__version__, "diffusers": diffusers.__version__},
            batch=row.batch,
            vae_tiling=loaded.runner.is_tiled,
        )

    def _file(self, row: Row, how: Circumstances, pixels: Pixels) -> Picture:
        text, infotext = provenance.texts(row.job, row.index, row.applied, replace(how, batch=row.batch))
        data = picture.encode(pixels, row.job.drawing.format, text, infotext)
        height, width = pixels.shape[:2]
        return Picture(data, formats.FORMATS[row.job.drawing.format].media_type, text, width, height)


def render(rows: Sequence[Row], loaded: LoadedModel) -> list[Pixels | HalfDone | CraftError]:
    """Pixels of each row, or why there are none; falls down the memory ladder where it must."""
    try:
        with memory.recognised():
            return list(loaded.runner.render([row.drawn for row in rows]))
    except memory.OUT_OF_MEMORY:
        rung = loaded.ladder.descend(len(rows), is_decoding=True)
        if rung is Rung.FAIL:
            spec = rows[0].asked.drawing
            return [memory.too_little(f"decoding {spec.width}x{spec.height} pixels")]
        _log.warning("out of memory while decoding %d rows: %s", len(rows), rung.name)
    except Exception as exc:  # one row's failure must not take the others along
        if len(rows) == 1:
            return [as_craft_error(exc)]
    half = len(rows) // 2
    return render(rows[:half], loaded) + render(rows[half:], loaded) if half else render(rows, loaded)


def as_craft_error(exc: Exception, doing: str = "drawing") -> CraftError:
    """What a user hears of a library's exception; one that leaves the device unusable ends the process."""
    if isinstance(exc, torch.AcceleratorError):
        raise exc
    if isinstance(exc, CraftError):
        return exc
    _log.error("a job failed", exc_info=exc)
    line = (str(exc).splitlines() or [""])[0]
    return CraftError("JOB_FAILED", f"{doing} failed: {type(exc).__name__}: {line}", "`craft daemon logs` has more")


def _portions(rows: Sequence[Row]) -> list[list[Row]]:
    spec = rows[0].asked.drawing
    size = max(1, _DECODED_PIXELS // max(1, spec.width * spec.height))
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]
