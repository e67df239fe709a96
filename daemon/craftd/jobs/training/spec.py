"""What a train job is asked for, and what that means once every default is filled in."""

from __future__ import annotations

from dataclasses import dataclass

PEFT, KOHYA = "peft", "kohya"
SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class TrainWish:
    """As asked for: None and "" mean the architecture's default. Fields are called as the message's."""

    name: str
    model: str = ""
    dataset: str = ""
    trigger: str = ""
    rank: int | None = None
    alpha: float | None = None
    steps: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    gradient_accumulation: int | None = None
    resolution: int | None = None
    train_text_encoder: bool = False
    dora: bool = False
    sample_prompts: tuple[str, ...] = ()
    sample_every: int = 0
    seed: int | None = None
    flip: bool = False
    min_snr_gamma: float | None = None
    ema_decay: float | None = None
    gradient_checkpointing: bool | None = None
    format: str = ""
    when_idle: bool = False
    checkpoint_every: int = 0
    class_prompt: str = ""
    class_pictures: int = 0
    prior_weight: float | None = None
    learning_rate_schedule: str = ""
    warmup_steps: int | None = None
    caption_dropout: float | None = None
    resume: str = ""


@dataclass(frozen=True)
class TrainSpec:
    """Resolved: the training can be made again from this, the model and the dataset."""

    name: str
    model: str
    dataset: str
    trigger: str
    rank: int
    alpha: float
    steps: int
    epochs: int
    learning_rate: float
    batch_size: int
    gradient_accumulation: int
    resolution: int
    train_text_encoder: bool
    dora: bool
    sample_prompts: tuple[str, ...]
    sample_every: int
    seed: int
    flip: bool
    min_snr_gamma: float
    ema_decay: float
    gradient_checkpointing: bool
    format: str
    when_idle: bool
    checkpoint_every: int
    class_prompt: str
    class_pictures: int
    prior_weight: float
    learning_rate_schedule: str
    warmup_steps: int
    caption_dropout: float
    resume: str = ""  # the job whose checkpoint it begins with

    @property
    def wanted(self) -> tuple[int, ...]:
        """It draws no images of its own."""
        return ()
