"""A loaded upscaler, as the engine sees it: its drawings are pictures that are being enlarged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from craft_protos.dispatch import Dispatch
from craft_protos.reasons import CraftError

from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Before, HalfDone
from craftd.worker.inputs.canvases import Canvases
from craftd.worker.output.picture import Pixels
from craftd.worker.upscaling.enlarging import Enlarging
from craftd.worker.upscaling.network import Network
from craftd.worker.upscaling.tiles import OVERLAP

_SIDES = {"cpu": 256}  # of a tile, in pixels of what is enlarged: cancelling waits for one
_SIDE = 512
_LEAST_SIDE = 2 * OVERLAP


class Upscaler:
    """A Runner. Jobs without a stage before begin from their start picture."""

    pipe: Any = None
    weights = ""
    notice = ""
    is_tiled = False  # what tiles make is what the whole would

    def __init__(self, network: Network | None, canvases: Canvases, device: str = "cpu") -> None:
        """`network`: None for Lanczos. `canvases`: the pictures that jobs without any before them enlarge."""
        self.network = network
        self.side = _SIDES.get(device, _SIDE)
        self.precision = "fp32" if network is None else network.precision
        self.resident_bytes = 0 if network is None else network.size_bytes
        self._canvases = canvases

    @property
    def is_reading(self) -> bool:
        return self._canvases.is_reading

    def remarks(self, job: Dispatch) -> Sequence[str]:
        return self._canvases.remarks(job)

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        return self._canvases.want(jobs)

    def is_ready(self, job: Dispatch) -> bool:
        return self._canvases.is_ready(job)

    def begin(self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Before | None = None) -> Enlarging:
        assert not isinstance(made, HalfDone), "only a model that denoises goes on with latents"
        begins = self._canvases.get(job).base if made is None else made.pixels
        if made is not None and made.size is not None:
            return Enlarging(self, begins, made.size)
        assert job.drawing.upscale is not None, "a stage that enlarges knows how far"
        return Enlarging(self, begins, job.drawing.upscale.size_of(begins.shape[1], begins.shape[0]))

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return len(drawings)

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        for one in drawings:
            assert isinstance(one, Enlarging)
            one.advance()
        return [None] * len(drawings)

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        return [one.pixels for one in drawings if isinstance(one, Enlarging)]

    def offload(self) -> bool:
        """Smaller tiles, which take less memory."""
        if self.network is None or self.network.is_whole or self.side <= _LEAST_SIDE:
            return False
        self.side = max(_LEAST_SIDE, self.side // 2)
        return True

    def tile(self) -> bool:
        return False

    def close(self) -> None:
        self._canvases.close()
