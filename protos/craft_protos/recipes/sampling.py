"""Other programs' samplers and schedules by craft's names."""

from __future__ import annotations

from collections.abc import Iterator

from craft_protos import samplers
from craft_protos.reasons import CraftError

_DEFAULTS = ("", "automatic", "discrete", "default")  # schedules that are the sampler's own


def sampler_of(sampler: str, schedule: str, *, is_flow: bool) -> tuple[str, tuple[str, ...]]:
    """Craft's name of both, and what of them is not in it: "" where none of craft's is meant."""
    wanted = "" if schedule.strip().lower() in _DEFAULTS else schedule.strip()[:60]
    if not sampler:
        return "", (f"schedule: {wanted}",) if wanted else ()
    found, left = _found(sampler.strip()[:60], wanted)
    if not found:
        return "", (f"sampler: {sampler[:60]}{' ' + wanted if wanted else ''}: the model's own is used",)
    if is_flow:
        found, left = _of_flow(found, left)
    return found, tuple(f"{what}: the {'model' if 'sampler' in what else 'sampler'}'s own is used" for what in left)


def _found(sampler: str, schedule: str) -> tuple[str, tuple[str, ...]]:
    for form in _forms(sampler):
        if schedule and (whole := _canonical(f"{form} {schedule}")):
            return whole, ()
    for form in _forms(sampler):
        if alone := _canonical(form):
            return alone, (f"schedule: {schedule}",) if schedule else ()
    return "", ()


def _forms(sampler: str) -> Iterator[str]:
    """As it is called; without what ComfyUI and NovelAI put around it; without a schedule behind it."""
    plain = sampler.removesuffix("_gpu").removeprefix("sample_")
    yield from (plain, plain.removeprefix("k_"), plain.removesuffix("_bh2"))
    if " " in plain:
        yield plain.rpartition(" ")[0]


def _canonical(name: str) -> str:
    try:
        return samplers.canonical(name)
    except CraftError:
        return ""


def _of_flow(found: str, left: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """A flow-matching model takes few."""
    sampler, schedule = samplers.parts_of(found)
    if sampler not in samplers.FLOW:
        return "", (f"sampler: {found}", *left)
    if schedule and schedule not in samplers.flow_schedules_of(sampler):
        return sampler, (f"schedule: {schedule}", *left)
    return found, left
