"""What to draw: as a caller asks for it, and resolved. Every side uses these; the fields are jobs.proto's."""

from __future__ import annotations

from dataclasses import MISSING, asdict, fields, replace
from typing import Any

from craft_protos.frozen import dataclass
from craft_protos.lora import MOST_LORAS, LoraRef
from craft_protos.rules import Choice, Length, Range, ruled

SEED_LIMIT = 2**53  # beyond it JSON readers lose digits
FAIL, SKIP = "fail", "skip"  # what becomes of a LoRA that does not fit in full
MOST_CLIP_SKIP = 12  # layers of CLIP, in Stable Diffusion 1
FORMAT_NAMES = ("png", "jpeg", "webp")
# How prompts are written: craft's own weights, AUTOMATIC1111's language, and words alone.
CRAFT, A1111, PLAIN = SYNTAXES = ("craft", "a1111", "plain")
FITS = ("crop", "fill", "stretch")  # how a picture comes to another shape than its own; jobs.proto says what each does
MOST_MASK_PIXELS = 4096  # of a mask's grow, blur and padding
LANCZOS = "lanczos"  # enlarges without a network
UPSCALER = "upscaler"  # how the kinds of parts begin that enlarge
MOST_UPSCALE, MOST_HIRES = 16, 8  # times as wide and as high
MOST_REFERENCES = 16
MOST_CONTROLS = 8
MAP = "none"  # the kind of a control picture that is a map already
MAPS = ("depth-map", "pose-map", "gray-map", "blur-map", "low-quality-map")  # the same, and of what
# What is made of a control picture before its model sees it.
CONTROL_KINDS = (MAP, "canny", "edges", "scribble", "tile", "invert", *MAPS)
LARGEST_CONTROL = 10.0  # scale


@dataclass(frozen=True)
class Start:
    """The picture that image-to-image begins from, by its sha256 in the input store."""

    sha256: str = ""
    strength: float | None = ruled(None, Range(0, 1))  # 0: as it is; in a job never None
    fit: str = ruled("crop", Choice(FITS))

    @property
    def share(self) -> float:
        """The strength of a job's start, which always has one."""
        assert self.strength is not None, self.sha256
        return self.strength


@dataclass(frozen=True)
class Mask:
    """The picture whose white is drawn anew, by its sha256 in the input store. Pixels are the start's."""

    sha256: str = ""
    blur: float | None = ruled(None, Range(0, MOST_MASK_PIXELS))  # in a job never None
    grow: int = ruled(0, Range(-MOST_MASK_PIXELS, MOST_MASK_PIXELS))
    invert: bool = False
    padding: int | None = ruled(None, Range(0, MOST_MASK_PIXELS))  # None: the whole is drawn


@dataclass(frozen=True)
class Reference:
    """A picture that the model is shown, by its sha256 in the input store."""

    sha256: str = ""


@dataclass(frozen=True)
class Upscale:
    """How a finished picture is enlarged: by a registered upscaler, "" for the usual one, or by LANCZOS."""

    model: str = ""
    scale: float | None = ruled(None, Range(1, MOST_UPSCALE))  # None: the upscaler's own; in a job never None

    @property
    def factor(self) -> float:
        """The scale of a job's, which always has one."""
        assert self.scale is not None, self.model
        return self.scale

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """What a picture of that size becomes."""
        return max(1, round(width * self.factor)), max(1, round(height * self.factor))


@dataclass(frozen=True)
class Hires:
    """How a picture is drawn, enlarged by `upscaler`, and drawn again, from itself. In a job nothing is None."""

    scale: float | None = ruled(None, Range(1, MOST_HIRES))
    strength: float | None = ruled(None, Range(0, 1))  # of the second drawing, as Start has it
    steps: int | None = ruled(None, Range(1, 100_000))  # of the second drawing, as the user counts them
    upscaler: str = ""
    width: int | None = ruled(None, Range(1, 65_536))  # of the second drawing
    height: int | None = ruled(None, Range(1, 65_536))

    @property
    def size(self) -> tuple[int, int]:
        """Of a job's second drawing."""
        assert self.width is not None and self.height is not None, self.upscaler
        return self.width, self.height


