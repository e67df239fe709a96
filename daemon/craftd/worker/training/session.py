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
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from craft_protos.reasons import CraftError
from PIL import Image

from craftd.architectures import buckets
from craftd.architectures import training as defaults
from craftd.worker import memory, picture
from craftd.worker.device import Device
from craftd.worker.families.base import Family
from craftd.worker.messages import Train, is_sha256
from craftd.worker.movement import Movement
from craftd.worker.picture import Pixels
from craftd.worker.reporter import Progress, Reporter
from craftd.worker.training import lora_file, objective, pictures, scene, state, stored, trainable
from craftd.worker.training.dataset import Dataset, Item, text_key
from craftd.worker.training.encoded import Encoded
from craftd.worker.training.notes import Subject, notes
from craftd.worker.training.recipe import KOHYA
from craftd.worker.training.scene import Computing, Painting, Scene
from craftd.worker.training.state import State
from craftd.worker.training.trainable import Kind, Trainable
from craftd.worker.training.trainer import StepDone, Trainer
from craftd.worker.training.writer import Writer

_log = logging.getLogger(__name__)

Pieces = Generator[None, None, None]


@dataclass(frozen=True)
class Workshop:
    """What every training of a worker works with."""

    files: Path
    workplace: Path
    device: Device
    movement: Movement
    reporter: Reporter
    clock: Callable[[], float]


