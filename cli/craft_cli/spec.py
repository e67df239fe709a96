"""What to draw: from options or from a JSON line into CreateJob's fields."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from craft_protos import formats
from craft_protos.reasons import CraftError, invalid

from craft_cli import drawing, loras
from craft_cli.loras import LoraUse

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

_MISSING = ("", "fail", "skip")
_MAX_SHOWN = 40  # characters of a number in a message


@dataclass(frozen=True)
class Spec:
    """GenerateSpec's fields by their names; None: the model's own default."""

    prompt: str = ""
    negative_prompt: str = ""
    model: str = ""
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None
    count: int = 1
    sampler: str = ""
    format: str = ""
    deterministic: bool = False
    loras: tuple[LoraUse, ...] = ()
    lora_missing: str = ""
    trigger_words: bool = False
    indices: tuple[int, ...] = ()  # only these of the count; empty: all
    default_model: str = ""  # where the daemon chooses

    def with_default_model(self, name: str) -> Spec:
        """The configured model where none is named; where LoRAs are, the daemon sees whether it is one for them."""
        if self.model:
            return self
        name = self.default_model or name
        has_loras = bool(self.loras) or loras.has_tags(self.prompt)
        return replace(self, default_model=name) if has_loras else replace(self, model=name)

    def require_at_most(self, most: int) -> None:
        """Raises INVALID_FIELD for more pictures than that: before anything is made for each of them."""
        if self.count > most:
            raise invalid("count", f"must be from 1 to {most}, not {_short(self.count)}", "ask for fewer at a time")

    def with_seed(self) -> Spec:
        """The same with a seed of its own: the client makes it, so that a repeated request is the same."""
        return self if self.seed is not None else replace(self, seed=drawing.new_seed())

    def message(self) -> jobs_pb2.GenerateSpec:
        """As the contract's message. Raises INVALID_FIELD for what it cannot carry."""
        from craft_protos import jobs_pb2

        if self.count < 1:
            raise invalid("count", f"{self.count} is too few", "ask for at least one picture")
        generate = jobs_pb2.GenerateSpec(
            format=formats.number_of(self.format), lora_missing=_missing_number(self.lora_missing)
        )
        for name, value in vars(self).items():
            if name not in _OTHERWISE and value is not None:
                _put(generate, name, value)
        for index in self.indices:
            _append(generate, index)
        for use in self.loras:
            use.add_to(generate)
        return generate


@dataclass(frozen=True)
class Terms:
    """What a batch line says of its job besides what to draw; None and empty: as the command has it."""

    request_id: str = ""
    expire_time: str = ""  # RFC 3339
    priority: str = ""
    lease: bool | None = None
    public: bool = False


def request(spec: Spec, *, lease: bool, batch: bool = False, terms: Terms | None = None) -> jobs_pb2.CreateJobRequest:
    """CreateJob's message. The spec must have a seed. Raises INVALID_FIELD."""
    from craft_protos import jobs_pb2

    assert spec.seed is not None
    terms = terms or Terms()
    priority = terms.priority or ("batch" if batch else "interactive")
    made = jobs_pb2.CreateJobRequest(
        generate=spec.message(),
        priority=jobs_pb2.Priority.Value(f"PRIORITY_{priority.upper()}"),
        lease=lease if terms.lease is None else terms.lease,
        public=terms.public,
    )
    _put(made, "request_id", terms.request_id or drawing.new_request_id())
    if terms.expire_time:
        _put_time(made, terms.expire_time)
    return made


def format_name(text: str) -> str:
    """png, jpeg or webp from what people write. Raises USAGE."""
    found = formats.find(text)
    if found is None:
        raise CraftError("USAGE", f"craft writes no {text!r} files", f"use {formats.CHOICE}")
    return found.name


def missing_name(text: str) -> str:
    """fail or skip. Raises USAGE."""
    if text.lower() not in _MISSING:
        raise CraftError("USAGE", f"--lora-missing: {text!r} is neither fail nor skip", "see `craft generate --help`")
    return text.lower()


