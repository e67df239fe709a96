"""A request, checked against the limits and made complete. Nothing here touches a device."""

from __future__ import annotations

import json
import math
import re
import secrets
import unicodedata
from dataclasses import replace

from craft_protos import codec, lora_strength, samplers
from craft_protos.formats import FORMATS
from craft_protos.generate import A1111, FAIL, OPTIONAL, SEED_LIMIT, SKIP, GenerateRequest, GenerateSpec
from craft_protos.job_request import JobRequest
from craft_protos.lora import MOST_LORAS, LoraRef, parse_tags, refuse_tags
from craft_protos.reasons import invalid
from craft_protos.settings import GenerateSettings, LimitSettings

from craftd.architectures import registry
from craftd.architectures.sizes import Sizes
from craftd.jobs import enlarging, pictures, refining
from craftd.jobs.lora_resolution import Chosen, check_strengths
from craftd.loras.order import check_weight
from craftd.models.model import Model
from craftd.prompting import attention, editing

_LARGEST_GUIDANCE = 1000.0
_MOST_JPEG_TEXT_BYTES = 56_000  # of the 65,000 that its metadata may have
_WORDS = {  # instead of a value
    "start": "a picture to begin from",
    "mask": "a picture of what is drawn anew",
    "references": "a picture that is shown to it",
    "controls": "a control picture",
    "refiner": "a refiner",
}
_LONGEST_LORA = 255  # characters of what names one


def check(request: JobRequest, limits: LimitSettings) -> None:
    """What can be said without knowing what to draw or to train. Raises INVALID_FIELD."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", request.request_id):
        raise invalid("request_id", "must be 1 to 64 of A-Z a-z 0-9 _ -", "make a new one for each request, a UUID say")


def checked(wanted: GenerateRequest, limits: LimitSettings) -> GenerateRequest:
    """The request with its prompt's LoRAs among its others. Raises INVALID_FIELD for what no model could draw."""
    _check_text("prompt", wanted.prompt, limits)
    _check_text("negative_prompt", wanted.negative_prompt, limits)
    _check_range("count", wanted.count or 1, 1, limits.max_count)
    _check_numbers(wanted, limits)
    _check_indices(wanted)
    pictures.check(wanted)
    enlarging.check(wanted, limits)
    refining.check(wanted)
    return _with_tags(wanted)


def resolve(
    wanted: GenerateRequest, chosen: Chosen, model: Model, settings: GenerateSettings, limits: LimitSettings
) -> GenerateSpec:
    """The spec of a checked request: the model's defaults filled in, the seed drawn, the prompt without tags.

    What follows from its start picture is in it already: `pictures.with_pictures`.
    """
    _check_understood(wanted, model)
    defaults, count = model.defaults, wanted.count or 1
    _check_text("prompt", chosen.prompt, limits)
    spec = GenerateSpec(
        prompt=chosen.prompt,
        negative_prompt=wanted.negative_prompt,
        model=model.name,
        width=defaults.width if wanted.width is None else wanted.width,
        height=defaults.height if wanted.height is None else wanted.height,
        steps=defaults.steps if wanted.steps is None else wanted.steps,
        guidance_scale=defaults.guidance_scale if wanted.guidance_scale is None else wanted.guidance_scale,
        seed=secrets.randbelow(SEED_LIMIT - count) if wanted.seed is None else wanted.seed,
        count=count,
        sampler=samplers.canonical(wanted.sampler or settings.sampler or defaults.sampler),
        format=wanted.format or settings.format,
        deterministic=wanted.deterministic,
        indices=tuple(sorted(wanted.indices)),
        loras=chosen.refs,
        lora_missing=wanted.lora_missing,
        prompt_syntax=wanted.prompt_syntax or settings.prompt_syntax,
        **{name: value for name in OPTIONAL if (value := getattr(wanted, name)) is not None},
    )
    if pictures.is_free(wanted):
        pictures.check_free_size(spec.width, spec.height, model, limits)
    else:
        check_size(spec.width, spec.height, model, limits)
    if not wanted.wildcards:
        check_prompts(spec, limits)
    check_strengths(spec, model)
    return spec


