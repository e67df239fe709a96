"""How long a job will take: told from what jobs of the same model took here."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
from craft_protos.codec import from_json
from craft_protos.generate import GenerateSpec, steps_of
from craft_protos.train import TrainSpec

_LOOKED_AT = 300  # the newest jobs that succeeded, of whatever model
_ENOUGH = 20
_LAST = "SELECT spec, load_s, {} FROM jobs WHERE state = 'SUCCEEDED' AND kind = '{}' ORDER BY seq DESC LIMIT ?"
_OF_KIND = {
    GenerateSpec: _LAST.format("denoise_s", "generate"),
    TrainSpec: _LAST.format("finish_time - start_time - load_s", "train"),
}
Spec = GenerateSpec | TrainSpec


@dataclass(frozen=True)
class Pace:
    """What is expected of a job. `jobs`: how many were measured; `load_s` is 0 where none of them had to load."""

    draw_s: float
    load_s: float
    jobs: int


@dataclass(frozen=True)
class _Took:
    spec: Spec
    load_s: float
    draw_s: float


def expected(connection: apsw.Connection, spec: Spec) -> Pace | None:
    """The pace of a job, if jobs of its kind and model were done here lately."""
    return expected_of(connection, [spec])[0]


def expected_of(connection: apsw.Connection, specs: Sequence[Spec]) -> list[Pace | None]:
    """The same of several, by one look at what was done."""
    kinds = {type(spec) for spec in specs}
    rows = {kind: connection.execute(_OF_KIND[kind], (_LOOKED_AT,)).fetchall() for kind in kinds}
    took = {(kind, model): list(_took(kind, model, rows[kind])) for kind, model in {(type(s), s.model) for s in specs}}
    return [_pace(spec, took[type(spec), spec.model]) for spec in specs]


def _pace(spec: Spec, took: Sequence[_Took]) -> Pace | None:
    if not _work(spec) or not took:
        return None
    nearest = sorted(took, key=lambda one: abs(_pixels(one.spec) - _pixels(spec)))[:_ENOUGH]
    rate = statistics.median(one.draw_s / _work(one.spec) for one in nearest)
    loads = [one.load_s for one in took if one.load_s]
    return Pace(rate * _work(spec), statistics.median(loads) if loads else 0.0, len(nearest))


def _took(kind: type[Spec], model: str, rows: Iterable[Any]) -> Iterable[_Took]:
    """What jobs of the model took; of trainings those that went from their beginning to their end."""
    for text, load_s, draw_s in rows:
        told = json.loads(text)
        if told.get("model") == model and not told.get("resume") and draw_s:
            done: Spec = from_json(TrainSpec, told) if kind is TrainSpec else from_json(GenerateSpec, told)
            if _work(done):
                yield _Took(done, load_s, draw_s)


def _work(spec: Spec) -> float:
    """What time grows with: pixels, steps, pictures, and both halves of guidance."""
    if isinstance(spec, TrainSpec):
        return float(_pixels(spec) * spec.steps * spec.batch_size * spec.gradient_accumulation)
    drawn = _pixels(spec) * steps_of(spec.steps, spec.start)
    if (hires := spec.hires) is not None:
        drawn += math.prod(hires.size) * int((hires.steps or 0) * (hires.strength or 0))
    halves = 2 if spec.guidance_scale > 1 else 1
    return float(drawn * len(spec.wanted) * halves)


def _pixels(spec: Spec) -> int:
    if isinstance(spec, TrainSpec):
        return spec.resolution**2
    return spec.width * spec.height
