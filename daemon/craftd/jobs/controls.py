"""What a request says of its control pictures, checked and made complete: the control model of each, and its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from craft_protos.generate import CONTROL_KINDS, MAP, MAPS, Control, GenerateRequest
from craft_protos.reasons import invalid

from craftd.architectures import controls as kinds
from craftd.models.model import Model
from craftd.models.part import Part

_CROP = "crop"
_LEAST_HASH = 8  # characters of a sha256 that name a control model


def check_kind(kind: str, field: str = "controls.kind") -> None:
    """Raises INVALID_FIELD for what craft does not make of a picture."""
    if kind in CONTROL_KINDS:
        return
    if kind in kinds.NEED_NETWORKS:
        why = f"{kind}: it takes a network that craft does not have to find that in a picture"
        ready = f"{kind}-map" if f"{kind}-map" in MAPS else MAP
        raise invalid(field, why, f"send a ready {kind} map, as {ready}")
    raise invalid(field, f"must be one of {', '.join(CONTROL_KINDS)}, not {kind[:32]!r}")


def check(controls: Sequence[Control]) -> None:
    """What can be said of them without looking for anything. Raises INVALID_FIELD."""
    for one in controls:
        check_kind(one.kind)
        if one.start is not None and one.start >= (1.0 if one.end is None else one.end):
            message = f"{one.start:g} is not before the end, {1 if one.end is None else one.end:g}"
            raise invalid("controls.start", message, "they are shares of the steps, such as 0 and 0.8")
        if one.model and not (len(one.model) <= 255 and one.model.isprintable()):
            raise invalid(
                "controls.model", f"{one.model[:100]!r} is no control model's name", "see `craft models list`"
            )


def completed(wanted: GenerateRequest, model: Model, known: Sequence[Part]) -> GenerateRequest:
    """The request with everything filled in. `known`: the control models that are registered. Raises INVALID_FIELD."""
    if not wanted.controls or "controls" not in model.architecture.takes:
        return wanted  # what the model does not understand is refused with the rest of that
    fit = _CROP if wanted.start is None else wanted.start.fit
    return replace(wanted, controls=tuple(_complete(one, fit, model, known) for one in wanted.controls))


def _complete(one: Control, fit: str, model: Model, known: Sequence[Part]) -> Control:
    part = _named(one.model, model, known) if one.model else _fitting(one.kind, model, known)
    modes = kinds.modes_of(part.kind)
    if modes and one.kind not in modes:
        why = f"{part.name} reads several kinds of pictures, and is not told by {one.kind} which this is"
        raise invalid("controls.kind", why, f"take one of {', '.join(modes)}")
    return replace(
        one,
        model=part.name,
        scale=1.0 if one.scale is None else one.scale,
        start=0.0 if one.start is None else one.start,
        end=1.0 if one.end is None else one.end,
        fit=one.fit or fit,
    )


def _named(name: str, model: Model, known: Sequence[Part]) -> Part:
    """By its name, or the beginning of its weights' hash."""
    found = next((part for part in known if part.name == name), None)
    if found is None and len(name) >= _LEAST_HASH:
        found = next((part for part in known if part.sha256.startswith(name)), None)
    if found is None:
        raise invalid("controls.model", f"{name[:100]!r} is no control model here", _hint(known))
    if not kinds.is_for(found.kind, model.architecture):
        why = f"{found.name} is {found.shown}, and the model {model.name} is {model.architecture.name}"
        raise invalid("controls.model", why, _hint(fitting_parts(model, known)))
    return found


def _fitting(kind: str, model: Model, known: Sequence[Part]) -> Part:
    """The only one that is for the model, and by its name for the kind, or else for others of lines."""
    own = fitting_parts(model, known)
    fitting = [part for part in own if kinds.reads(part.reads, kind)] or [part for part in own if not part.reads]
    fitting = fitting or [part for part in own if kinds.reads_lines(part.reads, kind)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(part.name for part in fitting)
        read = "are" if kind == MAP else f"read {kind}"
        raise invalid("controls.model", f"none is named, and several {read} for {model.name}: {names}", "name one")
    why = f"none is named, and none here reads {kind} for {model.name}"
    others = ", ".join(f"{part.name} reads {part.reads}" for part in own)
    hint = f"{others}: name it to use it all the same, or add one: craft models add FOLDER" if own else _hint(own)
    raise invalid("controls.model", why, hint)


def fitting_parts(model: Model, known: Sequence[Part]) -> list[Part]:
    """The control models that a model can be drawn with."""
    return [part for part in known if kinds.is_for(part.kind, model.architecture)]


def _hint(known: Sequence[Part]) -> str:
    if not known:
        return "add one: craft models add FOLDER"
    return f"name one of {', '.join(part.name for part in known)}, or add one: craft models add FOLDER"
