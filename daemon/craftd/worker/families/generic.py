"""Any other diffusers text-to-image pipeline: its own loop, in a thread that takes turns with the engine."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from craft_protos.dispatch import Dispatch
from craft_protos.generate import A1111, PLAIN
from craft_protos.reasons import CraftError, invalid
from diffusers.pipelines.hidream_image.pipeline_hidream_image import HiDreamImagePipeline

from craftd.architectures import detect
from craftd.prompting import editing
from craftd.worker.engine.row import Drawing
from craftd.worker.engine.stages import Before
from craftd.worker.families import prompts, samplers
from craftd.worker.families.pipeline_run import PipelineRun, told_of
from craftd.worker.families.randomness import Randomness
from craftd.worker.lora.adapter_manager import AdapterManager
from craftd.worker.models.offload import Offloading
from craftd.worker.output.picture import Pixels

_STEPS_WITH_A_MIDDLE = 2  # of Sana Sprint, whose timestep between them is no even one
_ROUNDED = 1 + 1e-9  # so that a side is not cut off below what it was asked to be
_UNLIMITED_TOKENS = 100_000  # where a tokenizer has no limit, it says a number beyond this


class PipelineRunner:
    """The runner over a whole pipeline."""

    is_tiled = False

    def __init__(
        self,
        pipe: Any,
        adapters: AdapterManager,
        *,
        precision: str,
        resident_bytes: int,
        device: torch.device,
        weights: str = "",
        notice: str = "",
        offloading: Offloading | None = None,
    ) -> None:
        self.pipe: Any = None  # its weights are not shared
        self._pipe = pipe
        self._adapters = adapters
        self._accepts = self.parameters(pipe)
        self._device = device
        self._check()
        self.precision, self.weights, self._told = precision, weights, notice
        self._model_bytes = resident_bytes
        self._offloading = offloading

    @property
    def resident_bytes(self) -> int:
        return self._model_bytes + self._adapters.size_bytes

    @property
    def notice(self) -> str:
        if self._has("callback_on_step_end") or self._has("callback") or hasattr(self._scheduler, "step"):
            return self._told
        silent = f"{type(self._pipe).__name__} cannot be interrupted between its steps: no progress, and cancel waits"
        return "; ".join(filter(None, (self._told, silent)))

    @property
    def is_reading(self) -> bool:
        return self._adapters.is_reading

    def remarks(self, job: Dispatch) -> Sequence[str]:
        said, tokenizer = self._adapters.remarks(job), getattr(self._pipe, "tokenizer", None)
        for name, text in (("prompt", job.drawing.prompt), ("negative prompt", job.drawing.negative_prompt)):
            is_own = job.drawing.prompt_syntax not in (A1111, PLAIN)
            if is_own and any(fragment.weight != 1 for fragment in prompts.parse(text)):
                said.append(f"{type(self._pipe).__name__} reads the {name}'s weights as words")
            length = 0 if tokenizer is None else self._most_tokens(tokenizer)
            if length and (left_out := prompts.left_out(text, tokenizer, length)):
                said.append(f"it reads the {name}'s first {length} tokens, which leaves out {left_out}")
        return said

    def _most_tokens(self, tokenizer: Any) -> int:
        """0: as many as there are."""
        asked = self._accepts.get("max_sequence_length")
        most = asked.default if asked is not None else getattr(tokenizer, "model_max_length", 0)
        return most if isinstance(most, int) and 0 < most < _UNLIMITED_TOKENS else 0

    def want(self, jobs: Sequence[Dispatch]) -> Mapping[str, CraftError]:
        if self._takes_loras:
            return self._adapters.want(jobs)
        name = type(self._pipe).__name__
        refused = CraftError("UNSUPPORTED_LORA", f"{name} takes no LoRAs", "leave the LoRAs out, or use another model")
        return {job.job_id: refused for job in jobs if job.drawing.loras}

    def is_ready(self, job: Dispatch) -> bool:
        return self._adapters.is_ready(job)

    def begin(self, job: Dispatch, seed: int, networks: Mapping[str, Any], made: Before | None = None) -> PipelineRun:
        drawn_from = next((name for name in ("start", "references", "controls") if getattr(job.drawing, name)), "")
        if drawn_from:  # of an architecture that has a family, and is to be drawn without it
            why = f"{type(self._pipe).__name__}'s own loop draws from a prompt alone"
            raise invalid(drawn_from, why, "leave the picture out, or take a model that craft draws with by itself")
        pipe = copy.copy(self._pipe)
        pipe.set_progress_bar_config(disable=True)
        _draw_as_asked(pipe, job.drawing.width, job.drawing.height)
        scheduler_name = self._set_sampler(pipe, job.drawing.sampler, job.drawing.steps)
        arguments = self._arguments(job, seed)
        applied, cost = self._adapters.acquire(job), job.drawing.width * job.drawing.height * 2
        held: dict[str, Any] = {"adapters": self._adapters, "applied": applied}
        held["randomness"] = Randomness(seed, self._device)
        run = PipelineRun(self.callable(pipe), arguments, job.drawing.steps, cost, scheduler_name, **held)
        self._attach(arguments, run, getattr(pipe, "scheduler", None))
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
        return self._offloading is not None and self._offloading.descend()

    def tile(self) -> bool:
        enable = getattr(getattr(self._pipe, "vae", None), "enable_tiling", None)
        if enable is None:
            return False
        enable()
        self.is_tiled = True
        return True

    def close(self) -> None:
        self._adapters.close()

    @staticmethod
    def parameters(pipe: Any) -> Mapping[str, inspect.Parameter]:
        """What its call takes, by name."""
        return inspect.signature(pipe.__call__).parameters

    @staticmethod
    def callable(pipe: Any) -> Callable[..., Any]:
        """What is called with those, and gives the picture in a list, `images`."""
        call: Callable[..., Any] = pipe.__call__
        return call

    @property
    def _scheduler(self) -> Any:
        return getattr(self._pipe, "scheduler", None)

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
        row = detect.of_pipeline(name, None)
        may_lack = bool(row.pipelines) and not row.needs  # then what it takes beside a text may be left out
        if not self._has("prompt") or wanting or (self._has("image") and not may_lack):
            need = "has no prompt" if not self._has("prompt") else f"needs {', '.join(wanting) or 'an image'}"
            raise CraftError(
                "UNSUPPORTED_MODEL", f"{name} {need}: craft draws from text alone", "use a text-to-image model"
            )

    def _set_sampler(self, pipe: Any, sampler: str, steps: int) -> str:
        """Raises INVALID_FIELD before anything is drawn; but how flows are laid out only the pipeline knows."""
        own = getattr(pipe, "scheduler", None)
        if own is None:
            return ""
        pipe.scheduler = samplers.build(sampler, own)
        if samplers.is_adaptive(pipe.scheduler) or samplers.wants_unguided(pipe.scheduler):
            why = f"{sampler} needs a loop of its own, and {type(pipe).__name__} has another"
            raise invalid("sampler", why, "take another sampler")
        if not samplers.is_flow_matching(own):
            laid_out = self._laid_out(steps)
            samplers.spread(copy.deepcopy(pipe.scheduler), steps, begins=True, **laid_out)
        return type(pipe.scheduler).__name__

    def _arguments(self, job: Dispatch, seed: int) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "prompt": self._read(job.drawing.prompt, job.drawing.prompt_syntax),
            "negative_prompt": self._read(job.drawing.negative_prompt, job.drawing.prompt_syntax) or None,
            "width": job.drawing.width,
            "height": job.drawing.height,
            "num_inference_steps": job.drawing.steps,
            "guidance_scale": job.drawing.guidance_scale,
            "generator": torch.Generator("cpu").manual_seed(seed),
        }
        if not self._has("guidance_scale"):  # which does nothing without a negative prompt
            negative = wanted["negative_prompt"] or " "
            wanted |= {"true_cfg_scale": job.drawing.guidance_scale, "negative_prompt": negative}
        asked = {key: value for key, value in wanted.items() if self._has(key) and value is not None}
        call = detect.of_pipeline(type(self._pipe).__name__, None).call
        return {**asked, **self._laid_out(job.drawing.steps), **call}

    def _read(self, prompt: str, syntax: str) -> str:
        """Raises INVALID_FIELD for AUTOMATIC1111's weights and edits, which the pipeline's own loop cannot draw."""
        reader = f"{type(self._pipe).__name__}'s own loop"
        if syntax == A1111 and (len(editing.parts(prompt)) > 1 or editing.parse(prompt).is_edited):
            hint = "say one prompt, or take --prompt-syntax plain, where brackets are words"
            raise invalid("prompt", f"changes on the way or joins prompts by AND, and {reader} reads one", hint)
        return prompts.words_alone(prompt, syntax, reader)

    def _laid_out(self, steps: int) -> dict[str, Any]:
        """What pipelines are told that else take as many steps as their makers did."""
        if self._has("intermediate_timesteps") and steps != _STEPS_WITH_A_MIDDLE:
            return {"intermediate_timesteps": None}
        sigmas = getattr(self._pipe, "config", {}).get("sample_sigmas")
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)} if sigmas and len(sigmas) != steps else {}

    def _attach(self, arguments: dict[str, Any], run: PipelineRun, scheduler: Any) -> None:
        """Have the run told of each step: by the pipeline, or by its scheduler, which is the picture's own."""
        order = getattr(scheduler, "order", 1)

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
        elif hasattr(scheduler, "step"):
            scheduler.step = told_of(scheduler.step, run, order)


def _draw_as_asked(pipe: Any, width: int, height: int) -> None:
    """Have those draw this size that would take another for it: the nearest of a list, or one of a megapixel."""
    if hasattr(pipe, "resolutions"):
        pipe.resolutions = [(width, height)]
    if isinstance(pipe, HiDreamImagePipeline):  # it scales to the square of this side, and cuts off what is no unit
        side = math.sqrt(width * height) * _ROUNDED / pipe.vae_scale_factor
        pipe.__dict__["default_sample_size"] = side


def _ours(drawings: Sequence[Drawing]) -> list[PipelineRun]:
    runs = [drawing for drawing in drawings if isinstance(drawing, PipelineRun)]
    assert len(runs) == len(drawings)
    return runs
