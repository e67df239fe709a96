"""The infotext of AUTOMATIC1111, and of those that write it too: Forge, SD.Next, stable-diffusion.cpp, Civitai.

A prompt, a line "Negative prompt: ...", and a line of settings, "Steps: 20, Sampler: Euler a, ...".
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from craft_protos import infotexts
from craft_protos.generate import A1111, Hires
from craft_protos.recipes.recipe import MOST_LORAS, LoraUse, Named, Recipe
from craft_protos.recipes.told import Told, json_of, named, number_of, whole_of

_NEGATIVE = "Negative prompt:"
_READ_ALIKE = ("AUTOMATIC1111", "Forge")  # programs whose prompts are in AUTOMATIC1111's language
_FEWEST_SETTINGS = 3  # in what is a line of them
_TAG = re.compile(r"<(lora|lyco|hypernet):([^<>:]{1,200})((?::[^<>:]{0,40}){0,6})>", re.IGNORECASE)
_OF_THE_PROGRAM = (
    *("Version", "App", "Pipeline", "Operations", "Backend", "Parser", "Time", "Date", "User", "Created Date"),
    *("Civitai metadata", "Raw prompt", "Raw negative prompt", "Performance", "Sampler RNG", "Schedule max sigma"),
)
_AUTOMATIC = {  # the schedule that AUTOMATIC1111 takes for a sampler where it is told to choose
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart"), "Karras"),
    **dict.fromkeys(("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"), "Exponential"),
}
_GUIDANCE_OFF = 1.0


def read(infotext: str) -> Recipe | None:
    """None where the text has no settings, and so may be anything."""
    infotext = infotext.replace("\r\n", "\n")
    settings = infotexts.parse(infotext)
    if len(settings) < _FEWEST_SETTINGS or "Steps" not in settings:
        return None
    told = Told(settings)
    positive, negative = _prompts(infotext)
    program = _program(settings)
    text, tags, unread = _without_tags(positive)
    recipe = Recipe(
        program=program,
        prompt_syntax=A1111 if program in _READ_ALIKE else "",
        prompt=text,
        negative_prompt=negative,
        steps=told.whole("Steps"),
        guidance_scale=_guidance(told, unread),
        guidance_rescale=told.number("CFG Rescale phi", "CFG rescale"),
        seed=told.whole("Seed"),
        clip_skip=_clip_skip(told),
        **_size(told),
        **_sampler(told),
        **_again(told),
    )
    model, loras = _files(told, tags)
    told.take(*_OF_THE_PROGRAM)
    return replace(recipe, model=model, loras=loras, not_understood=(*told.left(), *unread))


def _program(settings: dict[str, str]) -> str:
    version = settings.get("Version", "")
    if version.startswith(("f1", "f2", "neo")):
        return "Forge"
    if version in ("ComfyUI", "stable-diffusion.cpp"):
        return version
    if version.startswith(("Fooocus", "craft")):
        return version.split()[0]
    return settings.get("App", "AUTOMATIC1111")[:40]


def _prompts(infotext: str) -> tuple[str, str]:
    """What stands before the settings, in two."""
    whole = infotexts.before_numbers(infotext)
    lines = whole.split("\n")
    at = next((number for number, line in enumerate(lines) if line.strip().startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[at:]).strip().removeprefix(_NEGATIVE)
    return "\n".join(lines[:at]).strip(), negative.strip()


def _without_tags(prompt: str) -> tuple[str, list[LoraUse], list[str]]:
    """The prompt, its LoRAs, and the tags that craft has nothing for."""
    uses, unread = list[LoraUse](), list[str]()
    for found in _TAG.finditer(prompt):
        kind, name, rest = found[1].lower(), found[2].strip(), found[3].split(":")[1:]
        weights = [number_of(one.partition("=")[2] or one) for one in rest]
        if kind == "hypernet" or len(uses) >= MOST_LORAS:
            unread.append(found[0])
            continue
        strength = next((one for one in weights if one is not None), 1.0)
        if any(one != strength for one in weights):
            unread.append(f"{found[0]}: drawn with {strength:g} throughout")
        uses.append(LoraUse(**vars(named(name)) | {"name": name}, weight=strength))
    return _tidy(_TAG.sub(" ", prompt)) if uses or unread else prompt, uses, unread


def _tidy(text: str) -> str:
    """Without the gaps that its tags leave."""
    lines = (re.sub(r" +", " ", line).replace(" ,", ",").strip() for line in text.split("\n"))
    return "\n".join(lines).strip()


def _guidance(told: Told, unread: list[str]) -> float | None:
    """A distilled model's own, where it is told and the other is off, or named; of stable-diffusion.cpp always told."""
    distilled, scale = told.number("Distilled CFG Scale"), told.number("CFG scale")
    embedded = told.number("Guidance")
    if distilled is None:
        return embedded if embedded is not None and scale == _GUIDANCE_OFF else scale
    if scale not in (None, _GUIDANCE_OFF):
        unread.append(f"CFG scale: {scale:g}, beside a distilled one of {distilled:g}")
    return distilled


