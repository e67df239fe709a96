"""How a LoRA is trained where nothing else is asked for: a table, one row for each architecture.

Both sides read it: the front resolves a request's unset fields by it, the worker takes what a job carries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Defaults:
    """One architecture's. Nought means off where a TrainSpec's field says so."""

    architecture: str
    rank: int  # alpha is the same, so that the rank alone does not change how much a step does
    learning_rate: float
    steps: int  # optimizer steps
    batch_size: int
    resolution: int  # pixels: the side of the square whose area each bucket has
    min_snr_gamma: float  # Hang et al. 2023; means nothing to flow matching
    gradient_checkpointing: bool
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    learning_rate_schedule: str = "cosine"
    warmup_steps: int = 0
    caption_dropout: float = 0.0
    prior_weight: float = 1.0
    checkpoint_every: int = 100  # optimizer steps
    sample_steps: int = 20  # of a sample picture
    guidance_scale: float = 5.0


_ROWS = {
    row.architecture: row
    for row in (
        Defaults(
            *("pocket", 16, 4e-3, 250, 4, 256, 5, False),
            warmup_steps=10,
            checkpoint_every=50,
            sample_steps=12,
            guidance_scale=2.0,
        ),
        Defaults("sd1", 16, 1e-4, 1000, 4, 512, 5, False, warmup_steps=50, caption_dropout=0.05),
        Defaults("sd2", 16, 1e-4, 1000, 4, 768, 5, False, warmup_steps=50, caption_dropout=0.05),
        Defaults("sdxl", 16, 1e-4, 1000, 1, 1024, 5, True, warmup_steps=50, caption_dropout=0.05),
        Defaults("sd3", 16, 1e-4, 1000, 1, 1024, 0, True, warmup_steps=50, caption_dropout=0.05),
        Defaults("flux", 16, 1e-4, 1000, 1, 1024, 0, True, warmup_steps=50, guidance_scale=3.5),
    )
}


def of(model: str, family: str, side: int) -> Defaults | None:
    """For a model by its name, family and own picture side in pixels; None: no LoRA can be trained for its family."""
    row = _ROWS.get(_architecture(model, family, side))
    return row and replace(row, resolution=min(row.resolution, side))


def row(architecture: str) -> Defaults:
    return _ROWS[architecture]


def _architecture(model: str, family: str, side: int) -> str:
    if family == "sd":
        return "pocket" if model == "pocket" else "sd2" if side >= 768 else "sd1"
    return family
