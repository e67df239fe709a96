"""The optimizer's steps, one micro-batch after another.

Everything random comes from one generator on the CPU, in this order: the epochs' orders, and for each micro-batch
how pictures vary, noise, timesteps, how captions vary, and which are dropped. Its state, the adapter and the
optimizer's own state are all that a step follows from, so a training that goes on from a saved state gives the same
weights as one that never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from craft_protos.reasons import CraftError
from craft_protos.train import TrainSpec
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from craftd.worker.models import memory
from craftd.worker.training import captions as captions_of
from craftd.worker.training.dataset import Dataset, Order
from craftd.worker.training.objective import Objective
from craftd.worker.training.optimizers import Optimizer
from craftd.worker.training.state import State
from craftd.worker.training.trainable import Text, Trainable

_MOST_GRADIENT = 1.0  # norm


@dataclass(frozen=True)
class StepDone:
    """One step of the optimizer."""

    step: int  # 1-based
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class Work:
    """One micro-batch to come."""

    dataset: Dataset
    order: Order
    share: float  # of the step's loss


class Trainer:
    """Owned by one thread. `state` is always that of the last step that is done, however far the next one is."""

    def __init__(
        self, model: Trainable, objective: Objective, recipe: TrainSpec, pictures: Dataset, prior: Dataset | None
    ) -> None:
        self._model = model
        self._objective = objective
        self._recipe = recipe
        self._generator = torch.Generator("cpu").manual_seed(recipe.seed)
        self._parameters = list(model.parameters.values())
        self._optimizer = Optimizer(model.parameters, recipe, model.network)
        self._rate = _rate(self._optimizer.own, recipe)
        self._average = EMAModel(self._parameters, decay=recipe.ema_decay) if recipe.ema_decay else None
        self._orders = [
            Order(dataset.groups, recipe.batch_size, self._generator)
            for dataset in (pictures, prior)
            if dataset is not None
        ]
        self._step_work = list(self._works(pictures, prior))
        self._work = list(self._step_work)
        self._losses: list[float] = []
        self.step = 0
        self._mark()

    def micro_batch(self) -> StepDone | None:
        """Computes one forward and one backward pass; returns the step that it completed, if it did.

        Raises JOB_FAILED where the loss is no number.
        """
        work = self._work.pop(0)
        self._losses.append(self._learn(work) * work.share)
        return None if self._work else self._finish_step()

    def state(self) -> State:
        """Of the last step that is done; its tensors are copies."""
        generator, lefts = self._marked
        tensors = {"generator": generator}
        for i, (name, parameter) in enumerate(self._model.parameters.items()):
            tensors[f"weight/{name}"] = parameter
            if self._average is not None:
                tensors[f"average/{name}"] = self._average.shadow_params[i]
        tensors |= self._optimizer.tensors()
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        left, *class_left = (tuple(map(tuple, left)) for left in lefts)
        return State(self.step, copies, left, class_left[0] if class_left else (), self._optimizer.numbers())

    def load(self, state: State) -> None:
        """Go on from there. Raises CORRUPT_FILE where it does not fit, and OUT_OF_MEMORY's own."""
        try:
            with memory.recognised():
                self._load(state)
        except (*memory.OUT_OF_MEMORY, torch.AcceleratorError):
            raise
        except (KeyError, RuntimeError, ValueError, AttributeError, TypeError) as exc:
            raise CraftError("CORRUPT_FILE", f"the checkpoint does not fit: {exc}", "start the training anew") from exc

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """While it holds, the adapter is its moving average, where one is kept."""
        if self._average is None:
            with self._optimizer.averaged():
                yield
            return
        self._average.store(self._parameters)
        try:
            self._average.copy_to(self._parameters)
            yield
        finally:
            self._average.restore(self._parameters)

    def _works(self, pictures: Dataset, prior: Dataset | None) -> Iterator[Work]:
        share = 1 / self._recipe.gradient_accumulation
        for _ in range(self._recipe.gradient_accumulation):
            yield Work(pictures, self._orders[0], share)
            if prior is not None:
                yield Work(prior, self._orders[1], share * self._recipe.prior_weight)

    def _learn(self, work: Work) -> float:
        batch = work.dataset.batch(work.order.next(), flip=self._flips(), generator=self._generator)
        task = self._objective.task(batch.latents, self._generator)
        captions = self._dropped([captions_of.varied(one, self._recipe, self._generator) for one in batch.captions])
        with self._model.computing():
            text = self._text(work, captions)
            loss = task.loss(self._model.predict(task.samples, task.timesteps, text), batch.mask)
        torch.autograd.backward(loss * work.share)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss of step {self.step + 1} is {value}")
        return value

    def _text(self, work: Work, captions: Sequence[str]) -> Text:
        """Encoded now where it learns, or where captions are another each time; otherwise it was encoded before."""
        if self._model.text_is_trained:
            return self._model.encode_texts(captions)
        if not self._recipe.varies_captions:
            return work.dataset.text(captions)
        with torch.no_grad():
            return self._model.encode_texts(captions)

    def _finish_step(self) -> StepDone:
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, _MOST_GRADIENT)
        if not torch.isfinite(norm):
            raise self._diverged(f"the gradients of step {self.step + 1} are not finite")
        rate = self._rate(self.step)
        self._optimizer.step(rate)
        if self._average is not None:
            self._average.step(self._parameters)
        self.step += 1
        done = StepDone(self.step, sum(self._losses), rate)
        self._work, self._losses = list(self._step_work), []
        self._mark()
        return done

    def _flips(self) -> bool:
        if not self._recipe.flip:
            return False
        return bool(torch.rand((), generator=self._generator) < 0.5)

    def _dropped(self, captions: Sequence[str]) -> list[str]:
        if not self._recipe.caption_dropout:
            return list(captions)
        drawn = torch.rand(len(captions), generator=self._generator).tolist()
        return [
            "" if chance < self._recipe.caption_dropout else own for chance, own in zip(drawn, captions, strict=True)
        ]

    def _mark(self) -> None:
        self._marked = (self._generator.get_state(), [[list(batch) for batch in order.left] for order in self._orders])

    def _load(self, state: State) -> None:
        tensors = state.tensors
        with torch.no_grad():
            for i, (name, parameter) in enumerate(self._model.parameters.items()):
                parameter.copy_(tensors[f"weight/{name}"])
                if self._average is not None:
                    self._average.shadow_params[i].copy_(tensors[f"average/{name}"])
        self._optimizer.load(tensors, state.numbers, state.step)
        if self._average is not None:
            self._average.optimization_step = state.step
        self._generator.set_state(tensors["generator"])
        for order, left in zip(self._orders, (state.left, state.class_left), strict=False):
            order.left = [list(batch) for batch in left]
        self.step = state.step
        self._mark()

    def _diverged(self, what: str) -> CraftError:
        rate = self._recipe.learning_rate
        hint = f"use a lower learning rate than {rate:g}, say --lr {rate / 4:g}"
        return CraftError("JOB_FAILED", f"the training diverged: {what}", hint)


def _rate(optimizer: torch.optim.Optimizer, recipe: TrainSpec) -> Callable[[int], float]:
    is_flat = recipe.learning_rate_schedule == "constant"
    schedule = get_scheduler(
        "constant_with_warmup" if is_flat else recipe.learning_rate_schedule,
        optimizer,
        num_warmup_steps=recipe.warmup_steps,
        num_training_steps=recipe.steps,
        num_cycles=recipe.schedule_restarts,
        power=recipe.schedule_power,
    )
    factor = schedule.lr_lambdas[0]
    return lambda step: recipe.learning_rate * factor(step)