def _missing_number(name: str) -> jobs_pb2.LoraMissing.ValueType:
    from craft_protos import jobs_pb2

    return jobs_pb2.LORA_MISSING_SKIP if name == "skip" else jobs_pb2.LORA_MISSING_UNSPECIFIED


def format_of(number: int) -> str:
    """The name of an ImageFormat; unspecified is png."""
    return formats.name_of(number) or "png"


def _put(message: jobs_pb2.GenerateSpec | jobs_pb2.CreateJobRequest, name: str, value: object) -> None:
    try:
        setattr(message, name, value)
    except UnicodeEncodeError as error:
        raise invalid(name, "not valid text (it is not UTF-8)") from error
    except ValueError as error:  # what a protobuf integer cannot hold
        raise _out_of_range(name, value) from error


def _append(generate: jobs_pb2.GenerateSpec, index: int) -> None:
    try:
        generate.indices.append(index)
    except ValueError as error:
        raise _out_of_range("indices", index) from error


def _out_of_range(name: str, value: Any) -> CraftError:
    return invalid(name, f"{_short(value)} is too {'small' if value < 0 else 'large'}")


def _put_time(made: jobs_pb2.CreateJobRequest, text: str) -> None:
    try:
        made.expire_time.FromJsonString(text)
    except ValueError as error:
        raise invalid("expire_time", f"{_short(text)!r} is no time", "write it like 2030-01-31T18:00:00Z") from error


def _short(value: object) -> str:
    """A value of any length, for a message."""
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def from_line(line: str, defaults: Spec) -> tuple[Spec, Terms]:
    """A batch's line: a prompt, or a JSON object of CreateJob's fields. Raises BAD_DATA, INVALID_FIELD."""
    if not line.lstrip().startswith("{"):
        return replace(defaults, prompt=line), Terms()
    fields = {name: _checked(name, value) for name, value in _object(line).items()}
    terms = {name: fields.pop(name) for name in vars(Terms()) if name in fields}
    return replace(defaults, **fields), Terms(**terms)


def _object(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"not valid JSON: {error}"
        raise CraftError(
            "BAD_DATA", message, 'a line is a prompt or an object like {"prompt": "a red apple"}'
        ) from error
    assert isinstance(fields, dict)
    return fields


_KINDS: dict[str, tuple[type, str]] = {
    "prompt": (str, "text"),
    "negative_prompt": (str, "text"),
    "model": (str, "text"),
    "width": (int, "a whole number"),
    "height": (int, "a whole number"),
    "steps": (int, "a whole number"),
    "guidance_scale": (float, "a number"),
    "seed": (int, "a whole number"),
    "count": (int, "a whole number"),
    "sampler": (str, "text"),
    "format": (str, formats.CHOICE),
    "deterministic": (bool, "true or false"),
    "loras": (list, "a list"),
    "lora_missing": (str, "fail or skip"),
    "trigger_words": (bool, "true or false"),
    "indices": (list, "a list of whole numbers"),
    "default_model": (str, "text"),
    "request_id": (str, "text"),
    "expire_time": (str, "a time such as 2030-01-31T18:00:00Z"),
    "priority": (str, "interactive or batch"),
    "lease": (bool, "true or false"),
    "public": (bool, "true or false"),
}
_OTHERWISE = ("format", "loras", "lora_missing", "indices")  # not simply set
_CHOICES: dict[str, tuple[str, ...]] = {"lora_missing": _MISSING, "priority": ("interactive", "batch")}


def _as_float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise _out_of_range(name, value) from error


def _indices(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(one) is not int for one in value):
        raise invalid("indices", f"must be {_KINDS['indices'][1]}")
    return tuple(value)


def _checked(name: str, value: Any) -> Any:
    """The value of a JSON field, of the right kind. Raises INVALID_FIELD."""
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise invalid(name, "no such field", f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KINDS)}")
    if name == "loras":
        return loras.from_json(value)
    if name == "indices":
        return _indices(value)
    kind, meaning = _KINDS[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(name, value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise invalid(name, f"must be {meaning}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise invalid(name, f"must be {meaning}")
    if name == "format":
        found = formats.find(str(value))
        if found is None:
            raise invalid(name, f"must be {meaning}")
        value = found.name
    return value
