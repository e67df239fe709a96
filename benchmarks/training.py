"""Training on the built-in model, against a plain loop over peft and diffusers; and what it costs who draws meanwhile.

    python -m benchmarks.training [--rounds N] [--steps N] [--threads N]

Both sides train the same LoRA (rank 16, batch 4, 256 pixels) on the same twelve pictures, each in a process of its
own, by turns; the quickest step of each counts, which other load on the machine touches last. The plain loop is what
diffusers' training script does at each step: read and scale the pictures, encode them and their captions, noise,
predict, go back, step. Memory is the most that each process held. Then a worker trains, jobs of one picture come at
odd moments, and the time is taken from the end of the training step that was under way to the job's start, just before
its first denoising step.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import figures

ROOT = Path(__file__).parent.parent
POCKET = ROOT / "daemon" / "craftd" / "pocket"
SIDE, PICTURES, RANK, BATCH, RATE = 256, 12, 16, 4, 1e-4
# What craft trains of pocket.
TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "add_embedding.proj"),
    *("conv1", "conv2", "conv_shortcut", "time_emb_proj"),
]
WARM = 3  # steps that are not counted
ASKED = 8  # jobs that come while training


@dataclass(frozen=True)
class Run:
    """One side's training."""

    steps_per_s: float
    most_mb: float


def main() -> int:
    asked = _parse()
    if asked.side:
        print(json.dumps({"craft": _craft, "plain": _plain}[asked.side](asked)), flush=True)
        return 0
    ours, theirs = [], []
    for round_ in range(asked.rounds):
        for side in ("craft", "plain") if round_ % 2 else ("plain", "craft"):
            run = _measured(side, asked)
            (ours if side == "craft" else theirs).append(run)
            print(f"{side}: {run.steps_per_s:.2f} steps a second, {run.most_mb:.0f} MB", flush=True)
    beyond = [1000 * extra for extra in _waits(asked.threads)]
    pairs = list(zip(ours, theirs, strict=True))
    loop = "a plain peft and diffusers loop"
    return figures.tell(
        [
            figures.of_rounds(
                "training's steps per second", loop, [a.steps_per_s / b.steps_per_s for a, b in pairs], at_least=1.0
            ),
            figures.of_rounds("training's memory", loop, [a.most_mb / b.most_mb for a, b in pairs], at_most=1.0),
            figures.of_rounds(
                "training's steps per second, alone", "none", [one.steps_per_s for one in ours], unit="/s"
            ),
            figures.Figure(
                "a job's wait for its first step while training, beyond one training step",
                "none",
                *(max(beyond), min(beyond), max(beyond)),
                "ms",
                at_most=100.0,
            ),
        ]
    )


def _measured(side: str, asked: argparse.Namespace) -> Run:
    command = [sys.executable, "-m", "benchmarks.training", "--side", side]
    command += ["--steps", str(asked.steps), "--threads", str(asked.threads)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout.strip().rpartition("\n")[2]))


def _told(marks: list[float]) -> dict[str, float]:
    """Of the moments at which steps were done."""
    kilo = 1024 if sys.platform == "linux" else 1
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
    quickest = min(after - before for before, after in itertools.pairwise(marks[WARM - 1 :]))
    return {"steps_per_s": 1 / quickest, "most_mb": most / 1e6}


