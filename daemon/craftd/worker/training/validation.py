"""The loss of pictures that are not learned from: each time over the same noise and the same timesteps."""

from __future__ import annotations

from collections.abc import Generator

import torch
from craft_protos.train import TrainSpec

from craftd.worker.training.dataset import Dataset
from craftd.worker.training.objective import Objective
from craftd.worker.training.trainable import Trainable
from craftd.worker.training.trainer import Trainer

_DRAWS = 4  # of noise and timesteps for each picture
_SEED = 0x7A11DA7E  # beside the training's own, whose noise was learned


class Validation:
    """Takes the mean over all pictures that are kept for it, one of them after the other."""

    def __init__(self, dataset: Dataset, objective: Objective, recipe: TrainSpec, taken: dict[int, float]) -> None:
        """`taken`: of the pictures that it has come to, by place; kept while the training is put aside."""
        self._dataset = dataset
        self._objective = objective
        self._recipe = recipe
        self._taken = taken

    def loss(self, model: Trainable, trainer: Trainer) -> Generator[None, None, float]:
        """Of the weights that would be saved. A piece of work for each picture."""
        for place in range(len(self._dataset)):
            if place not in self._taken:
                with trainer.averaged(), torch.no_grad():
                    self._taken[place] = self._one(place, model)
                yield
        losses = list(self._taken.values())
        self._taken.clear()
        return sum(losses) / len(losses)

    def _one(self, place: int, model: Trainable) -> float:
        generator = torch.Generator("cpu").manual_seed((self._recipe.seed ^ _SEED) + place)
        return sum(self._drawn(place, model, generator) for _ in range(_DRAWS)) / _DRAWS

    def _drawn(self, place: int, model: Trainable, generator: torch.Generator) -> float:
        batch = self._dataset.batch([place], flip=False, generator=generator)
        task = self._objective.task(batch.latents, generator)
        is_encoded = not (model.text_is_trained or self._recipe.varies_captions)
        with model.computing():
            text = self._dataset.text(batch.captions) if is_encoded else model.encode_texts(batch.captions)
            return float(task.loss(model.predict(task.samples, task.timesteps, text), batch.mask))