def check_prompts(spec: GenerateSpec, limits: LimitSettings) -> None:
    """Raises INVALID_FIELD for prompts that cannot be read in their syntax, or find no room in the picture."""
    for field, text in (("prompt", spec.prompt), ("negative_prompt", spec.negative_prompt)):
        _check_text(field, text, limits)
    if spec.prompt_syntax == A1111:
        editing.course(spec.prompt, spec.negative_prompt, spec.steps)
        for text in (spec.prompt, spec.negative_prompt):
            attention.parse(text)
    if spec.format == "jpeg":
        check_room_in_jpeg(spec.prompt, spec.negative_prompt)


def check_room_in_jpeg(prompt: str, negative_prompt: str) -> None:
    """Provenance is written with ASCII's escapes, and a JPEG has little room for it. Raises INVALID_FIELD."""
    size_bytes = len(json.dumps(prompt)) + len(json.dumps(negative_prompt))
    if size_bytes > _MOST_JPEG_TEXT_BYTES:
        message = (
            f"takes {size_bytes} bytes in the picture's metadata, where a JPEG has room for {_MOST_JPEG_TEXT_BYTES}"
        )
        raise invalid("prompt", message, "use --format png or webp")


def _check_text(field: str, text: str, limits: LimitSettings) -> None:
    if len(text) > limits.max_prompt_chars:
        raise invalid(field, f"has {len(text)} characters; the limit is {limits.max_prompt_chars}", "shorten it")
    for place, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r":
            raise invalid(field, f"has a control character (U+{ord(character):04X}) at {place}", "remove it")


def _check_numbers(wanted: GenerateRequest, limits: LimitSettings) -> None:
    guidance = wanted.guidance_scale
    if wanted.steps is not None:
        _check_range("steps", wanted.steps, 1, limits.max_steps)
    if guidance is not None and not (math.isfinite(guidance) and 0 <= guidance <= _LARGEST_GUIDANCE):
        raise invalid("guidance_scale", f"must be a number from 0 to {_LARGEST_GUIDANCE:g}, not {guidance}")
    if wanted.seed is not None and not 0 <= wanted.seed <= SEED_LIMIT - (wanted.count or 1):
        raise invalid("seed", f"must be from 0 to 2^53 less the number of images, not {wanted.seed}")
    for name in (*OPTIONAL, "prompt_syntax"):
        value = getattr(wanted, name)
        if value is not None and (rule := codec.rule_of(GenerateRequest, name)) and (said := rule.complaint(value)):
            raise invalid(name, said)
    if wanted.sampler:
        samplers.canonical(wanted.sampler)
    if wanted.format and wanted.format not in FORMATS:
        raise invalid("format", f"must be one of {', '.join(FORMATS)}, not {wanted.format[:32]!r}")


def _check_understood(wanted: GenerateRequest, model: Model) -> None:
    """Raises INVALID_FIELD for what would do nothing with this model."""
    for name, neutral in OPTIONAL.items():
        value = getattr(wanted, name)
        if value not in (None, neutral) and name not in model.architecture.takes:
            others = [row.name for row in registry.ROWS if name in row.takes]
            message = f"{_told(wanted, name)} means nothing to the model {model.name}"
            other = f", or take a model of {' or '.join(others)}" if others else ""
            raise invalid(name, message, f"leave it out{other}")
    _check_needs(wanted, model)
    _check_references(wanted, model)


def _check_needs(wanted: GenerateRequest, model: Model) -> None:
    """Raises INVALID_FIELD where a model that inpaints or refines has nothing to do it to."""
    for name in ("start", "mask"):
        if name in model.architecture.needs and getattr(wanted, name) is None:
            inpaints = "mask" in model.architecture.needs
            message = f"is none, and the model {model.name} {'was made for inpainting' if inpaints else 'refines one'}"
            given = "a picture and a mask of what is drawn anew" if inpaints else "a picture"
            hint = f"give {given}, or take a model that draws from words"
            raise invalid(name, message, hint)


