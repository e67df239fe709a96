"""AUTOMATIC1111's requests and answers, and what a request asks craft for."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from craft_protos import samplers, words
from craft_protos.generate import A1111, MOST_CLIP_SKIP, SEED_LIMIT, GenerateRequest, Refiner
from craft_protos.reasons import invalid
from pydantic import BaseModel, Field

from craftd.http.fields import Anything, Guidance, Real, Side, Steps, Text, Token, Whole
from craftd.http.forms.automatic1111_hires import HIRES_NAMES, HiresFields, hires
from craftd.http.forms.lenient import Lenient

_AUTOMATIC = ("automatic", "use same scheduler", "")
_NONE_NAMED = "Euler"  # what AUTOMATIC1111 draws with where a scheduler is named alone
_SEEDS = 2**32  # of their programs, whose integers are no longer
_HASH = re.compile(r"\s*\[[0-9a-f]{6,64}\]$")
_CONTROLNET = "controlnet"  # a script that is drawn with
_MOST_UPLOAD_CHARS = 16 << 20
# Known, and not done: they pass at these values.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "restore_faces": (None, False),
    "tiling": (None, False),
    "subseed_strength": (None, 0),
    "styles": (None, []),
    "script_name": (None, "", "None"),
    "firstpass_image": (None, ""),
}
_UNITS = "alwayson_scripts.controlnet.args"
_OF_UNITS = {
    **{"sha256": "image", "kind": "module", "model": "model", "scale": "weight"},
    **{"start": "guidance_start", "end": "guidance_end", "fit": "resize_mode"},
}


class OverrideSettings(Lenient):
    sd_model_checkpoint: Text | None = None


class Txt2ImgSettings(OverrideSettings):
    CLIP_stop_at_last_layers: Annotated[Whole, Field(ge=1, le=MOST_CLIP_SKIP)] | None = Field(
        None, description="Clip skip."
    )


class Txt2ImgRequest(HiresFields):
    prompt: Text = Field("", description="`<lora:name:0.8>` works here.")
    negative_prompt: Text = ""
    seed: Annotated[Whole, Field(ge=-1, lt=SEED_LIMIT)] = -1
    steps: Steps | None = None
    cfg_scale: Guidance | None = None
    width: Side | None = None
    height: Side | None = None
    batch_size: Annotated[Whole, Field(ge=1, le=1000)] = 1
    n_iter: Annotated[Whole, Field(ge=1, le=1000)] = 1
    sampler_name: Text | None = None
    sampler_index: Text | None = Field(None, description="The older name of `sampler_name`.")
    scheduler: Text | None = Field(None, description="One of GET schedulers.")
    override_settings: Txt2ImgSettings | None = None
    send_images: bool = True
    refiner_checkpoint: Text | None = Field(None, description="A model that does the last steps.")
    refiner_switch_at: Annotated[Real, Field(ge=0, le=1)] | None = None
    # Known, and not done: they pass at their neutral value.
    restore_faces: bool | None = False
    tiling: bool | None = False
    subseed_strength: Annotated[float, Field(ge=0, le=1)] | None = 0
    styles: list[Text] | None = None
    script_name: Text | None = None
    alwayson_scripts: dict[Text, Anything] | None = None
    firstpass_image: Text | None = None
    # Known, and of no consequence here.
    save_images: bool | None = False
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    override_settings_restore_afterwards: bool | None = True
    subseed: int | None = -1
    script_args: list[Anything] | None = None
    token: Token = None


class Txt2ImgAnswer(BaseModel):
    images: list[str]
    parameters: dict[str, Any]
    info: str = Field(description="JSON.")


class ProgressState(BaseModel):
    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_no: int = 0
    job_timestamp: str = "0"
    sampling_step: int = 0
    sampling_steps: int = 0


class ProgressAnswer(BaseModel):
    progress: float
    eta_relative: float
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


class OptionsAnswer(BaseModel):
    sd_model_checkpoint: str
    sd_checkpoint_hash: str
    samples_format: str
    CLIP_stop_at_last_layers: int = 1


class Sampler(BaseModel):
    name: str
    aliases: list[str]
    options: dict[str, str] = {}


class Scheduler(BaseModel):
    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float = -1
    need_inner_model: bool = False


class SdModel(BaseModel):
    title: str
    model_name: str
    hash: str | None
    sha256: str | None
    filename: str
    config: str | None = None


class LoraEntry(BaseModel):
    name: str
    alias: str
    path: str
    metadata: dict[str, Any]


class PngInfoRequest(Lenient):
    image: Annotated[str, Field(max_length=_MOST_UPLOAD_CHARS)] = Field(description="base64, or a data URL.")


class PngInfoAnswer(BaseModel):
    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


def generate_request(body: Txt2ImgRequest, checkpoint: str, request_id: str = "") -> GenerateRequest:
    """`checkpoint`: the model where the body names none. Raises INVALID_FIELD for what is known and not done.

    Where no seed is given, the one that is made follows from `request_id`: the same call again is the same job.
    """
    _check_neutral(body)
    override = body.override_settings
    checkpoint = (override and override.sd_model_checkpoint and name_of(override.sd_model_checkpoint)) or checkpoint
    return GenerateRequest(
        body.prompt,
        negative_prompt=body.negative_prompt,
        model=checkpoint,
        width=body.width,
        height=body.height,
        steps=body.steps,
        guidance_scale=body.cfg_scale,
        seed=_seed(request_id, body.batch_size * body.n_iter) if body.seed == -1 else body.seed,
        count=body.batch_size * body.n_iter,
        sampler=_sampler(body),
        format="png",
        clip_skip=override.CLIP_stop_at_last_layers if override else None,
        prompt_syntax=A1111,
        refiner=_refiner(body),
        hires=hires(body, (body.width, body.height), body.steps),
    )


def names_of(body: Txt2ImgRequest) -> dict[str, str]:
    """The service's names of fields -> the request's."""
    sampler = "sampler_name" if body.sampler_name or not body.sampler_index else "sampler_index"
    return {
        **HIRES_NAMES,
        "guidance_scale": "cfg_scale",
        "count": "batch_size" if body.batch_size >= body.n_iter else "n_iter",
        "sampler": sampler,
        "loras": "prompt",
        "model": "override_settings.sd_model_checkpoint",
        **{"refiner.model": "refiner_checkpoint", "refiner.switch": "refiner_switch_at"},
        "refiner": "refiner_checkpoint",
        "clip_skip": "override_settings.CLIP_stop_at_last_layers",
        **{f"controls.{name}": f"{_UNITS}.{theirs}" for name, theirs in _OF_UNITS.items()},
        "controls": _UNITS,
    }


def name_of(title: str) -> str:
    """A model's, from its title."""
    return _HASH.sub("", title.strip())


