"""A LoRA's reading fitted to a model's layers, by names and shapes: every tensor counted, whatever becomes of it.

Used, alpha, or unmatched: there is no fourth. A layer whose tensors are incomplete or of another shape is
unmatched in all of them; one of rank 0 changes nothing, and fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from craft_protos.reasons import CraftError

from craftd.worker.lora import embedding, lycoris, weightforms
from craftd.worker.lora.embedding import Vectors
from craftd.worker.lora.layout import Layout, Shape
from craftd.worker.lora.reading import Reading
from craftd.worker.lora.roles import shown
from craftd.worker.lora.spellings import Place, Places, Spellings

_NO_LAYER = "the model has no such layer"
_MOST_SHOWN = 3  # tensors, in an error
_WHOLLY_KNOWN = ("UNet2DConditionModel",)


@dataclass(frozen=True)
class Change:
    """What a file has for one layer, or for several that are one in it."""

    parts: Mapping[str, str]  # "down", "up", ... -> the tensor's name
    places: Places
    rank: int
    scale: float | None  # alpha / rank; None: the tensor of alpha tells


@dataclass(frozen=True)
class Fit:
    """Which of the file's tensors are used, and why others are not."""

    total: int
    unmatched: Mapping[str, str]  # tensor -> why
    changes: tuple[Change, ...]
    bundled: tuple[str, ...] = ()  # words of the embeddings beside them that the model can read

    @property
    def matched(self) -> int:
        """Tensors that are used, alphas among them."""
        return self.total - len(self.unmatched)

    @property
    def is_whole(self) -> bool:
        return not self.unmatched

    def layers(self, component: str) -> int:
        """How many of its layers are changed."""
        return sum(place.component == component for change in self.changes for place in change.places)


class _Misfit(Exception):
    """A layer's tensors do not make a change of that layer."""


def fit(reading: Reading, spellings: Spellings) -> Fit:
    if reading.vectors:
        why = embedding.misfit(reading.vectors, reading.shapes, spellings.layout)
        return Fit(len(reading.shapes), dict.fromkeys(reading.shapes, why) if why else {}, ())
    return _Fitting(reading, spellings).fit()


def may_be_converted(reading: Reading, found: Fit, layout: Layout) -> bool:
    """Whether diffusers' own converter may know names that craft does not: it is dear, so only then it is asked.

    Of UNets it knows none. What has the right name and another shape, it cannot help either.
    """
    if reading.vectors:
        return False
    has_others = layout.has_converter and layout.components[layout.denoiser].kind not in _WHOLLY_KNOWN
    is_open = any(why == _NO_LAYER or not why for why in found.unmatched.values())
    return has_others and is_open and layout.architecture.may_take(reading.base)


def mismatch(lora: str, model: str, matched: int, total: int, unmatched: Mapping[str, str]) -> CraftError:
    """LORA_MISMATCH that counts and names what does not fit."""
    named = ", ".join(_named(key, why) for key, why in list(unmatched.items())[:_MOST_SHOWN])
    more = ", ..." if len(unmatched) > _MOST_SHOWN else ""
    hint = (
        "use a LoRA made for this model, or --lora-missing=skip to apply the rest"
        if matched
        else "it was made for another kind of model"
    )
    message = f"LoRA {lora} does not fit model {model}: {matched} of {total} tensors fit (not {named}{more})"
    return CraftError("LORA_MISMATCH", message, hint)


def _named(key: str, why: str) -> str:
    return f"{shown(key)[1:-1]}: {why}" if why else shown(key)[1:-1]


