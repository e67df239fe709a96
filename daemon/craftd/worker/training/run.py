"""One training, from its first picture to its file: short pieces of work, between which it may be put aside.

Put aside, it holds no memory of the device: its state lies beside it until its model is there again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from craft_protos import train_samples
from craft_protos.dispatch import Dispatch
from craft_protos.reasons import CraftError
from craft_protos.train import KOHYA, Picture, TrainSpec
from craft_protos.train_options import LORA
from craft_protos.train_samples import SamplePrompt
from PIL import Image

from craftd.architectures import buckets
from craftd.architectures.architecture import Training
from craftd.worker.engine import denoise
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.families.latents import sizes_of
from craftd.worker.models import memory
from craftd.worker.models.folder import is_sha256
from craftd.worker.output import picture
from craftd.worker.output.picture import Pixels
from craftd.worker.process.device import Device
from craftd.worker.process.reporter import Progress, Reporter
from craftd.worker.training import beginning, lora_file, lycoris_file, objective, state, stored, trainable
from craftd.worker.training.beginning import Beginning
from craftd.worker.training.dataset import Dataset, Item, Varying, text_key
from craftd.worker.training.drawing import Drawing
from craftd.worker.training.encoded import Encoded, Tensors
from craftd.worker.training.encoding import PictureEncoder
from craftd.worker.training.metadata import Subject, metadata
from craftd.worker.training.pictures import Look
from craftd.worker.training.state import State
from craftd.worker.training.trainable import Trainable
from craftd.worker.training.trainer import StepDone, Trainer
from craftd.worker.training.validation import Validation
from craftd.worker.training.writer import Writer

_log = logging.getLogger(__name__)

_FINGERPRINTED = (
    *("name", "trigger", "rank", "alpha", "steps", "learning_rate", "batch_size", "gradient_accumulation"),
    *("resolution", "seed", "train_text_encoder", "dora", "sample_prompts", "sample_every", "flip", "min_snr_gamma"),
    *("ema_decay", "gradient_checkpointing", "format", "when_idle", "checkpoint_every", "class_prompt"),
    *("class_pictures", "prior_weight", "learning_rate_schedule", "warmup_steps", "caption_dropout"),
)

Pieces = Generator[None, None, None]


@dataclass(frozen=True)
class TrainingContext:
    """What every training of a worker works with."""

    files: Path
    work_folder: Path
    device: Device
    hooks: ProgressHooks
    reporter: Reporter
    clock: Callable[[], float]


class TrainingRun:
    """One training, worked on in short pieces by the engine's thread."""

    def __init__(self, train: Dispatch, context: TrainingContext) -> None:
        self.train = train
        self._context = context
        self._recipe = train.training
        self._place = context.device.place
        self._folder = context.work_folder / f"training-{uuid4().hex}"
        self._encoded = Encoded(self._folder)
        self._writer = Writer(context.files, lambda step, made: context.reporter.checkpoint(train, step, made))
        self._state: State | None = None
        self._trainer: Trainer | None = None
        self._life: Pieces | None = None
        self._is_started = False
        self._resumed_at = 0
        self._drawing = Drawing(self._recipe, self._place)
        self._validated: set[int] = set()  # steps
        self._taken: dict[int, float] = {}  # losses of a validation that is half done
        self._done: StepDone | None = None  # the last one that was told
        self._sampled: set[Hashable] = set()
        self._preview: Pixels | None = None  # of the first prompt, when it was last drawn; None where it could not be

    @property
    def step(self) -> int:
        """The number of steps done."""
        if self._trainer is not None:
            return self._trainer.step
        return self._state.step if self._state is not None else 0

    def attach(self, pipe: Any) -> None:
        """Start or resume with a loaded model. Raises UNTRAINABLE_MODEL, and OUT_OF_MEMORY for an offloaded one."""
        self._life = self._run(pipe, trainable.check(pipe, self.train.model.name))
        if not self._is_started:
            self._is_started = True
            self._context.reporter.started(self.train, "")

    def turn(self) -> bool:
        """Do one piece of work; returns True once none is left. Raises what went wrong."""
        assert self._life is not None
        with memory.recognised():
            self._writer.poll()
            return next(self._life, self) is self

    def put_aside(self) -> None:
        """Release the model; what has been learned is kept, to go on with later."""
        if self._life is not None:
            self._life.close()
        if self._trainer is not None:
            self._state = self._trainer.state()
        self._life = self._trainer = None
        memory.release()

    def settle(self) -> None:
        """Called before the training fails: waits for its last checkpoint, from which it can be resumed."""
        with suppress(CraftError, *memory.OUT_OF_MEMORY):
            self._writer.settle()

    def close(self) -> None:
        """Release everything; called once, however the training ended."""
        if self._life is not None:
            self._life.close()
        self._life = self._trainer = self._state = None
        self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        memory.release()

    def _run(self, pipe: Any, training: Training) -> Pieces:
        self._read_checkpoint()
        goal = objective.of(pipe.scheduler, self._recipe)
        learned, imagined, held = yield from self._encode(pipe)
        first = self._read_beginning(pipe)
        model = Trainable(pipe, training, self._recipe, self._place, self._context.hooks, first)
        trainer = Trainer(model, goal, self._recipe, learned, imagined)
        if self._state is not None:
            trainer.load(self._state)
        self._trainer, self._state = trainer, None  # once it is whole: what is put aside is what it holds
        yield
        yield from self._learn(trainer, model, Validation(held, goal, self._recipe, self._taken))
        yield from self._finish(trainer, model, pipe)

    # Before

    def _read_checkpoint(self) -> None:
        found = [one for one in self.train.files if one.sha256 != self._recipe.base_lora_sha256]
        if self._state is not None or not found:
            return
        self._state = state.read(self._file(found[0].sha256), _fingerprint(self.train))
        self._resumed_at = self._state.step

    def _read_beginning(self, pipe: Any) -> Beginning | None:
        """The LoRA that it begins with; what has been learned since lies in the checkpoint."""
        sha256 = self._recipe.base_lora_sha256
        if not sha256:
            return None
        (lora,) = (one for one in self.train.files if one.sha256 == sha256)
        return beginning.read(self._file(sha256), lora, pipe, self._recipe, self.train.model.name)

    def _encode(self, pipe: Any) -> Generator[None, None, tuple[Dataset, Dataset | None, Dataset]]:
        """Encodes captions and pictures once: no step changes what comes of them. Last those kept for validation."""
        if not self._recipe.train_text_encoder and not self._recipe.varies_captions:
            yield from self._encode_captions(pipe)
        recipe, precision, items = self._recipe, self._context.device.precision, list(self._items(pipe))
        encoder = PictureEncoder(trainable.family_of(pipe, self._place), recipe, precision, self._file)
        kept = recipe.held_out(len(items))
        learned, held = ([item for item in items if (item.place in kept) == is_kept] for is_kept in (False, True))
        varying = Varying(recipe, partial(self._encode_now, encoder)) if recipe.varies_pictures else None
        yield from self._encode_pictures(encoder, [*([] if varying else learned), *held])
        own, others = Dataset(learned, self._encoded, self._place, varying), Dataset(held, self._encoded, self._place)
        if not recipe.has_prior:
            return own, None, others
        imagined = list(self._class_items(pipe))
        yield from self._imagine_class(pipe, imagined)
        return own, Dataset(imagined, self._encoded, self._place), others

    def _encode_captions(self, pipe: Any) -> Pieces:
        recipe = self._recipe
        captions = [recipe.caption(one) for one in self.train.pictures]
        captions += [recipe.class_prompt] if recipe.has_prior else []
        captions += [""] if recipe.caption_dropout else []
        wanted = list(dict.fromkeys(captions))
        for i, caption in enumerate(wanted):
            if text_key(caption) not in self._encoded:
                with torch.no_grad():
                    text = trainable.encode_texts(pipe, [caption], self._place)
                self._encoded.put(text_key(caption), text.as_tensors())
                self._tell("captions", i + 1, len(wanted))
                yield

    def _items(self, pipe: Any) -> Iterator[Item]:
        unit = sizes_of(pipe).granularity
        for i, one in enumerate(self.train.pictures):
            size = buckets.bucket(max(one.width, 1), max(one.height, 1), self._recipe.resolution, unit)
            yield Item(i, size, self._recipe.caption(one), one.repeats)

    def _encode_pictures(self, encoder: PictureEncoder, items: list[Item]) -> Pieces:
        ways = (False, True) if self._recipe.flip else (False,)
        for i, item in enumerate(items):
            one = self.train.pictures[item.place]
            for is_flipped in ways:
                key = item.latents_key(is_flipped=is_flipped)
                if key not in self._encoded:
                    self._encoded.put(key, encoder.encode(one, item.size, is_flipped=is_flipped))
                    self._tell("pictures", i + 1, len(items))
                    yield

    def _encode_now(self, encoder: PictureEncoder, item: Item, is_flipped: bool, look: Look) -> Tensors:
        """One that is another each time."""
        return encoder.encode(self.train.pictures[item.place], item.size, is_flipped=is_flipped, look=look)

    def _class_items(self, pipe: Any) -> Iterator[Item]:
        side = self._drawing.side(pipe)
        for i in range(self._recipe.class_pictures):
            yield Item(("class", i), (side, side), self._recipe.class_prompt)

    def _imagine_class(self, pipe: Any, items: list[Item]) -> Pieces:
        """Pictures that the model itself makes; their latents are all that is wanted of them."""
        dtype = getattr(pipe, trainable.network_of(pipe)).dtype
        computing = partial(trainable.computing, self._place, dtype)
        for i, item in enumerate(items):
            if item.latents_key() not in self._encoded:
                sample = SamplePrompt(item.caption, seed=self._recipe.seed + 1 + i)
                _, row = yield from self._drawing.denoise(item.key, pipe, computing, sample)
                latents = row.latents.float().clone()  # of inference mode, which gradients cannot pass
                self._encoded.put(item.latents_key(), {"latents": latents})
                if self._recipe.flip:
                    self._encoded.put(item.latents_key(is_flipped=True), {"latents": latents.flip(-1)})
                self._tell("class pictures", i + 1, len(items))
                yield

    # Training

    def _learn(self, trainer: Trainer, model: Trainable, validation: Validation) -> Pieces:
        began, first = self._context.clock(), trainer.step
        yield from self._validate_if_due(trainer, model, validation)
        yield from self._sample_if_due(trainer, model)
        while trainer.step < self._recipe.steps:
            done = trainer.micro_batch()
            if done is not None:
                self._report(done, (self._context.clock() - began) / (done.step - first))
                self._checkpoint_if_due(trainer)  # first: what follows may end in being put aside
                yield from self._validate_if_due(trainer, model, validation)
                yield from self._sample_if_due(trainer, model)
            yield

    def _report(self, done: StepDone, seconds_a_step: float) -> None:
        left, self._done = (self._recipe.steps - done.step) * seconds_a_step, done
        self._context.reporter.trained(
            self.train, Progress(done.step, self._recipe.steps, done.loss, done.learning_rate, left)
        )

    def _validate_if_due(self, trainer: Trainer, model: Trainable, validation: Validation) -> Pieces:
        """The step is told once more, with it."""
        recipe, step = self._recipe, trainer.step
        is_due = bool(recipe.validation) and (step % recipe.validate_every == 0 or step == recipe.steps)
        if not is_due or step in self._validated or self._done is None or self._done.step != step:
            return
        loss = yield from validation.loss(model, trainer)
        self._validated.add(step)
        rate = self._done.learning_rate
        self._context.reporter.trained(self.train, Progress(step, recipe.steps, self._done.loss, rate, 0.0, loss))

    def _sample_if_due(self, trainer: Trainer, model: Trainable) -> Pieces:
        recipe, step = self._recipe, trainer.step
        is_due = recipe.sample_every and step % recipe.sample_every == 0 and self._resumed_at < step < recipe.steps
        if is_due:
            yield from self._sample(trainer, model, recipe.sample_prompts)

    def _sample(self, trainer: Trainer, model: Trainable, prompts: Sequence[str]) -> Pieces:
        """A picture of each prompt, unless it was drawn after this step already."""
        recipe = self._recipe
        for i, prompt in enumerate(prompts):
            key = ("sample", trainer.step, i)
            if key in self._sampled:
                continue
            sample = train_samples.parse(prompt)
            pixels = yield from self._draw(key, sample, trainer, model)
            self._sampled.add(key)
            self._preview = pixels if i == 0 else self._preview
            if pixels is not None:
                seed = recipe.seed if sample.seed is None else sample.seed
                self._context.reporter.sample(self.train, trainer.step, prompt, seed, _png(pixels))
            yield

    def _draw(
        self, key: Hashable, sample: SamplePrompt, trainer: Trainer, model: Trainable
    ) -> Generator[None, None, Pixels | None]:
        """The sample's pixels, or None where drawing fails: the training goes on without it."""
        try:
            with trainer.averaged():
                family, row = yield from self._drawing.denoise(key, model.pipe, model.computing, sample)
                return denoise.decode(family, [row], self._context.device.precision)[0]
        except torch.AcceleratorError:
            raise
        except Exception as exc:  # whatever it was, the training goes on
            _log.warning("the sample of %r after step %d is left out", sample.prompt, trainer.step, exc_info=exc)
            self._drawing.forget()
        memory.release()
        return None

    def _checkpoint_if_due(self, trainer: Trainer) -> None:
        every = self._recipe.checkpoint_every
        if every and trainer.step % every == 0 and trainer.step < self._recipe.steps:
            held, recipe = trainer.state(), _fingerprint(self.train)
            self._writer.begin(trainer.step, lambda: state.to_bytes(held, recipe))

    # After

    def _finish(self, trainer: Trainer, model: Trainable, pipe: Any) -> Pieces:
        yield from self._sample(trainer, model, self._recipe.sample_prompts or (self._shown,))
        self._writer.settle()
        with trainer.averaged():
            tensors = _tensors(self._recipe, model, pipe)
        subject = Subject(
            architecture=trainable.architecture_of(pipe),
            predicts=_predicts(pipe),
            model=self.train.model,
            recipe=self._recipe,
            pictures=self.train.pictures,
            precision=self._context.device.precision,
            steps=trainer.step,
            preview_jpeg=b"" if self._preview is None else picture.encode_preview(self._preview),
        )
        made = stored.put(self._context.files, stored.safetensors(tensors, metadata(subject, tensors)))
        self._context.reporter.lora(self.train, made, b"" if self._preview is None else _png(self._preview))

    @property
    def _shown(self) -> str:
        """The prompt of the preview where no other is asked for."""
        return self._recipe.trigger or self._recipe.caption(self.train.pictures[0])

    def _file(self, sha256: str) -> Path:
        if not is_sha256(sha256):
            raise CraftError("UNSAFE_PATH", f"{sha256!r} is no sha256", "name files by their sha256")
        return self._context.files / sha256

    def _tell(self, what: str, done: int, of: int) -> None:
        self._context.reporter.preparing(self.train, what, done, of)


