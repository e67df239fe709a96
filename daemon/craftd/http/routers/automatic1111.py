"""AUTOMATIC1111's API, for the many programs that speak it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any

from craft_protos.reasons import CraftError, invalid
from craft_protos.samplers import SAMPLERS
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from craftd.http import encoding, infotexts, uploads
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order
from craftd.http.errors import responses
from craftd.http.fields import Guidance, Side, Steps, Text, Whole
from craftd.http.services import HttpServices
from craftd.http.sessions import Running, Session, Sessions
from craftd.images.image import Image
from craftd.jobs.events import Finished
from craftd.jobs.job import SEED_LIMIT, GenerateRequest, GenerateSpec, JobView
from craftd.loras.lora import Lora
from craftd.models.model import ModelView
from craftd.models.registry import BUILT_IN

_PREFIX = "/sdapi/v1"
PNG_INFO, IMG2IMG = f"{_PREFIX}/png-info", f"{_PREFIX}/img2img"
_WARNING = "x-craft-warning"
_AUTOMATIC = ("automatic", "use same scheduler", "")
_SCHEDULERS = ("Automatic", "Karras")
_MOST_NAMED = 20  # ignored fields in the warning
_PREVIEW_EVERY = 5
_HASH = re.compile(r"\s*\[[0-9a-f]{6,64}\]$")


class Lenient(BaseModel):
    """A body whose unknown fields are ignored, with a warning: clients always send dozens."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, hide_input_in_errors=True)

    @property
    def ignored(self) -> list[str]:
        return sorted(self.model_extra or ())


class OverrideSettings(Lenient):
    sd_model_checkpoint: Text | None = None


class Txt2ImgRequest(Lenient):
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
    scheduler: Text | None = Field(None, description="`Automatic` or `Karras`.")
    override_settings: OverrideSettings | None = None
    send_images: bool = True
    # Known, and not done: they pass at their neutral value.
    enable_hr: bool | None = False
    restore_faces: bool | None = False
    tiling: bool | None = False
    subseed_strength: Annotated[float, Field(ge=0, le=1)] | None = 0
    styles: list[Text] | None = None
    script_name: Text | None = None
    refiner_checkpoint: Text | None = None
    alwayson_scripts: dict[str, Any] | None = None
    firstpass_image: Text | None = None
    # Known, and of no consequence here.
    save_images: bool | None = False
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    override_settings_restore_afterwards: bool | None = True
    subseed: int | None = -1
    denoising_strength: float | None = None
    script_args: list[Any] | None = None
    token: Text | None = Field(None, description="The key, where no header carries it.")


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
    image: Annotated[str, Field(max_length=32 << 20)] = Field(description="base64, or a data URL.")


class PngInfoAnswer(BaseModel):
    info: str
    items: dict[str, Any]
    parameters: dict[str, Any]