class _Fitting:
    """Fits one file to one model, layer by layer."""

    def __init__(self, reading: Reading, spellings: Spellings) -> None:
        self._reading = reading
        self._spellings = spellings
        self._shapes = reading.shapes
        self._taken: set[tuple[str, str]] = set()
        self._changes: list[Change] = []
        self._unmatched: dict[str, str] = dict(reading.unknown)

    def fit(self) -> Fit:
        for path, parts in self._reading.paths.items():
            try:
                self._fit(path, parts)
            except _Misfit as why:
                self._unmatched |= dict.fromkeys(parts.values(), str(why))
        words = tuple(word for word, vectors in self._reading.bundled.items() if self._can_read(vectors))
        return Fit(len(self._shapes), dict(sorted(self._unmatched.items())), tuple(self._changes), words)

    def _can_read(self, vectors: Vectors) -> bool:
        why = embedding.misfit(vectors, self._shapes, self._spellings.layout)
        self._unmatched |= dict.fromkeys(vectors.values(), why) if why else {}
        return not why

    def _fit(self, path: str, parts: Mapping[str, str]) -> None:
        candidates = self._spellings.find(path)
        if not candidates:
            raise _Misfit(_NO_LAYER)
        if "alpha" in parts and math.prod(self._shapes[parts["alpha"]]) != 1:
            raise _Misfit("it is no single number")
        form = weightforms.of(parts)
        if form not in (weightforms.DIFF, weightforms.BIAS):
            candidates = [one for one in candidates if all(len(self._layer(place)) > 1 for place in one)]
            if not candidates:
                raise _Misfit("the model's layer is a norm, which nothing but a full difference changes")
        if form:
            if why := weightforms.complaint(form, parts):
                raise _Misfit(why)
            rank = weightforms.rank(form, {part: self._shapes[key] for part, key in parts.items()})
            places = next((places for places in candidates if self._is_of(form, parts, places)), None)
        elif lycoris.is_one(parts):
            rank = lycoris.rank({part: self._shapes[key] for part, key in parts.items()})
            places = next((places for places in candidates if self._makes(parts, places)), None)
        else:
            rank, kernel = self._kernel(parts)
            if not rank:
                if "diff_b" in parts:
                    raise _Misfit("its bias is changed beside a product of rank 0")
                return
            places = next((places for places in candidates if self._has_shape(parts, rank, kernel, places)), None)
        if places is None or not self._has_bias(parts, places):
            raise _Misfit(f"the model's layer has another shape: {self._wanted(candidates[0])}")
        taken = {(place.component, place.layer) for place in places}
        if taken & self._taken:
            raise _Misfit("it is the same layer by another name")
        self._taken |= taken
        self._changes.append(Change(parts, places, rank, self._scale(path, parts, rank, places)))

    def _kernel(self, parts: Mapping[str, str]) -> tuple[int, Shape]:
        """The rank, and what the down projection takes in, kernel included."""
        if "down" not in parts or "up" not in parts:
            raise _Misfit("the other half of it is missing")
        down, mid = self._shapes[parts["down"]], self._shapes[parts["mid"]] if "mid" in parts else None
        if not down:
            raise _Misfit("it has no rank")
        if mid is None:
            return down[0], down[1:]
        if len(mid) != 4 or mid[1] != down[0] or math.prod(down) != math.prod(down[:2]):
            raise _Misfit("its middle does not go with its down projection")
        return mid[0], (*down[1:2], *mid[2:])

    def _has_shape(self, parts: Mapping[str, str], rank: int, kernel: Shape, places: Places) -> bool:
        """A kernel of one may be written or left out."""
        shapes = [self._layer(place) for place in places]
        outputs, up = sum(shape[0] for shape in shapes), self._shapes[parts["up"]]
        return (
            up[:1] == (outputs,)
            and math.prod(up) == outputs * rank
            and all(_sides(kernel) == _sides(shape[1:]) for shape in shapes)
            and self._has_magnitude(parts, outputs, shapes[0])
        )

    def _makes(self, parts: Mapping[str, str], places: Places) -> bool:
        """Whether a LoHa or LoKr has all of its parts, and they make a change of these layers together."""
        layers = [self._layer(place) for place in places]
        outputs = sum(layer[0] for layer in layers)
        shapes = {part: self._shapes[key] for part, key in parts.items()}
        return (
            all(layer[1:] == layers[0][1:] for layer in layers)
            and lycoris.makes(shapes, (outputs, *layers[0][1:]))
            and self._has_magnitude(parts, outputs, layers[0])
        )

    def _is_of(self, form: str, parts: Mapping[str, str], places: Places) -> bool:
        """Whether a change of a layer's own weight has the shape of these layers together."""
        layers = [self._layer(place) for place in places]
        shapes = {part: self._shapes[key] for part, key in parts.items()}
        is_one = len(places) == 1 and places[0].outputs is None and not places[0].is_swapped
        together = (sum(layer[0] for layer in layers), *layers[0][1:])
        return all(layer[1:] == layers[0][1:] for layer in layers) and weightforms.makes(
            form, shapes, together, is_one_layer=is_one
        )

    def _has_bias(self, parts: Mapping[str, str], places: Places) -> bool:
        """Whether what is added to the bias, if anything, has a number for each output."""
        outputs = sum(self._layer(place)[0] for place in places)
        return "diff_b" not in parts or self._shapes[parts["diff_b"]] == (outputs,)

    def _has_magnitude(self, parts: Mapping[str, str], outputs: int, layer: Shape) -> bool:
        """As many as there are outputs; of LyCORIS, also as inputs."""
        if "magnitude" in parts:
            return math.prod(self._shapes[parts["magnitude"]]) == outputs
        if "dora_scale" not in parts:
            return True
        shape = self._shapes[parts["dora_scale"]]
        return math.prod(shape) == outputs or is_by_input(shape, layer)

    def _scale(self, path: str, parts: Mapping[str, str], rank: int, places: Places) -> float | None:
        if not rank:
            return 1.0
        if "alpha" in parts:
            return None
        names = [path, *_without_prefixes(path, places[0].component), *(place.layer for place in places)]
        return self._reading.strengths.scale(places[0].component, rank, names)

    def _layer(self, place: Place) -> Shape:
        return self._spellings.layout.components[place.component].layers[place.layer]

    def _wanted(self, places: Places) -> str:
        shapes = [self._layer(place) for place in places]
        return "x".join(map(str, (sum(shape[0] for shape in shapes), *shapes[0][1:])))


def is_by_input(magnitude: Shape, layer: Shape) -> bool:
    """Whether a DoRA's magnitudes are its inputs', as LyCORIS had them once: 1, inputs, 1, 1."""
    return len(magnitude) > 1 and magnitude[0] == 1 and math.prod(magnitude) == layer[1]


def _without_prefixes(path: str, component: str) -> Iterator[str]:
    """How peft knew the layer, whose patterns may be of the name's beginning."""
    for prefix in (f"{component}.", "base_model.model."):
        if path.startswith(prefix):
            yield path.removeprefix(prefix)


def _sides(shape: Shape) -> list[int]:
    return [side for side in shape if side != 1]
