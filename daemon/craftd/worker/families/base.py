"""What a family of models must be able to do, and what the engine asks of a loaded model.

A **family** knows one architecture: encode, prepare, predict, decode. `denoise.Denoiser` draws
with any of them, row by row of a batch. A **runner** is what the engine sees of a loaded model:
a denoiser over a family, or a pipeline that brings its own loop (`generic.py`).
A family knows nothing of LoRAs but the order of its model rows: the denoiser applies them around its calls.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from craft_protos.reasons import CraftError

from craftd.worker.kept import tensor_bytes
from craftd.worker.lora import residents
from craftd.worker.lora.residents import Applied
from craftd.worker.messages import Draw
from craftd.worker.picture import Pixels
from craftd.worker.row import Drawing
from craftd.worker.samplers import Scheduler


@dataclass(frozen=True)
class Conditioning:
    """What a prompt has become. Tensors have a leading dimension of 1."""

    positive: torch.Tensor  # tokens, features
    negative: torch.Tensor | None  # None: no classifier-free guidance
    guidance_scale: float
    pooled: torch.Tensor | None = None  # features of the prompt as a whole, where the architecture takes them
    negative_pooled: torch.Tensor | None = None

    @property
    def text_length(self) -> int:
        return int(self.positive.shape[1])

    @property
    def model_rows(self) -> int:
        return 1 if self.negative is None else 2

    @property
    def size_bytes(self) -> int:
        return sum(map(tensor_bytes, (self.positive, self.negative, self.pooled, self.negative_pooled)))


@dataclass(frozen=True)
class ModelRow:
    """One request row's input to one model call."""

    sample: torch.Tensor  # 1, channels, height, width; scaled for the model
    timestep: torch.Tensor  # a scalar
    conditioning: Conditioning
    loras: Applied = residents.NONE


class TextEncoder(Protocol):
    """A text encoder that remembers what texts became."""

    variant: Hashable  # what is applied to it now; texts of another variant are other texts


class Family(Protocol):
    """One loaded model of a known architecture."""

    @property
    def texts(self) -> Sequence[TextEncoder]:
        """Its text encoders."""
        ...

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditioning: ...

    def schedule(self, sampler: str, steps: int, width: int, height: int) -> Scheduler:
        """A scheduler of its own for one row, with its timesteps; "" is the model's own kind.

        Raises INVALID_FIELD for a sampler or a number of steps that does not fit the model.
        """
        ...

    def prepare(self, width: int, height: int, generator: torch.Generator) -> torch.Tensor:
        """Noise of unit deviation: 1, channels, height, width. Raises INVALID_FIELD for a size it cannot draw."""
        ...

    def order(self, rows: Sequence[ModelRow]) -> Sequence[ModelRow]:
        """The model rows that `predict` makes of `rows`: one for each, and one for each negative prompt."""
        ...

    def predict(self, rows: Sequence[ModelRow]) -> list[torch.Tensor]:
        """The guided model output of each row, in one model call."""
        ...

    def decode(self, latents: torch.Tensor) -> list[Pixels]: ...

    def sketch(self, latents: torch.Tensor) -> Pixels:
        """About what one row's latents (without noise) will be, small and cheap."""
        ...

    def offload(self) -> bool:
        """Keep weights off the device while they are not used; False where that is no help."""
        ...

    def tile(self) -> bool:
        """Decode piecewise from now on; False where that cannot be."""
        ...


class Runner(Protocol):
    """A loaded model, as the engine sees it. One thread at a time may call `advance`."""

    @property
    def pipe(self) -> Any:
        """The loaded pipeline, whose weights a trainer may share; None where it cannot."""
        ...

    @property
    def resident_bytes(self) -> int: ...

    @property
    def precision(self) -> str: ...

    @property
    def notice(self) -> str:
        """What a user should know, said when one of its jobs starts."""
        ...

    @property
    def is_tiled(self) -> bool:
        """Whether it decodes piecewise, which changes pixels."""
        ...

    @property
    def is_reading(self) -> bool:
        """Whether LoRAs that jobs wait for are being read."""
        ...

    def want(self, jobs: Sequence[Draw]) -> Mapping[str, CraftError]:
        """Have the jobs' LoRAs ready, the first job's first; by job, why it can never be drawn."""
        ...

    def is_ready(self, job: Draw) -> bool:
        """Whether its LoRAs are there."""
        ...

    def begin(self, job: Draw, seed: int) -> Drawing: ...

    def that_fit(self, drawings: Sequence[Drawing]) -> int:
        """How many of the first there is memory for in one call, as to their LoRAs; one at least."""
        ...

    def advance(self, drawings: Sequence[Drawing], *, with_preview: Sequence[bool]) -> list[Exception | None]:
        """One model call, then each drawing's own step; gives what went wrong with each.

        Raises where the shared call failed; then all of them are as they were.
        """
        ...

    def render(self, drawings: Sequence[Drawing]) -> list[Pixels]: ...

    def offload(self) -> bool: ...

    def tile(self) -> bool: ...

    def close(self) -> None: ...