def make_router(services: HttpServices) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, tags=["AUTOMATIC1111"])
    sessions = Sessions()

    @router.post("/txt2img", responses=responses(*DRAWING))
    async def txt2img(
        body: Txt2ImgRequest, request: Request, response: Response, caller: Who, wish: Wished
    ) -> Txt2ImgAnswer:
        """Draw `batch_size` x `n_iter` pictures."""
        session = sessions.of(caller)
        generate = _generate(body, session)
        _warn(response, [*body.ignored, *_overridden(body)])
        order = Order(request, caller, wish, generate, preview_every=_PREVIEW_EVERY if session.wants_previews else 0)
        view = await _draw(services, order, session)
        files = [await encoding.read(services.images, image) for image in view.images]
        encoded = await asyncio.gather(*map(encoding.as_base64, files)) if body.send_images else []
        spec = view.job.spec
        assert isinstance(spec, GenerateSpec)
        parameters = body.model_dump(exclude={"token"}) | {"sampler_name": spec.sampler}
        return Txt2ImgAnswer(images=list(encoded), parameters=parameters, info=_info(spec, view.images))

    @router.get("/progress")
    async def progress(
        caller: Who, skip_current_image: Annotated[bool, Query(description="Without a preview.")] = False
    ) -> ProgressAnswer:
        """How far this key's txt2img is. Previews come from the first call on that asked for one."""
        session = sessions.of(caller)
        session.wants_previews = session.wants_previews or not skip_current_image
        if not session.running:
            return ProgressAnswer(progress=0, eta_relative=0, state=ProgressState())
        running = session.running[0]
        preview = await encoding.as_base64(running.preview) if running.preview and not skip_current_image else None
        return ProgressAnswer(
            progress=running.fraction,
            eta_relative=running.left_s,
            state=_state(session),
            current_image=preview,
        )

    @router.post("/interrupt")
    @router.post("/skip")
    async def interrupt(caller: Who) -> dict[str, Any]:
        """Cancel what this key's txt2img draws; pictures that are done are answered."""
        for running in sessions.of(caller).running:
            running.was_interrupted = True
            with contextlib.suppress(CraftError):  # it has ended meanwhile
                await services.jobs.cancel(caller, running.job_id)
        return {}

    @router.get("/options")
    async def options(caller: Who) -> OptionsAnswer:
        """What this key's txt2img uses."""
        name = sessions.of(caller).checkpoint or services.settings.generate.model or BUILT_IN
        view = await services.models.get(name)
        return OptionsAnswer(sd_model_checkpoint=_title(view), sd_checkpoint_hash=view.sha256, samples_format="png")

    @router.post("/options", responses=responses("UNKNOWN_MODEL"))
    async def set_options(body: OverrideSettings, response: Response, caller: Who) -> dict[str, Any]:
        """Set this key's model, until the daemon's end; other options are ignored."""
        if body.sd_model_checkpoint is not None:
            model = await services.models.usable(_name(body.sd_model_checkpoint))
            sessions.of(caller).checkpoint = model.name
        _warn(response, body.ignored)
        return {}

    @router.get("/samplers")
    async def samplers(_: Who) -> list[Sampler]:
        """The samplers."""
        return [Sampler(name=name, aliases=list(aliases)) for name, aliases in SAMPLERS.items()]

    @router.get("/schedulers")
    async def schedulers(_: Who) -> list[Scheduler]:
        """The spacings of noise: the sampler's own, or Karras'."""
        return [Scheduler(name=name.lower(), label=name) for name in _SCHEDULERS]

    @router.get("/sd-models")
    async def sd_models(_: Who) -> list[SdModel]:
        """The models."""
        return [_sd_model(view) for view in await services.models.list() if not view.model.refused]

    @router.post("/refresh-checkpoints")
    @router.post("/refresh-loras")
    async def refresh(_: Who) -> dict[str, Any]:
        """Nothing to do: models and LoRAs are always as they are."""
        return {}

    @router.get("/loras")
    async def loras(_: Who) -> list[LoraEntry]:
        """The LoRAs."""
        return [_lora(one) for one in services.loras.list()]

    @router.post("/png-info")
    async def png_info(body: PngInfoRequest, response: Response, _: Who) -> PngInfoAnswer:
        """What a picture says it was made from."""
        _warn(response, body.ignored)
        notes = await uploads.notes_of("image", body.image)
        info = infotexts.of_notes(notes)
        return PngInfoAnswer(info=info, items=dict(notes.texts), parameters=dict(infotexts.parse(info)))

    @router.post("/img2img", include_in_schema=False)
    async def img2img(_: Who) -> Response:
        """Image-to-image is not in craft yet."""
        raise CraftError("UNIMPLEMENTED", "image-to-image is not in craft yet", "txt2img draws from a prompt")

    return router


async def _draw(services: HttpServices, order: Order, session: Session) -> JobView:
    """The job; one that was interrupted, with the pictures that were done."""
    running = Running()
    session.running.append(running)
    try:
        async with aclosing(services.drawing.follow(order)) as events:
            async for event in events:
                running.note(event)
                if isinstance(event, Finished):
                    return event.view
    except CraftError as exc:
        if not (exc.reason == "CANCELLED" and running.was_interrupted):
            raise
        view = await services.jobs.get(order.caller, running.job_id)
        if not view.images:
            raise
        return view
    finally:
        session.running.remove(running)
    raise AssertionError("a job's events end with its end")


def _generate(body: Txt2ImgRequest, session: Session) -> GenerateRequest:
    """Raises INVALID_FIELD for what is known and not done."""
    _check_neutral(body)
    override = body.override_settings.sd_model_checkpoint if body.override_settings else None
    return GenerateRequest(
        body.prompt,
        negative_prompt=body.negative_prompt,
        model=_name(override) if override else session.checkpoint,
        width=body.width,
        height=body.height,
        steps=body.steps,
        guidance_scale=body.cfg_scale,
        seed=None if body.seed == -1 else body.seed,
        count=body.batch_size * body.n_iter,
        sampler=_sampler(body),
        format="png",
    )