def _tensors(recipe: TrainSpec, model: Trainable, pipe: Any) -> dict[str, torch.Tensor]:
    """What has been learned, in the layout that was asked for."""
    ratio = recipe.alpha / recipe.rank
    if recipe.network != LORA:
        return lycoris_file.tensors(model.parameters, ratio, pipe)
    found = lora_file.changes(model.parameters, ratio)
    return lora_file.kohya(found, pipe) if recipe.format == KOHYA else lora_file.peft(found)


def _predicts(pipe: Any) -> str:
    return str(pipe.scheduler.config.get("prediction_type", "flow"))


def _fingerprint(train: Dispatch) -> str:
    """Of all that a training's weights follow from, as the first checkpoints have it."""
    spec = train.training
    plain = replace(spec, name="", sample_prompts=(), sample_every=0, format="", when_idle=False, checkpoint_every=0)
    told = ", ".join(f"{name}={getattr(plain, name)!r}" for name in _FINGERPRINTED)
    told += "".join(f", {name}={value!r}" for name, value in spec.chosen.items())
    told += f", base={spec.base_lora_sha256!r}" if spec.base_lora_sha256 else ""
    shown = [(one.sha256, spec.caption(one), *_chosen(one)) for one in train.pictures]
    return hashlib.sha256(f"(Recipe({told}), {train.model.sha256!r}, {shown!r})".encode()).hexdigest()


def _chosen(one: Picture) -> tuple[object, ...]:
    return (one.repeats, one.mask_sha256) if one.repeats != 1 or one.mask_sha256 else ()


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