class Session:
    """Owned by the engine's thread."""

    def __init__(self, train: Train, shop: Workshop) -> None:
        self.train = train
        self._shop = shop
        self._recipe = train.recipe
        self._place = shop.device.place
        self._folder = shop.workplace / f"training-{uuid4().hex}"
        self._encoded = Encoded(self._folder)
        self._writer = Writer(shop.files, lambda step, made: shop.reporter.checkpoint(train, step, made))
        self._state: State | None = None
        self._trainer: Trainer | None = None
        self._life: Pieces | None = None
        self._is_started = False
        self._resumed_at = 0
        self._painting: tuple[Hashable, Painting] | None = None
        self._sampled: set[Hashable] = set()
        self._preview: Pixels | None = None  # of the first prompt, when it was last drawn; None where it could not be

    @property
    def step(self) -> int:
        """Steps done."""
        if self._trainer is not None:
            return self._trainer.step
        return self._state.step if self._state is not None else 0

    def attach(self, pipe: Any) -> None:
        """Go on with that model. Raises UNTRAINABLE_MODEL, and OUT_OF_MEMORY for one that is not on the device."""
        self._life = self._run(pipe, trainable.check(pipe, self.train.model.name))
        if not self._is_started:
            self._is_started = True
            self._shop.reporter.started(self.train, "")

    def turn(self) -> bool:
        """One piece of work; True once there is none left. Raises what went wrong."""
        assert self._life is not None
        with memory.recognised():
            self._writer.poll()
            return next(self._life, self) is self

    def put_aside(self) -> None:
        """Let go of the model."""
        if self._life is not None:
            self._life.close()
        if self._trainer is not None:
            self._state = self._trainer.state()
        self._life = self._trainer = None
        memory.release()

    def settle(self) -> None:
        """Before it fails: its last checkpoint is what can be gone on with."""
        with suppress(CraftError, *memory.OUT_OF_MEMORY):
            self._writer.settle()

    def close(self) -> None:
        """It is over, in whichever way."""
        if self._life is not None:
            self._life.close()
        self._life = self._trainer = self._state = None
        self._writer.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        memory.release()

    def _run(self, pipe: Any, kind: Kind) -> Pieces:
        self._read_checkpoint()
        goal = objective.of(pipe.scheduler, self._recipe.min_snr_gamma)
        datasets = yield from self._encode(pipe, kind)
        model = Trainable(pipe, kind, self._recipe, self._place, self._shop.movement)
        trainer = Trainer(model, goal, self._recipe, *datasets)
        if self._state is not None:
            trainer.load(self._state)
        self._trainer, self._state = trainer, None  # once it is whole: what is put aside is what it holds
        yield
        yield from self._learn(trainer, model)
        yield from self._finish(trainer, model, pipe)

    # Before

    def _read_checkpoint(self) -> None:
        sha256 = self.train.checkpoint_sha256
        if self._state is not None or not sha256:
            return
        self._state = state.read(self._file(sha256), _fingerprint(self.train))
        self._resumed_at = self._state.step

    def _encode(self, pipe: Any, kind: Kind) -> Generator[None, None, tuple[Dataset, Dataset | None]]:
        """Everything that a step needs and that no step changes."""
        if not self._recipe.train_text_encoder:
            yield from self._encode_captions(pipe, kind)
        items = list(self._items(pipe))
        yield from self._encode_pictures(pipe, items)
        own = Dataset(items, self._encoded, self._place)
        if not self._recipe.has_prior:
            return own, None
        imagined = list(self._class_items(pipe))
        yield from self._imagine_class(pipe, imagined)
        return own, Dataset(imagined, self._encoded, self._place)

    def _encode_captions(self, pipe: Any, kind: Kind) -> Pieces:
        recipe = self._recipe
        captions = [recipe.caption(one) for one in self.train.pictures]
        captions += [recipe.class_prompt] if recipe.has_prior else []
        captions += [""] if recipe.caption_dropout else []
        wanted = list(dict.fromkeys(captions))
        for i, caption in enumerate(wanted):
            if text_key(caption) not in self._encoded:
                with torch.no_grad():
                    text = trainable.encode_texts(pipe, kind, [caption], self._place)
                self._encoded.put(text_key(caption), text.as_tensors())
                self._tell("captions", i + 1, len(wanted))
                yield

    def _items(self, pipe: Any) -> Iterator[Item]:
        unit = _unit(pipe)
        for i, one in enumerate(self.train.pictures):
            size = buckets.bucket(max(one.width, 1), max(one.height, 1), self._recipe.resolution, unit)
            yield Item(i, size, self._recipe.caption(one))

    def _encode_pictures(self, pipe: Any, items: list[Item]) -> Pieces:
        ways = (False, True) if self._recipe.flip else (False,)
        for i, (item, one) in enumerate(zip(items, self.train.pictures, strict=True)):
            for is_flipped in ways:
                key = item.latents_key(is_flipped=is_flipped)
                if key not in self._encoded:
                    pixels = pictures.load(self._file(one.sha256), one.file_name, item.size, is_flipped=is_flipped)
                    with torch.no_grad():
                        latents = trainable.encode_pixels(pipe, pixels, self._place)
                    _check_finite(latents, one.file_name, self._shop.device.precision)
                    self._encoded.put(key, {"latents": latents})
                    self._tell("pictures", i + 1, len(items))
                    yield

    def _class_items(self, pipe: Any) -> Iterator[Item]:
        side = self._side(pipe)
        for i in range(self._recipe.class_pictures):
            yield Item(("class", i), (side, side), self._recipe.class_prompt)

    def _imagine_class(self, pipe: Any, items: list[Item]) -> Pieces:
        """Pictures that the model itself makes; their latents are all that is wanted of them."""
        for i, item in enumerate(items):
            if item.latents_key() not in self._encoded:
                asked = self._scene(pipe, item.caption, self._recipe.seed + 1 + i)
                family = trainable.family_of(pipe, self._place)
                latents = yield from self._paint(item.key, asked, family, self._computing(pipe))
                self._encoded.put(item.latents_key(), {"latents": latents.float()})
                if self._recipe.flip:
                    flipped = latents.float().flip(-1)
                    self._encoded.put(item.latents_key(is_flipped=True), {"latents": flipped})
                self._tell("class pictures", i + 1, len(items))
                yield

    # Training

    def _learn(self, trainer: Trainer, model: Trainable) -> Pieces:
        began, first = self._shop.clock(), trainer.step
        yield from self._sample_if_due(trainer, model)
        while trainer.step < self._recipe.steps:
            done = trainer.micro_batch()
            if done is not None:
                self._report(done, (self._shop.clock() - began) / (done.step - first))
                self._checkpoint_if_due(trainer)  # first: sampling may end in being put aside
                yield from self._sample_if_due(trainer, model)
            yield

    def _report(self, done: StepDone, seconds_a_step: float) -> None:
        left = (self._recipe.steps - done.step) * seconds_a_step
        self._shop.reporter.trained(
            self.train, Progress(done.step, self._recipe.steps, done.loss, done.learning_rate, left)
        )

    def _sample_if_due(self, trainer: Trainer, model: Trainable) -> Pieces:
        recipe, step = self._recipe, trainer.step
        is_due = recipe.sample_every and step % recipe.sample_every == 0 and self._resumed_at < step < recipe.steps
        if is_due:
            yield from self._sample(trainer, model, recipe.sample_prompts)

    def _sample(self, trainer: Trainer, model: Trainable, prompts: Sequence[str]) -> Pieces:
        """A picture of each prompt, unless it was drawn after this step already."""
        for i, prompt in enumerate(prompts):
            key = ("sample", trainer.step, i)
            if key in self._sampled:
                continue
            asked = self._scene(model.pipe, prompt, self._recipe.seed)
            pixels = yield from self._draw(key, asked, trainer, model)
            self._sampled.add(key)
            self._preview = pixels if i == 0 else self._preview
            if pixels is not None:
                self._shop.reporter.sample(self.train, trainer.step, prompt, asked.seed, _png(pixels))
            yield

    def _draw(
        self, key: Hashable, asked: Scene, trainer: Trainer, model: Trainable
    ) -> Generator[None, None, Pixels | None]:
        """None where it cannot be drawn: no picture is worth the steps that are done."""
        try:
            with trainer.averaged():
                family = trainable.family_of(model.pipe, self._place)
                latents = yield from self._paint(key, asked, family, model.computing)
                return scene.decode(latents, family)
        except torch.AcceleratorError:
            raise
        except Exception as exc:  # whatever it was, the training goes on
            _log.warning("the sample of %r after step %d is left out", asked.prompt, trainer.step, exc_info=exc)
            self._painting = None
        memory.release()
        return None

    def _paint(
        self, key: Hashable, asked: Scene, family: Family, computing: Computing
    ) -> Generator[None, None, torch.Tensor]:
        """The finished latents; what is half drawn stays, wherever the training is put aside."""
        if self._painting is None or self._painting[0] != key:
            self._painting = (key, Painting(asked))
        painting = self._painting[1]
        while not painting.is_done:
            painting.advance(family, computing)
            yield
        self._painting = None
        return painting.latents

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
            found = lora_file.changes(model.parameters, self._recipe.alpha)
        tensors = lora_file.kohya(found, pipe) if self._recipe.format == KOHYA else lora_file.peft(found)
        subject = Subject(
            architecture=_architecture(pipe, model.kind, self.train.model.name),
            predicts=_predicts(pipe),
            model=self.train.model,
            recipe=self._recipe,
            pictures=self.train.pictures,
            precision=self._shop.device.precision,
            steps=trainer.step,
            preview_jpeg=b"" if self._preview is None else picture.encode_preview(self._preview),
        )
        made = stored.put(self._shop.files, stored.safetensors(tensors, notes(subject, tensors)))
        self._shop.reporter.lora(self.train, made, b"" if self._preview is None else _png(self._preview))

    @property
    def _shown(self) -> str:
        """The prompt of the preview where no other is asked for."""
        return self._recipe.trigger or self._recipe.caption(self.train.pictures[0])

    def _scene(self, pipe: Any, prompt: str, seed: int) -> Scene:
        kind = trainable.KINDS[type(pipe).__name__]
        usual = defaults.row(_architecture(pipe, kind, self.train.model.name))
        side = self._side(pipe)
        return Scene(prompt, seed, side, side, usual.sample_steps, usual.guidance_scale)

    def _side(self, pipe: Any) -> int:
        return buckets.sizes(self._recipe.resolution, _unit(pipe))[0][0]

    def _computing(self, pipe: Any) -> Computing:
        kind = trainable.KINDS[type(pipe).__name__]
        dtype = getattr(pipe, kind.denoiser).dtype
        return lambda: trainable.computing(self._place, dtype)

    def _file(self, sha256: str) -> Path:
        if not is_sha256(sha256):
            raise CraftError("UNSAFE_PATH", f"{sha256!r} is no sha256", "name files by their sha256")
        return self._shop.files / sha256

    def _tell(self, what: str, done: int, of: int) -> None:
        self._shop.reporter.preparing(self.train, what, done, of)