def _clip_skip(told: Told) -> int | None:
    found = told.whole("Clip skip")
    return found if found is not None and found > 1 else None


def _size(told: Told) -> dict[str, Any]:
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", told.text("Size"))
    return {"width": int(found[1]), "height": int(found[2])} if found else {}


def _sampler(told: Told) -> dict[str, Any]:
    sampler, schedule = told.text("Sampler"), told.text("Schedule type", "Scheduler")
    if schedule == "Automatic":
        schedule = _AUTOMATIC.get(sampler, "")
    return {"sampler": sampler, "schedule": schedule}


def _again(told: Told) -> dict[str, Any]:
    """The strength: of a start picture, or of the second drawing, where the picture was drawn twice."""
    strength, scale = told.number("Denoising strength"), told.number("Hires upscale")
    if scale is None:
        return {"strength": strength} if strength is not None else {}
    steps = told.whole("Hires steps")
    return {"hires": Hires(scale, strength, steps or None, told.text("Hires upscaler"))}


def _files(told: Told, tags: list[LoraUse]) -> tuple[Named, tuple[LoraUse, ...]]:
    """The model and the LoRAs, with every hash and version that any of the settings gives."""
    hashes, resources = _hashes(told), _resources(told)
    model = named(told.text("Model", "Unet"), told.text("Model hash") or hashes.get("model", ""))
    base = next((one for one in resources if one.get("type") in ("checkpoint", "model")), {})
    model = replace(model, name=model.name or str(base.get("modelName", ""))[:200], version=_version(base))
    loras = [replace(use, hash=hashes.get(use.name.lower(), "") or use.hash) for use in tags]
    of_civitai = [one for one in resources if str(one.get("type")).lower() in ("lora", "lycoris", "dora", "locon")]
    weights = _pairs(told.text("Lora weights"))
    if not loras:  # the tags are gone, and the resources say it
        loras = [_use_of(one) for one in of_civitai]
        loras += [_fooocus_use(name, digits, weights) for name, digits in hashes.items() if name in weights]
    elif len(of_civitai) == len(loras):
        loras = [replace(use, version=_version(one)) for use, one in zip(loras, of_civitai, strict=True)]
    return model, tuple(loras[:MOST_LORAS])


def _fooocus_use(name: str, digits: str, weights: dict[str, str]) -> LoraUse:
    strength = number_of(weights[name])
    return LoraUse(name, digits, weight=1.0 if strength is None else strength)


def _hashes(told: Told) -> dict[str, str]:
    """By what they are of: "model", or a LoRA's name, in small letters."""
    found = {name: named("", digits).hash for name, digits in _pairs(told.text("Lora hashes")).items()}
    for name, digits in (json_of(told.text("Hashes")) or {}).items():
        kind, _, rest = name.partition(":")
        if isinstance(digits, str) and kind in ("model", "lora", "lyco"):
            found.setdefault((rest or kind).lower(), named("", digits).hash)
    return found


def _pairs(text: str) -> dict[str, str]:
    """ "name: value, name: value", the names in small letters."""
    pairs = (one.rpartition(": ") for one in text.split(", "))
    return {name.strip().lower(): value for name, _, value in pairs if name}


def _resources(told: Told) -> list[dict[str, Any]]:
    """Civitai's own list of what a picture was drawn with."""
    text = told.text("Civitai resources")
    found = json_of(f'{{"of": {text}}}') if text else None
    listed = found.get("of") if found else None
    return [one for one in listed if isinstance(one, dict)][:MOST_LORAS] if isinstance(listed, list) else []


def _version(resource: dict[str, Any]) -> str:
    number = whole_of(resource.get("modelVersionId"))
    return str(number) if number is not None and number > 0 else ""


def _use_of(resource: dict[str, Any]) -> LoraUse:
    strength = number_of(resource.get("weight", 1.0))
    name = resource.get("modelName")
    label = name[:200] if isinstance(name, str) else ""
    return LoraUse(label, "", _version(resource), 1.0 if strength is None else strength)