def _check_references(wanted: GenerateRequest, model: Model) -> None:
    """Raises INVALID_FIELD for none where the model edits what it is shown, and for more than it can be shown."""
    if "references" in model.architecture.needs and not wanted.references:
        message = f"are none, and the model {model.name} edits what it is shown"
        raise invalid("references", message, "give it a picture, or take a model that draws from words")
    most = model.architecture.most_references
    if len(wanted.references) > most:
        others = [row.name for row in registry.ROWS if "references" in row.takes and row.most_references > most]
        message = f"are {len(wanted.references)}, and the model {model.name} can be shown {most}"
        raise invalid("references", message, f"leave the others out, or take a model of {' or '.join(others)}")


def _told(wanted: GenerateRequest, name: str) -> str:
    """A field's value as its caller gave it: pairs are not told by half, and pictures not by their hash."""
    if name.startswith("original_"):
        return f"{wanted.original_width or 0}x{wanted.original_height or 0}"
    if name.startswith("crop_"):
        return f"{wanted.crop_left or 0},{wanted.crop_top or 0}"
    return _WORDS.get(name) or str(getattr(wanted, name))


def _with_tags(wanted: GenerateRequest) -> GenerateRequest:
    text, tagged = parse_tags(wanted.prompt)
    refuse_tags(wanted.negative_prompt, "negative_prompt")
    loras = (*wanted.loras, *tagged)
    is_said = text or wanted.start is not None  # a picture says enough
    if not is_said and not (wanted.trigger_words and loras):
        raise invalid("prompt", "is empty but for its LoRAs" if tagged else "is empty", "say what to draw")
    if len(loras) > MOST_LORAS:
        raise invalid("loras", f"are {len(loras)}; the limit is {MOST_LORAS}", "leave some out")
    for ref in loras:
        if not 0 < len(ref.lora) <= _LONGEST_LORA or not ref.lora.isprintable():
            raise invalid("loras", f"{ref.lora[:100]!r} is no LoRA's name", "see `craft lora list`")
        _check_strength(ref)
    if wanted.lora_missing not in (FAIL, SKIP):
        raise invalid("lora_missing", f"must be {FAIL} or {SKIP}, not {wanted.lora_missing[:32]!r}")
    return replace(wanted, prompt=text, loras=loras)


def _check_strength(ref: LoraRef) -> None:
    for weight in (ref.weight, ref.text_weight, *ref.blocks):
        check_weight("loras", weight)
    if said := lora_strength.complaint(ref.details):
        raise invalid("loras", f"of {ref.lora}, {said}", "see docs/loras.md")


def _check_indices(wanted: GenerateRequest) -> None:
    count = wanted.count or 1
    if len(set(wanted.indices)) != len(wanted.indices) or any(not 0 <= index < count for index in wanted.indices):
        raise invalid("indices", f"must be different ones from 0 to {count - 1}, the images that `count` names")


def sizes(model: Model, limits: LimitSettings) -> Sizes:
    """What the model can draw and the limits allow."""
    return model.sizes.within(limits.max_side, limits.max_pixels)


def check_size(width: int, height: int, model: Model, limits: LimitSettings) -> None:
    """Raises INVALID_FIELD, with the nearest size that is allowed."""
    allowed = sizes(model, limits)
    if allowed.allows(width, height):
        return
    unit, most = allowed.granularity, allowed.largest_side // allowed.granularity * allowed.granularity
    near = "take {}x{}".format(*allowed.nearest(width, height))
    for field, side in (("width", width), ("height", height)):
        if not unit <= side <= most:
            raise invalid(field, f"must be from {unit} to {most} for the model {model.name}, not {side}", near)
        if side % unit:
            raise invalid(field, f"must be a multiple of {unit} for the model {model.name}, not {side}", near)
    raise invalid("width", f"{width}x{height} has more than {allowed.most_pixels} pixels, the limit", near)


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise invalid(field, f"must be from {least} to {most}, not {value}")
