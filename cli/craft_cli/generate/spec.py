"""What to draw: from options or from a JSON line into CreateJob's fields."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from craft_protos import codec, formats, synonyms
from craft_protos.frozen import dataclass
from craft_protos.generate import FAIL, GenerateRequest
from craft_protos.lora import has_tags
from craft_protos.reasons import CraftError, invalid
from craft_protos.rules import Choice, ruled
from craft_protos.settings import GenerateSettings

from craft_cli.generate import drawing, loras
from craft_cli.generate.inputs import Wish

if TYPE_CHECKING:
    from craft_protos import jobs_pb2


_NO_WISH = Wish()


def with_default_model(asked: GenerateRequest, name: str) -> GenerateRequest:
    """The configured model where none is named; where LoRAs are, the daemon sees whether it is one for them."""
    if asked.model:
        return asked
    name = asked.default_model or name
    has_loras = bool(asked.loras) or has_tags(asked.prompt)
    return replace(asked, default_model=name) if has_loras else replace(asked, model=name)


def with_settings(asked: GenerateRequest, settings: GenerateSettings) -> GenerateRequest:
    """What the configuration says of steps and guidance, where nothing else is said."""
    if asked.steps is None and settings.steps:
        asked = replace(asked, steps=settings.steps)
    if asked.guidance_scale is None and settings.guidance >= 0:
        asked = replace(asked, guidance_scale=settings.guidance)
    return asked


def with_sides(asked: GenerateRequest, sides: tuple[int, int]) -> GenerateRequest:
    """The configured size, where none is said and none follows from a picture."""
    if asked.width is not None or asked.height is not None or not sides[0]:
        return asked
    if asked.start is not None or asked.references or asked.controls:
        return asked
    return replace(asked, width=sides[0], height=sides[1])


def require_at_most(asked: GenerateRequest, most: int) -> None:
    """Raises INVALID_FIELD for more pictures than that: before anything is made for each of them."""
    if asked.count > most:
        shown = codec.shortened(asked.count)
        raise invalid("count", f"must be from 1 to {most}, not {shown}", "ask for fewer at a time")


def with_seed(asked: GenerateRequest) -> GenerateRequest:
    """The same with a seed of its own: the client makes it, so that a repeated request is the same."""
    return asked if asked.seed is not None else replace(asked, seed=drawing.new_seed())


@dataclass(frozen=True)
class Terms:
    """What a batch line says of its job besides what to draw; None and empty: as the command has it."""

    request_id: str = ""
    expire_time: float | None = None  # seconds since 1970
    priority: str = ruled("", Choice(("interactive", "batch")))
    lease: bool | None = None
    public: bool = False
    webhook: str = ""


def request(
    asked: GenerateRequest, *, lease: bool, batch: bool = False, terms: Terms | None = None
) -> jobs_pb2.CreateJobRequest:
    """CreateJob's message. The request must have a seed. Raises INVALID_FIELD for what no message can carry."""
    from craft_protos import jobs_pb2

    assert asked.seed is not None
    if asked.count < 1:
        raise invalid("count", f"{asked.count} is too few", "ask for at least one picture")
    terms = terms or Terms()
    filled = replace(
        terms,
        request_id=terms.request_id or drawing.new_request_id(),
        priority=terms.priority or ("batch" if batch else "interactive"),
        lease=lease if terms.lease is None else terms.lease,
    )
    made = codec.to_message(filled, jobs_pb2.CreateJobRequest())
    codec.to_message(asked, made.generate)
    return made


def complaint(kind: type, name: str, value: Any) -> str:
    """Why a field cannot have that value; "" where it can."""
    rule = codec.rule_of(kind, name)
    return "" if rule is None else rule.complaint(value)


def pair(option: str, text: str | None, names: tuple[str, str], form: str) -> dict[str, Any]:
    """Both fields of an option with two numbers, as in `form`. Raises USAGE."""
    if text is None:
        return {}
    found = re.fullmatch(r"(\d{1,9})\s*[x×X*,]\s*(\d{1,9})", text.strip())
    if found is None:
        raise CraftError("USAGE", f"{option} {text}: not two numbers from 0 up", f"write it as {option} {form}")
    return {name: int(number) for name, number in zip(names, found.groups(), strict=True)}


def format_name(text: str) -> str:
    """png, jpeg or webp from what people write. Raises USAGE."""
    found = formats.find(text)
    if found is None:
        raise CraftError("USAGE", f"craft writes no {text!r} files", f"use {formats.CHOICE}")
    return found.name


def missing_name(text: str) -> str:
    """fail or skip. Raises USAGE."""
    name = text.lower() or FAIL
    if name not in codec.rule_of(GenerateRequest, "lora_missing").values:
        raise CraftError("USAGE", f"--lora-missing: {text!r} is neither fail nor skip", "see `craft generate --help`")
    return name


def from_line(line: str, defaults: GenerateRequest, wish: Wish = _NO_WISH) -> tuple[GenerateRequest, Terms, Wish]:
    """A batch's line: a prompt, or a JSON object of CreateJob's fields and of pictures. Raises BAD_DATA, INVALID_FIELD.

    `wish`: what the command says of pictures, of which there is none where the line has another.
    """
    if not line.lstrip().startswith("{"):
        return replace(defaults, prompt=line), Terms(), wish
    told: dict[type, dict[str, Any]] = {GenerateRequest: {}, Terms: {}, Wish: {}}
    for name, value in _object(line).items():
        kind = _KINDS.get(name) or _unknown(name)
        if name == "mask" and isinstance(value, str):
            kind = Wish
        told[kind][name] = _read(kind, name, value)
    if "start" in told[GenerateRequest]:
        wish = wish.without_start
    if "mask" in told[GenerateRequest]:
        wish = wish.without_mask
    if "references" in told[GenerateRequest]:
        wish = replace(wish, refs=None)
    if "controls" in told[GenerateRequest]:
        wish = wish.without_controls
    return replace(defaults, **told[GenerateRequest]), Terms(**told[Terms]), replace(wish, **told[Wish])


_KINDS: dict[str, type] = {field.name: kind for kind in (Wish, GenerateRequest, Terms) for field in fields(kind)}
FIELDS = frozenset(_KINDS)


def _read(kind: type, name: str, value: Any) -> Any:
    if name == "loras":
        return loras.from_json(value)
    if name == "format":
        found = formats.find(str(value))
        if found is None or not isinstance(value, str):
            raise invalid(name, f"must be {formats.CHOICE}")
        return found.name
    if name == "expire_time":
        return _seconds(value)
    return codec.field_of_json(kind, name, value)


def _unknown(name: str) -> type:
    near = synonyms.nearest(name, _KINDS, synonyms.FIELDS)
    raise invalid(name, "no such field", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KINDS)}")


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"not valid JSON: {error}"
        raise CraftError(
            "BAD_DATA", message, 'a line is a prompt or an object like {"prompt": "a red apple"}'
        ) from error
    assert isinstance(found, dict)
    return found


def _seconds(text: Any) -> float:
    from google.protobuf.timestamp_pb2 import Timestamp

    time = Timestamp()
    try:
        time.FromJsonString(text)
    except (TypeError, ValueError, AttributeError) as error:
        shown = codec.shortened(text)
        raise invalid("expire_time", f"{shown!r} is no time", "write it like 2030-01-31T18:00:00Z") from error
    return time.seconds + time.nanos / 1e9
