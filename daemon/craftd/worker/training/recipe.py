"""What a training is asked for, every number resolved."""

from __future__ import annotations

from dataclasses import dataclass

PEFT, KOHYA = "peft", "kohya"


@dataclass(frozen=True)
class TrainPicture:
    """One picture of the dataset; its file lies in the store by sha256."""

    sha256: str
    file_name: str
    width: int  # after EXIF orientation
    height: int
    caption: str  # empty: the trigger phrase


@dataclass(frozen=True)
class Recipe:
    """How the LoRA is trained. Nought turns off what can be turned off."""

    name: str
    trigger: str
    rank: int
    alpha: float
    steps: int  # of the optimizer
    learning_rate: float
    batch_size: int
    gradient_accumulation: int
    resolution: int  # pixels
    seed: int
    train_text_encoder: bool = False
    dora: bool = False
    sample_prompts: tuple[str, ...] = ()
    sample_every: int = 0  # steps; 0: only at the end
    flip: bool = False
    min_snr_gamma: float = 0.0
    ema_decay: float = 0.0
    gradient_checkpointing: bool = False
    format: str = PEFT
    when_idle: bool = False
    checkpoint_every: int = 0
    class_prompt: str = ""
    class_pictures: int = 0
    prior_weight: float = 1.0
    learning_rate_schedule: str = "constant"
    warmup_steps: int = 0
    caption_dropout: float = 0.0

    @property
    def has_prior(self) -> bool:
        """Whether pictures of the class keep the model from forgetting it (Ruiz et al. 2022)."""
        return bool(self.class_prompt) and self.class_pictures > 0

    def caption(self, picture: TrainPicture) -> str:
        return picture.caption or self.trigger