def _unit(pipe: Any) -> int:
    """Pixels that every side is a multiple of."""
    transformer = getattr(pipe, "transformer", None)
    patch = 1
    if transformer is not None:
        patch = transformer.config.patch_size if type(pipe).__name__ == "StableDiffusion3Pipeline" else 2
    return int(pipe.vae_scale_factor) * int(patch)


def _architecture(pipe: Any, kind: Kind, model: str) -> str:
    if kind.architecture != "sd":
        return kind.architecture
    if model == "pocket":
        return "pocket"
    return "sd2" if pipe.unet.config.cross_attention_dim == 1024 else "sd1"


def _predicts(pipe: Any) -> str:
    return str(pipe.scheduler.config.get("prediction_type", "flow"))


def _fingerprint(train: Train) -> str:
    """Of all that a training's weights follow from."""
    plain = replace(
        train.recipe, name="", sample_prompts=(), sample_every=0, format="", when_idle=False, checkpoint_every=0
    )
    shown = [(one.sha256, train.recipe.caption(one)) for one in train.pictures]
    return hashlib.sha256(repr((plain, train.model.sha256, shown)).encode()).hexdigest()


def _check_finite(latents: torch.Tensor, name: str, precision: str) -> None:
    if not torch.isfinite(latents).all():
        raise CraftError(
            "BAD_DATASET",
            f"picture {name}: the autoencoder gives numbers that are not finite",
            f"it was computed in {precision}; try --precision bf16 or fp32, or leave the picture out",
        )


def _png(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
