"""How the worker without torch trains: losses, checkpoints and a LoRA that follow from the seed alone.

Words in the trigger phrase make it misbehave. The place of the trouble is the second step
after the first checkpoint:

    [crash]        dies there of a segmentation fault, each time
    [crash once]   the same, but only the first time it sees the job
    [hang]         stops there, and says nothing any more
    [fail]         fails the job there
    [no memory]    fails it there for want of memory
    [held]         waits there until the file `release` lies in its files folder
    [slow]         takes 50 ms a step
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from craft_protos import jobs_pb2, training_pb2
from craft_protos.dispatch import Dispatch
from craft_protos.worker_pb2 import FromWorker
from PIL import Image

from craftd import safetensors

_SLOW_S = 0.05
_SIDE = 64
_RANK_WIDTH = 32  # of the one layer that it adapts
_LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
_KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


class FakeTraining:
    """One train job. `send` hands over a frame."""

    def __init__(self, asked: Dispatch, files: Path, send: Callable[[FromWorker], None]) -> None:
        self.asked = asked
        self._files = files
        self._send = send
        self._spec = asked.training
        self._step = 0
        self._state = b""
        self._work = self._life()

    def advance(self) -> bool:
        """A little further; False at the end."""
        return next(self._work, None) is not None

    def says(self, word: str) -> bool:
        return f"[{word}]" in self._spec.trigger

    def _life(self) -> Iterator[bool]:
        if problem := self._prepare():
            self._fail("CORRUPT_FILE", problem)
            return
        for what in ("latents", "captions"):
            preparing = FromWorker.Preparing(what=what, done=len(self.asked.pictures), of=len(self.asked.pictures))
            self._tell(preparing=preparing)
            yield True
        while self._step < self._spec.steps:
            if self._is_held:
                yield True
                continue
            if error := self._misbehave():
                self._fail(*error)
                return
            self._train()
            yield True
        self._finish()

    @property
    def _is_held(self) -> bool:
        return self.says("held") and self._is_at_the_place and not (self._files / "release").exists()

    @property
    def _is_at_the_place(self) -> bool:
        return self._step == self._spec.checkpoint_every + 1

    def _prepare(self) -> str:
        """What is missing."""
        for picture in self.asked.pictures:
            path = self._files / picture.sha256
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != picture.sha256:
                return f"picture {picture.file_name} is missing"
        base = self._spec.base_lora_sha256
        if base and not (self._files / base).exists():
            return "the LoRA that it begins with is missing"
        self._state = hashlib.sha256(str(self._spec.seed).encode()).digest()
        for checkpoint in self.asked.files:
            if checkpoint.sha256 == self._spec.base_lora_sha256:
                continue
            kept = json.loads((self._files / checkpoint.sha256).read_bytes())
            self._step, self._state = kept["step"], bytes.fromhex(kept["state"])
        return ""

    def _train(self) -> None:
        if self.says("slow"):
            time.sleep(_SLOW_S)
        self._step += 1
        self._state = hashlib.sha256(self._state).digest()
        loss = 1.0 / (1 + self._step) + self._state[0] / 2560
        left_s = 0.001 * (self._spec.steps - self._step)
        step = training_pb2.TrainingStep(
            step=self._step,
            of=self._spec.steps,
            loss=loss,
            learning_rate=self._spec.learning_rate,
            seconds_left=left_s,
        )
        self._tell(training=FromWorker.Trained(step=step))
        if self._spec.sample_every and self._step % self._spec.sample_every == 0:
            self._sample()
        if self._step % self._spec.checkpoint_every == 0 and self._step < self._spec.steps:
            self._save()

    def _sample(self) -> None:
        for prompt in self._spec.sample_prompts:
            sample = training_pb2.TrainingSample(
                step=self._step, prompt=prompt, seed=self._spec.seed, media_type="image/png", data=self._picture()
            )
            self._tell(sample=FromWorker.Sample(sample=sample))

    def _save(self) -> None:
        data = json.dumps({"step": self._step, "state": self._state.hex()}).encode()
        self._tell(checkpoint=FromWorker.Checkpoint(step=self._step, sha256=self._write(data), size_bytes=len(data)))

    def _finish(self) -> None:
        if not self._spec.sample_every or self._spec.steps % self._spec.sample_every:
            self._sample()
        data = self._lora()
        made = FromWorker.LoraMade(sha256=self._write(data), size_bytes=len(data), preview=self._picture())
        self._tell(lora=made)
        self._tell(done=FromWorker.JobDone())

    def _misbehave(self) -> tuple[str, str] | None:
        if not self._is_at_the_place:
            return None
        marker = self._files / f"crashed-{self.asked.job_id}"
        if self.says("crash once") and not marker.exists():
            marker.touch()
            die(signal.SIGSEGV)
        if self.says("crash"):
            die(signal.SIGSEGV)
        if self.says("hang"):
            threading.Event().wait()
        if self.says("no memory"):
            return "OUT_OF_MEMORY", "the device's memory does not suffice for batches of this size"
        return ("JOB_FAILED", "failed on request") if self.says("fail") else None

    def _fail(self, reason: str, message: str) -> None:
        hint = "--batch 1 --resolution 256" if reason == "OUT_OF_MEMORY" else "leave [fail] out"
        self._tell(failed=FromWorker.JobFailed(error=jobs_pb2.JobError(reason=reason, message=message, hint=hint)))

    def _tell(self, **parts: object) -> None:
        frame = FromWorker(**parts)  # type: ignore[arg-type]
        told = getattr(frame, frame.WhichOneof("frame") or "")
        told.job_id, told.epoch = self.asked.job_id, self.asked.epoch
        self._send(frame)

    def _write(self, data: bytes) -> str:
        """A file of the store, whole under its name."""
        sha256 = hashlib.sha256(data).hexdigest()
        temporary = self._files / f".{sha256}.made"
        temporary.write_bytes(data)
        temporary.replace(self._files / sha256)
        return sha256

    def _picture(self) -> bytes:
        stream = io.BytesIO()
        Image.new("RGB", (_SIDE, _SIDE), tuple(self._state[:3])).save(stream, "PNG")
        return stream.getvalue()

    def _lora(self) -> bytes:
        """A small one that says what it was trained on."""
        rank = self._spec.rank
        is_kohya = self._spec.format == "kohya"
        down, up = ("lora_down", "lora_up") if is_kohya else ("lora_A", "lora_B")
        layer = _KOHYA if is_kohya else _LAYER
        tensors = {f"{layer}.{down}.weight": (rank, _RANK_WIDTH), f"{layer}.{up}.weight": (_RANK_WIDTH, rank)}
        metadata = {
            "modelspec.trigger_phrase": self._spec.trigger,
            "ss_sd_model_name": self._spec.model,
            "ss_steps": str(self._spec.steps),
        }
        header: dict[str, object] = {"__metadata__": metadata}
        body, numbers = b"", random.Random(self._state)
        for name, shape in tensors.items():
            data = struct.pack(f"<{shape[0] * shape[1]}f", *(numbers.gauss(0, 0.1) for _ in range(shape[0] * shape[1])))
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
            body += data
        return safetensors.packed(header) + body


def die(number: signal.Signals) -> None:
    """By a signal, without the core file that some would leave; nothing more is done until it comes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), number)
    threading.Event().wait()
