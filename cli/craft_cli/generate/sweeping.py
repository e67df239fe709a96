"""`generate --sweep guidance=1,2,4 --sweep steps=8,20`: the same picture with each of the values, each with each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from craft_protos import codec, synonyms
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError

from craft_cli.generate import flags, loras, tables
from craft_cli.generate.inputs import Wish
from craft_cli.generate.spec import pair

_MOST = 10_000  # of all combinations
_SIZE = "size"  # both sides at once
_FORM = "write it like --sweep guidance=1,2,4"
_FIELDS: dict[str, type] = {
    **dict.fromkeys(("steps", "guidance_scale", "sampler", "seed", "width", "height", "model"), GenerateRequest),
    **dict.fromkeys(("loras", "clip_skip", "guidance_rescale", "negative_prompt"), GenerateRequest),
    **dict.fromkeys(("strength", "mask_blur", "mask_grow", "mask_padding"), Wish),
}
_SPOKEN = {flags.GENERATE[name].removeprefix("--"): name for name in _FIELDS if name in flags.GENERATE}


@dataclass(frozen=True)
class Combination:
    """One value of each option that is swept over. `names`: the options' values as a file's name tells them."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    def spec(self, asked: GenerateRequest) -> GenerateRequest:
        return replace(asked, **self.fields)

    def wish(self, asked: Wish) -> Wish:
        return replace(asked, **self.pictures)

    def __or__(self, other: Combination) -> Combination:
        return Combination(
            {**self.fields, **other.fields}, {**self.pictures, **other.pictures}, {**self.names, **other.names}
        )


def parse(options: Sequence[str]) -> tuple[Combination, ...]:
    """All combinations, the last option's values changing first; without options one that changes nothing.

    Raises USAGE for an option or a value that cannot be, INVALID_FIELD for one out of its range.
    """
    axes = [_axis(option) for option in options]
    names = [name for axis in axes for name in axis[0].names]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CraftError(
            "USAGE", f"--sweep {min(twice)} is given twice", "name all of its values in one: " + _FORM[14:]
        )
    if math.prod(map(len, axes)) > _MOST:
        raise CraftError("USAGE", f"--sweep: {math.prod(map(len, axes))} combinations", f"{_MOST} are the most")
    return tuple(_joined(ones) for ones in itertools.product(*axes))


def _joined(ones: Iterable[Combination]) -> Combination:
    found = Combination()
    for one in ones:
        found |= one
    return found


def _axis(option: str) -> list[Combination]:
    spoken, equals, values = option.partition("=")
    if not equals or not values.strip(", "):
        raise CraftError("USAGE", f"--sweep {option}: no values", _FORM)
    ones = [_one(spoken.strip().lstrip("-").lower(), value.strip()) for value in values.split(",") if value.strip()]
    seen = set[tuple[Any, ...]]()
    for one in ones:
        meant = (*one.fields.values(), *one.pictures.values())
        if meant in seen:
            (value,) = one.names.values()
            raise CraftError("USAGE", f"--sweep {option}: {value} is there twice", "name each value once")
        seen.add(meant)
    return ones


def _one(spoken: str, value: str) -> Combination:
    if spoken == _SIZE:
        return Combination(
            pair("--sweep size", value, ("width", "height"), "size=512x512,768x512"), names={spoken: value}
        )
    name = _field(spoken)
    names = {flags.GENERATE.get(name, spoken).removeprefix("--"): value}
    if name == "loras":
        return Combination({name: (loras.parse(value),)}, names=names)
    read = _checked(spoken, name, value)
    if _FIELDS[name] is Wish:
        return Combination(pictures={name: read}, names=names)
    return Combination({name: read}, names=names)


def _field(spoken: str) -> str:
    """The field that a name means, as an option, as a field or as others call it. Raises USAGE."""
    words = spoken.replace("-", " ").replace("_", " ")
    meant = [name for name, others in synonyms.FIELDS.items() if name in _FIELDS and words in others]
    for name in (_SPOKEN.get(spoken, words.replace(" ", "_")), *meant):
        if name in _FIELDS:
            return name
    known = [*_SPOKEN, *(name for name in _FIELDS if name not in flags.GENERATE), _SIZE]
    near = synonyms.nearest(spoken, _FIELDS, synonyms.FIELDS) or synonyms.nearest(spoken, known, {})
    hint = f"did you mean {near[0]}?" if near else f"it sweeps over {', '.join(sorted(set(known)))}"
    raise CraftError("USAGE", f"--sweep: craft does not sweep over {spoken!r}", hint)


def _checked(spoken: str, name: str, value: str) -> Any:
    kind = _FIELDS[name]
    try:
        read = codec.field_of_json(kind, name, tables.value_of(name, value))
    except CraftError as error:
        raise CraftError("USAGE", f"--sweep {spoken}={value}: {error.message.partition(': ')[2]}", _FORM) from error
    rule = codec.rule_of(kind, name)
    if rule is not None and (complaint := rule.complaint(read)):
        raise CraftError("USAGE", f"--sweep {spoken}={value}: {complaint}", _FORM)
    return read
