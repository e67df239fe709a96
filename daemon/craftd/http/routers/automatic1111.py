"""AUTOMATIC1111's API, for the many programs that speak it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Annotated, Any

from craft_protos.generate import Control, GenerateSpec
from craft_protos.infotexts import parse
from craft_protos.reasons import CraftError, invalid
from craft_protos.samplers import SAMPLERS
from fastapi import APIRouter, Query, Request, Response

from craftd.http import encoding, infotexts, uploads
from craftd.http.bodies import forgotten
from craftd.http.callers import Who, Wished
from craftd.http.drawing import DRAWING, Order, said_as
from craftd.http.errors import responses
from craftd.http.forms.automatic1111 import (
    LoraEntry,
    OptionsAnswer,
    OverrideSettings,
    PngInfoAnswer,
    PngInfoRequest,
    ProgressAnswer,
    ProgressState,
    Sampler,
    Scheduler,
    SdModel,
    Txt2ImgAnswer,
    Txt2ImgRequest,
    drawn_as_words,
    generate_request,
    name_of,
    names_of,
)
from craftd.http.forms.automatic1111 import schedulers as known_schedulers
from craftd.http.forms.automatic1111_controlnet import Unit, control_of, not_done, units_of
from craftd.http.forms.automatic1111_controlnet import check as check_unit
from craftd.http.forms.automatic1111_img2img import Img2ImgRequest, img2img_names, img2img_request
from craftd.http.inputs import Inputs
from craftd.http.sent import body_of, checked, described, json_of, schema_of
from craftd.http.services import HttpServices
from craftd.http.sessions import Running, Session, Sessions
from craftd.http.uploads import decoded
from craftd.images.image import Image
from craftd.jobs.events import Finished, Snapshot
from craftd.jobs.job import JobView
from craftd.keys.caller import Caller
from craftd.loras.lora import Lora
from craftd.models.model import ModelView

_PREFIX = "/sdapi/v1"
PNG_INFO, IMG2IMG, TXT2IMG = f"{_PREFIX}/png-info", f"{_PREFIX}/img2img", f"{_PREFIX}/txt2img"
_WARNING = "x-craft-warning"
_FIRST = "init_images[0]"
_MOST_NAMED = 20  # ignored fields in the warning
_PREVIEW_EVERY = 5


def make_router(services: HttpServices) -> APIRouter:
    """`_add_lists` has what needs no memory of the caller."""
    router = APIRouter(prefix=_PREFIX, tags=["AUTOMATIC1111"])
    _add_lists(router, services)
    sessions = Sessions()
    _add_drawing(router, services, sessions)
    _add_running(router, services, sessions)
    _add_options(router, services, sessions)
    return router


def _add_drawing(router: APIRouter, services: HttpServices, sessions: Sessions) -> None:
    @router.post("/txt2img", responses=responses(*DRAWING))
    async def txt2img(
        body: Txt2ImgRequest, request: Request, response: Response, caller: Who, wish: Wished
    ) -> Txt2ImgAnswer:
        """Draw `batch_size` x `n_iter` pictures."""
        session = sessions.of(caller)
        with said_as(names_of(body)):
            generate = generate_request(body, session.checkpoint, wish.request_id)
            units = units_of(body.alwayson_scripts)
            generate = replace(generate, controls=await _controls(Inputs(services.inputs), caller, units))
        if units:
            _forget(body, request)
        _warn(response, [*body.ignored, *_overridden(body)], drawn_as_words(body), not_done(units))
        order = Order(request, caller, wish, generate, names=names_of(body))
        return await _answer(services, body, order, session)

    @router.post(
        IMG2IMG.removeprefix(_PREFIX),
        responses=responses(*DRAWING, "BAD_INPUT", "BAD_DATA", "UNKNOWN_INPUT"),
        openapi_extra=described({"application/json": schema_of(Img2ImgRequest)}),
    )
    async def img2img(request: Request, response: Response, caller: Who, wish: Wished) -> Txt2ImgAnswer:
        """Draw pictures from one; with a mask, what is white in it."""
        session = sessions.of(caller)
        body = checked(Img2ImgRequest, await json_of(await body_of(request)))
        names = img2img_names(body)
        with said_as(names):
            img2img_request(body, ("", None), session.checkpoint)  # what it refuses is refused before pictures are kept
            units = units_of(body.alwayson_scripts)
            warned = [*body.not_done, *not_done(units)]
            found = await _kept(Inputs(services.inputs), caller, body)
            controls = await _controls(Inputs(services.inputs), caller, units, found[0])
            generate = replace(img2img_request(body, found, session.checkpoint, wish.request_id), controls=controls)
        body.forget()
        if not body.include_init_images:
            _forget(body, request)
        _warn(response, [*body.ignored, *_overridden(body)], drawn_as_words(body), warned)
        return await _answer(services, body, Order(request, caller, wish, generate, names=names), session)


async def _controls(
    inputs: Inputs, caller: Caller, units: Sequence[tuple[str, Unit]], start: str = ""
) -> tuple[Control, ...]:
    """What the units ask for, whose pictures are kept; one without is of the `start`, as it is there.

    Raises INVALID_FIELD, BAD_DATA, BAD_INPUT.
    """
    for name, unit in units:
        check_unit(name, unit)
        if not (unit.encoded or start):
            raise invalid(f"{name}.image", "is missing", "send a picture in base64")
    made = []
    for name, unit in units:
        sha256 = start
        if unit.encoded:
            data = await asyncio.to_thread(decoded, f"{name}.image", unit.encoded)
            sha256 = (await inputs.keep(caller, f"{name}.image", data)).sha256
        made.append(control_of(name, unit, sha256))
    return tuple(made)


def _forget(body: Txt2ImgRequest, request: Request) -> None:
    """The pictures of its units are many bytes, and a job may take long."""
    if body.alwayson_scripts:
        body.alwayson_scripts = {name: {} for name in body.alwayson_scripts}
    forgotten(request.scope)


async def _kept(inputs: Inputs, caller: Caller, body: Img2ImgRequest) -> tuple[str, str | None]:
    """The hashes of the picture and of its mask. Raises BAD_DATA, BAD_INPUT."""
    data = await asyncio.to_thread(decoded, _FIRST, body.init_image)
    image = await inputs.keep(caller, _FIRST, data)
    if not body.mask:
        return image.sha256, None
    data = await asyncio.to_thread(decoded, "mask", body.mask)
    mask = await inputs.keep(caller, "mask", data)
    if mask.has_alpha:
        mask = await inputs.converted(caller, "mask", mask, "opaque-or-white")
    return image.sha256, mask.sha256


async def _answer(services: HttpServices, body: Txt2ImgRequest, order: Order, session: Session) -> Txt2ImgAnswer:
    order = replace(order, preview_every=_PREVIEW_EVERY if session.wants_previews else 0)
    view = await _draw(services, order, session)
    files = [await encoding.read(services.images, image) for image in view.images]
    encoded = await asyncio.gather(*map(encoding.as_base64, files)) if body.send_images else []
    spec = view.job.spec
    assert isinstance(spec, GenerateSpec)
    parameters = body.model_dump(exclude={"token"}) | {"sampler_name": spec.sampler}
    return Txt2ImgAnswer(images=list(encoded), parameters=parameters, info=_info(spec, view.images))


def _add_running(router: APIRouter, services: HttpServices, sessions: Sessions) -> None:
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
        """Cancel what this key's txt2img draws: it answers with the pictures that are done."""
        for running in list(sessions.of(caller).running):
            running.was_interrupted = True
            if running.job_id:  # else `_draw` cancels it once it has one
                await _cancel(services, caller, running)
        return {}