def _refiner(body: Txt2ImgRequest) -> Refiner | None:
    """None where they switch to none: without a name, or only at the end."""
    name = name_of(body.refiner_checkpoint or "")
    is_off = name in ("", "None") or body.refiner_switch_at == 1
    return None if is_off else Refiner(name, body.refiner_switch_at)


def _check_neutral(body: Txt2ImgRequest) -> None:
    for field, values in _NEUTRAL.items():
        if getattr(body, field) not in values:
            raise invalid(field, "is not in craft", "leave it out")
    for name, script in (body.alwayson_scripts or {}).items():
        if name.lower() != _CONTROLNET and not _is_idle(script):
            raise invalid("alwayson_scripts", f"{name[:60]!r} is not in craft", "leave it out")


def _is_idle(script: object) -> bool:
    """Clients name scripts that they know, without arguments or switched off."""
    args = script.get("args") if isinstance(script, dict) else script
    if not args or args == [False]:
        return True
    return isinstance(args, list) and all(isinstance(one, dict) and one.get("enabled") is False for one in args)


def _seed(request_id: str, count: int) -> int | None:
    if not request_id:
        return None
    return int(hashlib.sha256(request_id.encode()).hexdigest()[:16], 16) % (_SEEDS - count)


def _sampler(body: Txt2ImgRequest) -> str:
    """A schedule in the sampler's own name counts, as in AUTOMATIC1111. Raises INVALID_FIELD."""
    name, scheduler = body.sampler_name or body.sampler_index or "", body.scheduler or ""
    if scheduler.strip().lower() in _AUTOMATIC:
        return name
    schedule = samplers.schedule_called(scheduler)
    if schedule is None:
        known = ", ".join(("Automatic", *samplers.SCHEDULES))
        raise invalid("scheduler", f"{scheduler[:60]!r} is not in craft", f"known: {known}")
    sampler, own = samplers.parts_of(name or _NONE_NAMED)
    if not own and schedule not in samplers.schedules_of(sampler):
        taken = ", ".join(("Automatic", *samplers.schedules_of(sampler)))
        raise invalid("scheduler", f"{sampler} has no {schedule} schedule", f"it goes with {taken}")
    return f"{sampler} {own or schedule}"


def drawn_as_words(body: Txt2ImgRequest) -> list[str]:
    """Parts of the prompts."""
    return words.drawn(body.prompt, body.negative_prompt, syntax=A1111)


# Names of the same schedules that AUTOMATIC1111 and Forge list beside one another.
_THEIR_SCHEDULES = ("polyexponential", "uniform", "turbo")


def schedulers() -> list[Scheduler]:
    """In AUTOMATIC1111's terms."""
    return [
        Scheduler(name="automatic", label="Automatic"),
        *(
            Scheduler(name=name.lower().replace(" ", "_"), label=name, default_rho=7 if name == "Karras" else -1)
            for listed, others in samplers.SCHEDULES.items()
            for name in (listed, *(other.capitalize() for other in others if other in _THEIR_SCHEDULES))
        ),
    ]
