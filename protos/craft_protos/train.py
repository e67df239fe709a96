"""How a LoRA is trained: as a caller asks for it, and resolved. The fields are training.proto's."""

from __future__ import annotations

from craft_protos.frozen import dataclass
from craft_protos.train_options import TrainOptions

PEFT, KOHYA = "peft", "kohya"
POLYNOMIAL, RESTARTS = "polynomial", "cosine_with_restarts"
SCHEDULES = ("constant", "cosine", "linear", RESTARTS, POLYNOMIAL)


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset: DatasetPicture."""

    file_name: str  # as whoever sent it called it
    sha256: str
    size_bytes: int
    width: int  # after EXIF orientation
    height: int
    caption: str = ""  # empty: none
    repeats: int = 1  # how often it comes in an epoch
    mask_sha256: str = ""  # white: counts in the loss; "": it has none
    mask_bytes: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """By their sha256."""
        return (self.sha256, self.mask_sha256) if self.mask_sha256 else (self.sha256,)


@dataclass(frozen=True)
class TrainRequest(TrainOptions):
    """What a caller asks for: None and "" mean the architecture's default."""

    name: str = ""
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
    resume: str = ""  # go on with this job, or the last training of this name
    base_lora: str = ""  # begin with this one


@dataclass(frozen=True)
class TrainSpec(TrainOptions):
    """The request with everything resolved: the training can be made again from this, the model and the dataset."""

    name: str
    model: str
    dataset: str
    trigger: str
    rank: int
    alpha: float
    steps: int  # of the optimizer
    epochs: int
    learning_rate: float
    batch_size: int
    gradient_accumulation: int
    resolution: int  # pixels
    train_text_encoder: bool = False
    dora: bool = False
    sample_prompts: tuple[str, ...] = ()
    sample_every: int = 0  # steps; 0: only at the end
    seed: int = 0
    flip: bool = False
    min_snr_gamma: float = 0.0  # here and below: 0 turns it off
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
    resume: str = ""  # the job whose checkpoint it begins with
    base_lora: str = ""  # the id of the LoRA that it begins with
    base_lora_sha256: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def wanted(self) -> tuple[int, ...]:
        """It draws no images of its own."""
        return ()

    @property
    def has_prior(self) -> bool:
        """Whether pictures of the class keep the model from forgetting it (Ruiz et al. 2022)."""
        return bool(self.class_prompt) and self.class_pictures > 0

    def caption(self, picture: Picture) -> str:
        return picture.caption or self.trigger

    def held_out(self, count: int) -> frozenset[int]:
        """Which of so many pictures, in the order in which they are trained on, are kept for validation."""
        return held_out(self.validation, self.seed, count)


def held_out(validation: float, seed: int, count: int) -> frozenset[int]:
    """The same for the same seed; of a part one at least."""
    import random  # which most commands can do without

    if not validation:
        return frozenset()
    kept = max(1, round(count * validation)) if validation < 1 else int(validation)
    return frozenset(random.Random(seed).sample(range(count), min(kept, count)))