@dataclass(frozen=True)
class Refiner:
    """A second model that goes on with the latents after that share of the noise schedule. In a job nothing is None."""

    model: str = ""
    switch: float | None = ruled(None, Range(0, 1))

    @property
    def share(self) -> float:
        """The switch of a job's, which always has one."""
        assert self.switch is not None, self.model
        return self.switch


@dataclass(frozen=True)
class Control:
    """A picture that shows where things are, by its sha256 in the input store, for a control model to read."""

    sha256: str = ""
    kind: str = MAP  # one of CONTROL_KINDS
    model: str = ""  # in a job a registered control model's name
    scale: float | None = ruled(None, Range(0, LARGEST_CONTROL))  # in a job never None, as the next two
    start: float | None = ruled(None, Range(0, 1))  # shares of the steps between which it counts
    end: float | None = ruled(None, Range(0, 1))
    fit: str = ruled("", Choice(("", *FITS)))  # in a job never empty


@dataclass(frozen=True)
class ExpandedPrompt:
    """One picture's prompts, of those that wildcards were chosen for."""

    prompt: str = ""
    negative_prompt: str = ""


def steps_of(steps: int, start: Start | None) -> int:
    """How many of a job's steps are done: with a start picture the last ones, as many as diffusers takes."""
    return steps if start is None else min(int(steps * start.share), steps)


@dataclass(frozen=True)
class GenerateRequest:
    """What a caller asks for: None and "" mean the model's own default."""

    prompt: str = ""
    negative_prompt: str = ""
    model: str = ""
    width: int | None = ruled(None, Range(1, 65_536))
    height: int | None = ruled(None, Range(1, 65_536))
    steps: int | None = ruled(None, Range(1, 100_000))
    guidance_scale: float | None = ruled(None, Range(0, 1000))
    seed: int | None = ruled(None, Range(0, SEED_LIMIT - 1))
    count: int = ruled(1, Range(1, 100_000))
    sampler: str = ""
    format: str = ruled("", Choice(("", *FORMAT_NAMES)))
    deterministic: bool = False
    indices: tuple[int, ...] = ruled((), Length(1000))  # only these of the count; none: all
    loras: tuple[LoraRef, ...] = ruled((), Length(MOST_LORAS))  # beside those in the prompt
    lora_missing: str = ruled(FAIL, Choice((FAIL, SKIP)))
    trigger_words: bool = False
    default_model: str = ""  # the caller's own, where `model` says nothing
    # Those that only some architectures understand: a row of the registry `takes` them, others refuse them.
    clip_skip: int | None = ruled(None, Range(1, MOST_CLIP_SKIP))  # CLIP's layer that is read; 1 is its last
    guidance_rescale: float | None = ruled(None, Range(0, 1))  # how much of guidance's overexposure is taken back
    # What an SDXL is told of the picture: pixels before it was scaled (0: as drawn), and what a crop took off.
    original_width: int | None = ruled(None, Range(0, 65_536))
    original_height: int | None = ruled(None, Range(0, 65_536))
    crop_left: int | None = ruled(None, Range(0, 65_536))
    crop_top: int | None = ruled(None, Range(0, 65_536))
    start: Start | None = None  # image-to-image
    mask: Mask | None = None  # inpainting: with a start
    references: tuple[Reference, ...] = ruled((), Length(MOST_REFERENCES))  # in the order of their numbers
    upscale: Upscale | None = None  # what was drawn is enlarged
    hires: Hires | None = None  # it is drawn twice, the second time enlarged
    controls: tuple[Control, ...] = ruled((), Length(MOST_CONTROLS))
    prompt_syntax: str = ruled("", Choice(("", *SYNTAXES)))  # "": the configured one
    refiner: Refiner | None = None  # a second model does the last of the steps
    wildcards: bool = False  # {a|b} and __name__ in the prompts are chosen anew for each picture
    true_cfg_scale: float | None = ruled(None, Range(0, 1000))  # guidance by the negative prompt, of FLUX.1


