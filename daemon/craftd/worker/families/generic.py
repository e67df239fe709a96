"""Any other diffusers text-to-image pipeline: its own `__call__`, in a thread that takes turns with the engine.

The thread runs only while it holds the baton: from `advance` to its next step callback. A pipeline
without a callback runs from its first `advance` to its end.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from craft_protos.reasons import CraftError
from PIL import Image

from craftd.worker import samplers
from craftd.worker.lora.residents import NONE, Applied, AppliedLora, Residents
from craftd.worker.messages import Draw
from craftd.worker.picture import Pixels
from craftd.worker.row import Drawing


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
        residents: Residents,
        applied: Applied,
    ) -> None:
        self.of = steps
        self._residents, self._applied = residents, applied
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
        return self._applied.told

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

    def close(self) -> None:
        if self._thread.is_alive() and not self.is_done:
            self._is_stopped = True
            self._hand_over()
            self._thread.join()
        applied, self._applied = self._applied, NONE
        self._residents.release(applied)

    def at_step(self, step: int) -> None:
        """In the pipeline's thread: a step is done, wait for the next turn."""
        self.step = min(step, self.of)
        self._back.release()
        self._go.acquire()
        if self._is_stopped:
            raise Stopped

    def _hand_over(self) -> None:
        with self._residents.running(self._applied):
            self._go.release()
            self._back.acquire()

    def _run(self, call: Any, arguments: dict[str, Any]) -> None:
        self._go.acquire()
        try:
            pixels = _pixels(call(**arguments).images[0])
            self.step = self.of
            self.result = pixels
        except Stopped:
            pass
        except BaseException as exc:  # crosses to the engine's thread, which raises it again
            self._error = exc
        finally:
            self._back.release()


class PipelineRunner:
    """The runner over a whole pipeline."""

    is_tiled = False

    def __init__(
        self, pipe: Any, residents: Residents, *, precision: str, resident_bytes: int, device: torch.device
    ) -> None:
        self.pipe: Any = None  # its weights are not shared
        self._pipe = pipe
        self._residents = residents
        self._accepts = inspect.signature(pipe.__call__).parameters
        self._device = device
        self._check()
        self.precision = precision
        self._model_bytes = resident_bytes

    @property
    def resident_bytes(self) -> int:
        return self._model_bytes + self._residents.size_bytes

    @property
    def notice(self) -> str:
        if self._has("callback_on_step_end") or self._has("callback"):
            return ""
        return f"{type(self._pipe).__name__} cannot be interrupted between its steps: no progress, and cancel waits"

    @property
    def is_reading(self) -> bool:
        return self._residents.is_reading

    def want(self, jobs: Sequence[Draw]) -> Mapping[str, CraftError]:
        if self._takes_loras:
            return self._residents.want(jobs)
        name = type(self._pipe).__name__
        refused = CraftError("UNSUPPORTED_LORA", f"{name} takes no LoRAs", "leave the LoRAs out, or use another model")
        return {job.job_id: refused for job in jobs}

    def is_ready(self, job: Draw) -> bool:
        return self._residents.is_ready(job)

    def begin(self, job: Draw, seed: int) -> PipelineRun:
        pipe = copy.copy(self._pipe)
        pipe.set_progress_bar_config(disable=True)
        scheduler_name = self._set_sampler(pipe, job.sampler)
        arguments = self._arguments(job, seed)
        applied, cost = self._residents.acquire(job), job.width * job.height * 2
        held: dict[str, Any] = {"residents": self._residents, "applied": applied}
        run = PipelineRun(pipe.__call__, arguments, job.steps, cost, scheduler_name, **held)
        order = getattr(getattr(pipe, "scheduler", None), "order", 1)
        self._attach(arguments, run, order)
        return run

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        return len(drawings)

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        for run in _ours(drawings):
            run.advance()
        return [None] * len(drawings)

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]:
        return [run.result for run in _ours(drawings) if run.result is not None]

    def offload(self) -> bool:
        if self._device.type != "cuda":
            return False
        self._pipe.enable_model_cpu_offload(device=self._device)
        return True

    def tile(self) -> bool:
        enable = getattr(getattr(self._pipe, "vae", None), "enable_tiling", None)
        if enable is None:
            return False
        enable()
        self.is_tiled = True
        return True

    def close(self) -> None:
        self._residents.close()

    @property
    def _takes_loras(self) -> bool:
        return hasattr(self._pipe, "lora_state_dict")

    def _has(self, name: str) -> bool:
        return name in self._accepts

    def _check(self) -> None:
        """Raises UNSUPPORTED_MODEL for a pipeline that needs more than a text."""
        name = type(self._pipe).__name__
        wanting = [
            key
            for key, parameter in self._accepts.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
            and key not in ("prompt", "height", "width")
        ]
        if not self._has("prompt") or wanting or self._has("image"):
            need = "has no prompt" if not self._has("prompt") else f"needs {', '.join(wanting) or 'an image'}"
            raise CraftError(
                "UNSUPPORTED_MODEL", f"{name} {need}: craft draws from text alone", "use a text-to-image model"
            )

    def _set_sampler(self, pipe: Any, sampler: str) -> str:
        own = getattr(pipe, "scheduler", None)
        if own is None:
            return ""
        pipe.scheduler = samplers.build(sampler, own)
        return type(pipe.scheduler).__name__

    def _arguments(self, job: Draw, seed: int) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "prompt": job.prompt,
            "negative_prompt": job.negative_prompt or None,
            "width": job.width,
            "height": job.height,
            "num_inference_steps": job.steps,
            "guidance_scale": job.guidance_scale,
            "generator": torch.Generator("cpu").manual_seed(seed),
        }
        return {key: value for key, value in wanted.items() if self._has(key) and value is not None}

    def _attach(self, arguments: dict[str, Any], run: PipelineRun, order: int) -> None:
        def at_step_end(_pipe: Any, i: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            run.at_step(-(-(i + 1) // order))
            return kwargs

        def legacy(i: int, _timestep: Any, _latents: Any) -> None:
            run.at_step(i + 1)

        if self._has("callback_on_step_end"):
            arguments["callback_on_step_end"] = at_step_end
        elif self._has("callback"):
            arguments |= (
                {"callback": legacy, "callback_steps": 1} if self._has("callback_steps") else {"callback": legacy}
            )


def _ours(drawings: Sequence[Drawing]) -> list[PipelineRun]:
    runs = [drawing for drawing in drawings if isinstance(drawing, PipelineRun)]
    assert len(runs) == len(drawings)
    return runs


def _pixels(image: Any) -> Pixels:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    return array if array.dtype == np.uint8 else (array * 255).round().astype(np.uint8)