def _add_options(router: APIRouter, services: HttpServices, sessions: Sessions) -> None:
    @router.get("/options")
    async def options(caller: Who) -> OptionsAnswer:
        """What this key's txt2img uses."""
        name = sessions.of(caller).checkpoint or services.jobs.generating.model
        view = await services.models.get(name)
        return OptionsAnswer(sd_model_checkpoint=_title(view), sd_checkpoint_hash=view.sha256, samples_format="png")

    @router.post("/options", responses=responses("UNKNOWN_MODEL"))
    async def set_options(body: OverrideSettings, response: Response, caller: Who) -> dict[str, Any]:
        """Set this key's model, until the daemon's end; other options are ignored."""
        if body.sd_model_checkpoint is not None:
            model = await services.models.usable(name_of(body.sd_model_checkpoint))
            sessions.of(caller).checkpoint = model.name
        _warn(response, body.ignored)
        return {}


def _add_lists(router: APIRouter, services: HttpServices) -> None:
    @router.get("/samplers")
    async def samplers(_: Who) -> list[Sampler]:
        """The samplers."""
        return [Sampler(name=name, aliases=list(aliases)) for name, aliases in SAMPLERS.items()]

    @router.get("/schedulers")
    async def schedulers(_: Who) -> list[Scheduler]:
        """The schedules of noise: the sampler's own, and those that go with one."""
        return known_schedulers()

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
    async def loras(caller: Who) -> list[LoraEntry]:
        """The LoRAs that the key draws with."""
        return [_lora(one) for one in services.loras.list(caller)]

    @router.post("/png-info")
    async def png_info(body: PngInfoRequest, response: Response, _: Who) -> PngInfoAnswer:
        """What a picture says it was made from."""
        _warn(response, body.ignored)
        notes = await uploads.notes_of("image", body.image)
        info = infotexts.of_notes(notes)
        return PngInfoAnswer(info=info, items=dict(notes.texts), parameters=dict(parse(info)))


async def _draw(services: HttpServices, order: Order, session: Session) -> JobView:
    """The job; one that was interrupted, with the pictures that were done, which may be none."""
    running = Running()
    session.running.append(running)
    try:
        async with aclosing(services.drawing.follow(order)) as events:
            async for event in events:
                running.note(event)
                if running.was_interrupted and isinstance(event, Snapshot):
                    await _cancel(services, order.caller, running)
                if isinstance(event, Finished):
                    return event.view
    except CraftError as exc:
        if not (exc.reason == "CANCELLED" and running.was_interrupted):
            raise
        return await services.jobs.get(order.caller, running.job_id)
    finally:
        session.running.remove(running)
    raise AssertionError("a job's events end with its end")


async def _cancel(services: HttpServices, caller: Caller, running: Running) -> None:
    with contextlib.suppress(CraftError):  # it has ended meanwhile
        await services.jobs.cancel(caller, running.job_id)


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


def _warn(response: Response, ignored: list[str], words: Sequence[str] = (), not_done: Sequence[str] = ()) -> None:
    told = {"ignored": ignored, "drawn as words": list(words), "drawn as the picture is": list(not_done)}
    if warnings := [f"{what}: {_named(names)}" for what, names in told.items() if names]:
        response.headers[_WARNING] = "; ".join(warnings)


def _named(names: list[str]) -> str:
    """As a header may hold it."""
    shown = ", ".join(re.sub(r"[^\x20-\x7e]", "?", name)[:60] for name in names[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown


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
    begun = {} if spec.start is None else {"denoising_strength": spec.start.strength}
    return json.dumps(
        {
            **begun,
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
