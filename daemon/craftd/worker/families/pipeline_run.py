"""One picture on its way through a pipeline's own loop: a call, in a thread that takes turns with the engine.

The thread runs only while it holds the baton: from `advance` to the end of a step, as the pipeline tells it or its
scheduler. A pipeline that has neither runs from its first `advance` to its end.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from craft_protos.provenance import AppliedLora
from craft_protos.reasons import CraftError
from PIL import Image

from craftd.worker.families.randomness import Randomness
from craftd.worker.lora.adapter_manager import NONE, AdapterManager, Applied
from craftd.worker.output.picture import Pixels


class Stopped(BaseException):
    """Raised inside a pipeline whose image nobody wants any more; passes its `except Exception`."""


class PipelineRun:
    """One image: a call of the pipeline, and the baton."""

    def __init__(
        self,
        call: Any,
        arguments: dict[str, Any],
        steps: int,
        cost: int,
        scheduler_name: str,
        *,
        adapters: AdapterManager,
        applied: Applied,
        randomness: Randomness,
    ) -> None:
        self.of = steps
        self._adapters, self._applied, self._randomness = adapters, applied, randomness
        self.step = 0
        self.cost = cost
        self.scheduler_name = scheduler_name
        self.result: Pixels | None = None
        self._error: BaseException | None = None
        self._is_stopped = False
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(call, arguments), name="pipeline", daemon=True)

    @property
    def group(self) -> Hashable:
        return self

    @property
    def is_done(self) -> bool:
        return self.result is not None

    @property
    def loras(self) -> Sequence[AppliedLora]:
        return self._applied.report

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def preview(self) -> bytes:
        return b""

    def advance(self) -> None:
        """Let the pipeline run to its next callback, or to its end. Raises what it raised."""
        if not self._thread.is_alive():
            self._thread.start()
        self._hand_over()
        if self._error is not None or self.is_done:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def finished(self, pixels: Pixels) -> Pixels:
        return pixels

    def close(self) -> None:
        if self._thread.is_alive() and not self.is_done:
            self._is_stopped = True
            self._hand_over()
            self._thread.join()
        applied, self._applied = self._applied, NONE
        self._adapters.release(applied)

    def at_step(self, step: int) -> None:
        """In the pipeline's thread: a step is done, wait for the next turn."""
        self.step = min(step, self.of)
        self._back.release()
        self._go.acquire()
        if self._is_stopped:
            raise Stopped

    def _hand_over(self) -> None:
        with self._adapters.running(self._applied), self._randomness.in_place():
            self._go.release()
            self._back.acquire()

    def _run(self, call: Any, arguments: dict[str, Any]) -> None:
        self._go.acquire()
        try:
            made = call(**arguments)
            pixels = _pixels((made.image if hasattr(made, "image") else made.images)[0])
            _check_size(pixels, arguments)
            self.step = self.of
            self.result = pixels
        except Stopped:
            pass
        except BaseException as exc:  # crosses to the engine's thread, which raises it again
            self._error = exc
        finally:
            self._back.release()


def told_of(step: Callable[..., Any], run: PipelineRun, order: int) -> Callable[..., Any]:
    """A scheduler's step, after which the run waits for its next turn."""
    done = 0

    @functools.wraps(step)
    def stepped(*given: Any, **named: Any) -> Any:
        nonlocal done
        made = step(*given, **named)
        done += 1
        run.at_step(-(-done // order))
        return made

    return stepped


def _check_size(pixels: Pixels, arguments: dict[str, Any]) -> None:
    """Raises JOB_FAILED: some pipelines take what they are asked for as a hint."""
    height, width = pixels.shape[:2]
    wanted = arguments.get("width", width), arguments.get("height", height)
    if (width, height) != wanted:
        asked = "x".join(map(str, wanted))
        raise CraftError(
            "JOB_FAILED", f"the model's pipeline drew {width}x{height} where {asked} was asked for", "ask for that size"
        )


def _pixels(image: Any) -> Pixels:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    return array if array.dtype == np.uint8 else (array * 255).round().astype(np.uint8)