def _pictures(folder: Path) -> list[tuple[Path, str]]:
    """Smooth random colours, and what each is called."""
    made = []
    for i in range(PICTURES):
        coarse = np.random.default_rng(i).integers(0, 255, (6, 6, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "PNG")
        path = folder / hashlib.sha256(out.getvalue()).hexdigest()
        path.write_bytes(out.getvalue())
        made.append((path, f"a red apple {i}"))
    return made


def _pipe(threads: int) -> Any:
    import diffusers
    import torch

    torch.set_num_threads(threads)
    diffusers.utils.logging.disable_progress_bar()
    return diffusers.StableDiffusionPipeline.from_pretrained(
        POCKET, dtype=torch.float32, use_safetensors=True, safety_checker=None
    )


def _craft(asked: argparse.Namespace) -> dict[str, float]:
    """The worker's own run, driven as its engine does."""
    import torch
    from craft_protos.dispatch import Dispatch, ModelManifest
    from craft_protos.train import Picture, TrainSpec
    from craftd.worker.engine.progress_hooks import ProgressHooks
    from craftd.worker.process.device import Device
    from craftd.worker.process.reporter import Reporter
    from craftd.worker.training import trainable
    from craftd.worker.training.run import TrainingContext, TrainingRun

    class Marks:
        """When each step was done."""

        def __init__(self) -> None:
            self.at: list[float] = []

        def send(self, frame: Any) -> None:
            if frame.HasField("training"):
                self.at.append(time.perf_counter())

    pipe, marks = _pipe(asked.threads), Marks()
    device = Device(torch.device("cpu"), "cpu", 1 << 30, "fp32")
    trainable.family_of(pipe, device.place)
    steps = WARM + asked.steps
    spec = TrainSpec("mine", "", "", "", RANK, RANK, steps, 1, RATE, BATCH, 1, SIDE, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        pictures = [Picture(path.name, path.name, 0, SIDE, SIDE, text) for path, text in _pictures(Path(folder))]
        train = Dispatch("job", 1, spec, ModelManifest("pocket", "sd"), pictures=tuple(pictures))
        reporter: Any = Reporter(marks)  # type: ignore[arg-type]
        context = TrainingContext(Path(folder), Path(folder), device, ProgressHooks(), reporter, time.monotonic)
        run = TrainingRun(train, context)
        run.attach(pipe)
        while len(marks.at) < steps:
            run.turn()
        run.close()
    return _told(marks.at)


def _plain(asked: argparse.Namespace) -> dict[str, float]:
    """As diffusers' train_text_to_image_lora does it."""
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    pipe = _pipe(asked.threads)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=TARGETS))
    parameters = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=1e-2)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    pipe.unet.train()
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        batches = _batches(_pictures(Path(folder)))
        for _ in range(WARM + asked.steps):
            pixels, captions = next(batches)
            with torch.no_grad():
                latents = pipe.vae.encode(pixels).latents * pipe.vae.config.scaling_factor
                ids = pipe.tokenizer(
                    captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
                ).input_ids
                text = pipe.text_encoder(ids)[0]
            noise = torch.randn_like(latents)
            timesteps = torch.randint(0, 1000, (len(latents),))
            output = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, text, return_dict=False)[0]
            target = scheduler.get_velocity(latents, noise, timesteps)
            torch.nn.functional.mse_loss(output, target).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            marks.append(time.perf_counter())
    return _told(marks)


def _batches(pictures: list[tuple[Path, str]]) -> Iterator[tuple[Any, list[str]]]:
    import torch

    while True:
        shuffled = random.Random(0).sample(pictures, len(pictures))
        for start in range(0, len(shuffled), BATCH):
            some = shuffled[start : start + BATCH]
            arrays = [np.asarray(Image.open(path).convert("RGB"), np.float32) / 127.5 - 1 for path, _ in some]
            yield torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2), [text for _, text in some]


def _waits(threads: int) -> list[float]:
    """Seconds from the end of the step under way to a job's start, for jobs that come while a worker trains."""
    from craft_protos import training_pb2
    from craft_protos.worker_pb2 import Dispatch, ToWorker

    from tests.worker import client

    with tempfile.TemporaryDirectory() as folder:
        files, chance = Path(folder), random.Random(1)
        model = client.put_model(POCKET, files, "pocket")
        pictures = [
            training_pb2.DatasetPicture(sha256=path.name, file_name=path.name, width=SIDE, height=SIDE, caption=text)
            for path, text in _pictures(files)
        ]
        spec = training_pb2.TrainSpec(
            name="mine", rank=RANK, alpha=RANK, steps=100_000, learning_rate=RATE, batch_size=BATCH, resolution=SIDE
        )
        with client.worker(files, "--threads", str(threads)) as worker:
            worker.draw(client.submit(model, "warm", width=SIDE, height=SIDE))
            dispatch = Dispatch(job_id="train", epoch=1, train=spec, model=model, pictures=pictures)
            worker.send(ToWorker(dispatch=dispatch))
            steps = [_at(worker, "training") for _ in range(12)][2:]
            step_s = statistics.median(b - a for a, b in itertools.pairwise(steps))
            beyond = []
            for i in range(ASKED):
                _at(worker, "training")
                time.sleep(chance.random() * step_s)
                while select.select([worker.sock], [], [], 0)[0]:
                    worker.receive()  # of steps that are over
                worker.send(client.submit(model, f"job{i}", width=SIDE, height=SIDE, steps=1))
                beyond.append(_beyond(worker))
                worker.until(lambda frame: frame.WhichOneof("frame") == "done")
            print(f"a training step takes {step_s:.3f} s", flush=True)
            worker.process.kill()
    return beyond


def _beyond(worker: Any) -> float:
    """From the end of the step that was under way when the job was sent."""
    ended = time.perf_counter()
    has_ended = False
    while True:
        kind = worker.receive().WhichOneof("frame")
        if kind == "training" and not has_ended:
            ended, has_ended = time.perf_counter(), True
        if kind == "started":
            return time.perf_counter() - ended if has_ended else 0.0


def _at(worker: Any, kind: str) -> float:
    worker.until_kind(kind)
    return time.perf_counter()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="of each training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--side", choices=["craft", "plain"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