def _check_neutral(body: Txt2ImgRequest) -> None:
    neutral: dict[str, tuple[object, ...]] = {
        "enable_hr": (None, False),
        "restore_faces": (None, False),
        "tiling": (None, False),
        "subseed_strength": (None, 0),
        "styles": (None, []),
        "script_name": (None, "", "None"),
        "refiner_checkpoint": (None, "", "None"),
        "firstpass_image": (None, ""),
    }
    for field, values in neutral.items():
        if getattr(body, field) not in values:
            raise invalid(field, "is not in craft", "leave it out")
    for name, script in (body.alwayson_scripts or {}).items():
        if not _is_idle(script):
            raise invalid("alwayson_scripts", f"{name[:60]!r} is not in craft", "leave it out")


def _is_idle(script: object) -> bool:
    """Clients name scripts that they know, without arguments or switched off."""
    args = script.get("args") if isinstance(script, dict) else script
    if not args or args == [False]:
        return True
    return isinstance(args, list) and all(isinstance(one, dict) and one.get("enabled") is False for one in args)


def _sampler(body: Txt2ImgRequest) -> str:
    name = body.sampler_name or body.sampler_index or ""
    scheduler = (body.scheduler or "").lower()
    if scheduler in _AUTOMATIC:
        return name
    if scheduler != "karras":
        raise invalid("scheduler", "is not in craft", f"known: {', '.join(_SCHEDULERS)}")
    return name if "karras" in name.lower() or not name else f"{name} Karras"


def _name(title: str) -> str:
    """Of a model, from its title."""
    return _HASH.sub("", title.strip())


def _title(view: ModelView) -> str:
    return f"{view.model.name} [{view.sha256[:10]}]" if view.sha256 else view.model.name


def _sd_model(view: ModelView) -> SdModel:
    name = view.model.name
    return SdModel(
        title=_title(view), model_name=name, hash=view.sha256[:10] or None, sha256=view.sha256 or None, filename=name
    )


def _lora(one: Lora) -> LoraEntry:
    metadata = {"ss_sd_model_name": one.base, "trigger": one.trigger, "sha256": one.sha256}
    return LoraEntry(name=one.name, alias=one.name, path=one.file_name, metadata=metadata)


def _overridden(body: Txt2ImgRequest) -> list[str]:
    settings = body.override_settings
    return [f"override_settings.{name}" for name in settings.ignored] if settings else []


def _warn(response: Response, ignored: list[str]) -> None:
    if ignored:
        names = ", ".join(re.sub(r"[^\x21-\x7e]", "?", name)[:60] for name in ignored[:_MOST_NAMED])
        more = f" and {len(ignored) - _MOST_NAMED} more" if len(ignored) > _MOST_NAMED else ""
        response.headers[_WARNING] = f"ignored: {names}{more}"


def _state(session: Session) -> ProgressState:
    running = session.running[0]
    return ProgressState(
        interrupted=running.was_interrupted,
        stopping_generation=running.was_interrupted,
        job=running.job_id,
        job_count=len(session.running),
        sampling_step=max(running.steps.values(), default=0),
        sampling_steps=running.total_steps,
    )


def _info(spec: GenerateSpec, images: Sequence[Image]) -> str:
    seeds = [image.seed for image in images]
    return json.dumps(
        {
            "prompt": spec.prompt,
            "all_prompts": [spec.prompt] * len(images),
            "negative_prompt": spec.negative_prompt,
            "all_negative_prompts": [spec.negative_prompt] * len(images),
            "seed": spec.seed,
            "all_seeds": seeds,
            "subseed": spec.seed,
            "all_subseeds": seeds,
            "subseed_strength": 0,
            "width": spec.width,
            "height": spec.height,
            "sampler_name": spec.sampler,
            "cfg_scale": spec.guidance_scale,
            "steps": spec.steps,
            "batch_size": len(images),
            "restore_faces": False,
            "sd_model_name": spec.model,
            "index_of_first_image": 0,
            "infotexts": [infotexts.of_provenance(image.provenance) for image in images],
            "styles": [],
            "is_using_inpainting_conditioning": False,
        }
    )