@dataclass(frozen=True)
class TextSpec:
    """The part of a spec that its conditioning follows from."""

    prompt: str
    negative_prompt: str = ""
    guidance_scale: float = 1.0
    clip_skip: int = 1
    guidance_rescale: float = 0.0
    original_width: int = 0  # 0: the size that is drawn
    original_height: int = 0
    crop_left: int = 0
    crop_top: int = 0
    prompt_syntax: str = CRAFT
    true_cfg_scale: float = 1.0

    @property
    def clip_skip_of_negative(self) -> int:
        """AUTOMATIC1111 reads both prompts at the same layer, diffusers skips in the prompt alone."""
        return self.clip_skip if self.prompt_syntax == A1111 else 1


@dataclass(frozen=True)
class GenerateSpec:
    """The request with everything resolved: the image can be made from this and the model alone."""

    prompt: str
    negative_prompt: str
    model: str
    width: int
    height: int
    steps: int
    guidance_scale: float
    seed: int  # of image 0; image i has seed + i
    count: int
    sampler: str
    format: str = "png"
    deterministic: bool = False
    indices: tuple[int, ...] = ()
    loras: tuple[LoraRef, ...] = ()
    lora_missing: str = FAIL
    clip_skip: int = 1
    guidance_rescale: float = 0.0
    original_width: int = 0
    original_height: int = 0
    crop_left: int = 0
    crop_top: int = 0
    start: Start | None = None
    mask: Mask | None = None
    references: tuple[Reference, ...] = ()
    upscale: Upscale | None = None
    hires: Hires | None = None
    controls: tuple[Control, ...] = ()
    prompt_syntax: str = CRAFT
    refiner: Refiner | None = None
    wildcards: bool = False
    expanded: tuple[ExpandedPrompt, ...] = ()  # of the wanted images, where the prompts have wildcards
    true_cfg_scale: float = 1.0

    def of_image(self, index: int) -> GenerateSpec:
        """The spec with that image's own prompts, where wildcards were chosen."""
        if not self.expanded:
            return self
        own = self.expanded[self.wanted.index(index)]
        return replace(self, prompt=own.prompt, negative_prompt=own.negative_prompt, expanded=(), wildcards=False)

    @property
    def text(self) -> TextSpec:
        return TextSpec(**{field.name: getattr(self, field.name) for field in fields(TextSpec)})

    @property
    def has_pictures(self) -> bool:
        """Whether it is drawn from others."""
        return self.start is not None or bool(self.references or self.controls)

    @property
    def control_models(self) -> tuple[str, ...]:
        """Names of those that it is drawn with; each once."""
        return tuple(dict.fromkeys(control.model for control in self.controls))

    @property
    def upscalers(self) -> tuple[str, ...]:
        """Names of those that its pictures go through, beside its model; each once."""
        named = (self.hires and self.hires.upscaler, self.upscale and self.upscale.model)
        return tuple(dict.fromkeys(name for name in named if name and name != self.model))

    @property
    def later_models(self) -> tuple[str, ...]:
        """Names of what its pictures go through after its model."""
        return (*self.upscalers, *((self.refiner.model,) if self.refiner else ()))

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all that a worker needs, the model first."""
        return (self.model, *self.control_models, *self.later_models)

    @property
    def wanted(self) -> tuple[int, ...]:
        """Indices of the images that are drawn."""
        return self.indices or tuple(range(self.count))


# Fields of a request that few architectures understand -> what the spec says where nothing is asked.
OPTIONAL: dict[str, Any] = {
    field.name: field.default
    for field in fields(GenerateSpec)
    if field.default is not MISSING and getattr(GenerateRequest, field.name, MISSING) is None
} | {"references": (), "controls": ()}
for _whatever_draws in ("upscale", "hires"):
    del OPTIONAL[_whatever_draws]


def public_json(spec: GenerateSpec) -> dict[str, Any]:
    """As `craft --json` and the HTTP API tell of it."""
    told = {name: value for name, value in asdict(spec).items() if name != "indices"}
    told["loras"] = [
        {"id": o.lora, "name": o.name, "sha256": o.sha256, "weight": o.weight, **o.details} for o in spec.loras
    ]
    return told
