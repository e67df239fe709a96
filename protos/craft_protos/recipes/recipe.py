"""A recipe: how a picture was made, in craft's terms, whichever program made it."""

from __future__ import annotations

from craft_protos.frozen import dataclass
from craft_protos.generate import Hires

MOST_LORAS = 64  # that a recipe may name: more than a request may
MOST_SAYINGS = 100


@dataclass(frozen=True)
class Named:
    """A model's or a LoRA's file, as another program names it."""

    name: str = ""  # without folders and extension
    hash: str = ""  # the beginning of its sha256, or of its tensors'; in small hexadecimal digits
    version: str = ""  # Civitai's number of it


@dataclass(frozen=True)
class LoraUse(Named):
    """A LoRA and how strongly it was applied."""

    weight: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """None and "" mean that the file does not say it."""

    program: str
    prompt: str = ""
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    seed: int | None = None
    sampler: str = ""  # in the program's own words
    schedule: str = ""  # likewise
    prompt_syntax: str = ""  # how the program reads its prompts, where craft can read them so
    clip_skip: int | None = None
    strength: float | None = None  # how much of a start picture was drawn anew
    hires: Hires | None = None
    model: Named = Named()
    loras: tuple[LoraUse, ...] = ()
    not_understood: tuple[str, ...] = ()  # what else the file says and craft does not honour: "name: value"
