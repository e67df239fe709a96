"""On a CUDA device nothing waits within a step, and nothing is computed in more than half precision.

There is none: `fake_device` stands for it. What a library does so by itself is listed here, line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from craft_protos.dispatch import Dispatch, File
from craft_protos.lora import LoraRef
from craftd.worker.engine.denoiser import Denoiser
from craftd.worker.families import FAMILIES, noise, samplers
from craftd.worker.inputs.canvases import Canvases
from craftd.worker.inputs.controls import ControlsAhead
from craftd.worker.inputs.references import References
from craftd.worker.lora.adapter_manager import AdapterManager
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.targets import Targets
from craftd.worker.output.finisher import Finisher
from craftd.worker.process.device import Device

from tests import tiny_loras
from tests.worker import loras
from tests.worker.fake_device import PLACE, Finding, Watch, fake_device
from tests.worker.fakes import Studio, draw, manifest

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
KINDS = {  # kind -> family, precision on a CUDA device
    "sd": ("sd", "fp16"),
    "lcm": ("sd", "fp16"),
    "sdxl": ("sdxl", "fp16"),
    "sd3": ("sd3", "bf16"),
    "flux": ("flux", "bf16"),
    "chroma": ("chroma", "bf16"),
    "flux2": ("flux2", "bf16"),
    "z-image": ("z-image", "bf16"),
    "qwen-image": ("qwen-image", "bf16"),
    "krea2": ("krea2", "bf16"),
}
PLAIN = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
STOCHASTIC = ("Euler a", "Euler a Karras", "DPM++ 2M SDE", "DPM2 a", "DDPM", "LCM", "TCD")
SAMPLERS = ("Euler", "DDIM", "PNDM", "Heun", "DPM++ 2M", "DPM++ 2S", "DEIS", "LMS", *STOCHASTIC)

# Of a library's own, in each step; and what a family's pipeline computes in fp32, too.
THEIRS = (
    "diffusers/models/transformers/transformer_chroma.py",  # its guidance, always nought
    "diffusers/schedulers/scheduling_unipc_multistep.py",  # a few numbers that it solves for
    "diffusers/models/transformers/transformer_z_image.py",  # the places of its tokens
    "diffusers/models/transformers/transformer_qwenimage.py",  # the same
    "craftd/worker/families/z_image.py",
)


class Watched(Denoiser):
    """Keeps what was found in its steps apart from what was found around them."""

    watch: Watch
    steps: list[Finding]

    def advance(self, drawings: Sequence[Any], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        self.watch.found.clear()
        given = [drawing.latents.dtype for drawing in drawings]
        errors = super().advance(drawings, with_preview=with_preview)
        assert [drawing.latents.dtype for drawing in drawings] == given
        self.steps += self.watch.found
        self.watch.found.clear()
        return errors


class AtOnce:
    """An executor whose tasks are done by whoever submits them: other threads know no fake device."""

    def submit(self, task: Callable[..., Any], *given: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(task(*given))
        return future


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    with fake_device(monkeypatch) as watching, torch.inference_mode():
        yield watching


def _runner(kind: str, files: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> Watched:
    family, precision = KINDS[kind]
    with torch.utils._python_dispatch._disable_current_modes():
        pipe = tiny_loras.pipeline(kind)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(PLACE, HALF[precision])
    if kind == "qwen-image":  # it cuts out of a text as many tokens as it reads from the device
        words = torch.zeros(1, 12, pipe.transformer.config.joint_attention_dim, dtype=HALF[precision], device=PLACE)
        monkeypatch.setattr(pipe, "encode_prompt", lambda *_, **__: (words, None))
    drawing = FAMILIES[family](pipe, PLACE)
    reader = Reader(files, lambda _read: None)
    runner = Watched(
        drawing,
        AdapterManager(Targets(pipe), reader, PLACE),
        Canvases(reader, drawing.granularity),
        References(reader, drawing.lay),
        ControlsAhead(reader, drawing.granularity),
        precision=precision,
        resident_bytes=100,
        device=PLACE,
        pipe=pipe,
    )
    runner.watch, runner.steps = watch, []
    return runner


def _studio(runner: Watched, monkeypatch: pytest.MonkeyPatch) -> Studio:
    device = Device(PLACE, "fake", 1 << 30, runner.precision)
    studio = Studio({"fake": runner}, device=device)
    finisher: Finisher = studio.engine._finisher
    monkeypatch.setattr(finisher, "_decoding", AtOnce())
    monkeypatch.setattr(runner._adapters._reader, "_threads", AtOnce())
    return studio


def _job(name: str, *files: File, **spec: Any) -> Dispatch:
    refs = tuple(LoraRef(file.sha256[:8], 0.7, file.name, file.sha256) for file in files)
    asked = {"prompt": "a red cat", "width": 64, "height": 64, "guidance_scale": 4.0, "steps": 2} | spec
    return replace(draw(name, model=manifest(), loras=refs, **asked), files=files)


def _in_steps(runner: Watched) -> list[str]:
    ours = [one for one in runner.steps if not one.made_by.startswith(THEIRS)]
    return sorted({str(one) for one in ours})


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")  # Krea 2, of its own
@pytest.mark.parametrize("kind", KINDS)
def test_a_tick_waits_for_nothing(
    kind: str, files: Path, make: loras.Make, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows, one with a LoRA, from their prompts to their files."""
    with torch.utils._python_dispatch._disable_current_modes():
        stored = make(kind, "fake-device", rank=4, seed=1)
    runner = _runner(kind, files, watch, monkeypatch)
    studio = _studio(runner, monkeypatch)
    file = File(stored.file.name, stored.file.sha256, stored.file.size_bytes)
    studio.run(_job("plain"), _job("with a LoRA", file))
    assert studio.ended() == {"plain": "done", "with a LoRA": "done"}
    assert studio.kinds("image")[0].image.ByteSize() > 0 and watch.operations > 1000
    assert _in_steps(runner) == []


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # numpy's, of the CPU's tables
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_waits_for_nothing(sampler: str, watch: Watch) -> None:
    """Its own step alone, of a row that begins and one that goes on."""
    with torch.utils._python_dispatch._disable_current_modes():
        own = diffusers.PNDMScheduler.from_config(PLAIN)
        scheduler: Any = samplers.build(sampler, own)
        samplers.spread(scheduler, 6)
    noise.lend(scheduler)
    latents = torch.zeros(1, 4, 8, 8, dtype=torch.float16, device=PLACE)
    arguments = samplers.step_arguments(scheduler, torch.Generator("cpu").manual_seed(1))
    for timestep in scheduler.timesteps[:3]:
        given = samplers.scaled(scheduler, latents, timestep)
        latents = scheduler.step(given, timestep, latents, **arguments, return_dict=False)[0]
        assert latents.device == PLACE and latents.dtype == torch.float16
    assert [str(one) for one in watch.found if one.kind != "promotes"] == []


def test_what_waits_is_found(watch: Watch) -> None:
    """The watch itself: each way to wait, with the line that asked for it."""
    there = torch.zeros(2, device=PLACE)
    there.sum().item()
    bool(there.any())
    there.cpu()
    torch.tensor([1.0, 2.0], device=PLACE)
    there[there > 0]
    with pytest.raises(RuntimeError):
        there + torch.ones(2)
    assert [one.kind for one in watch.found] == ["waits", "waits", "waits", "copies", "waits"]
