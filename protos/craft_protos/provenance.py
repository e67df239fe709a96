"""What a picture says of how it was made: a JSON object, and the request that makes it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from craft_protos.codec import from_json, hints_of, to_json
from craft_protos.frozen import dataclass
from craft_protos.generate import CRAFT, FAIL, SKIP, GenerateRequest, GenerateSpec
from craft_protos.lora import DETAILS, LoraRef

if TYPE_CHECKING:
    from craft_protos.dispatch import Dispatch

_OF_THE_JOB = ("count", "indices", "lora_missing", "wildcards", "expanded")  # fields that say nothing of one picture
_PICTURES = ("start", "mask", "references", "controls")  # fields that a picture has that was made from others
_OTHERWISE = ("model", "loras")  # fields that have another form in a record
_ALWAYS = ("prompt", "width", "height", "steps", "guidance_scale", "seed", "sampler")


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA that an image was drawn with: `matched` of its file's `total` tensors were applied; 0 of 0: not known."""

    id: str
    name: str
    sha256: str
    weight: float
    matched: int = 0
    total: int = 0
    text_weight: float | None = None  # these four as a LoraRef has them
    blocks: tuple[float, ...] = ()
    start: float | None = None
    end: float | None = None

    @property
    def ref(self) -> LoraRef:
        """What asks for it again."""
        return LoraRef(self.sha256, self.weight, **{name: getattr(self, name) for name in DETAILS})

    @property
    def told(self) -> dict[str, Any]:
        """As JSON has it: without what was not said of it."""
        return {name: value for name, value in to_json(self).items() if name not in DETAILS or value not in (None, ())}

    @property
    def is_whole(self) -> bool:
        return self.matched == self.total


def record(job: Dispatch, index: int, loras: Sequence[AppliedLora], circumstances: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the image of that index follows from."""
    own = job.drawing.of_image(index)
    told = {name: value for name, value in to_json(own).items() if name not in _OF_THE_JOB}
    if own is not job.drawing:
        told |= {"prompt_template": job.drawing.prompt, "negative_prompt_template": job.drawing.negative_prompt}
    for name in _PICTURES:
        if not told[name]:
            del told[name]
        elif job.public:  # which picture it was is nobody's business
            for one in told[name] if isinstance(told[name], tuple | list) else (told[name],):
                del one["sha256"]
    weights = {one.name: one.sha256 for one in job.controls}
    for control in told.get("controls", ()):
        control["model_sha256"] = weights.get(control["model"], "")
    for name in ("upscale", "hires", "refiner"):
        if told[name] is None:
            del told[name]
    later = {one.name: one.sha256 for one in job.later_models}
    if refiner := told.get("refiner"):
        refiner["sha256"] = later.get(refiner["model"], "")
    upscalers = [{"name": name, "sha256": later[name]} for name in job.drawing.upscalers if name in later]
    return {
        **told,
        **({"upscalers": upscalers} if upscalers else {}),
        "model": {"name": job.model.name, "sha256": job.model.sha256},
        "loras": [lora.told for lora in loras],
        "seed": job.drawing.seed + index,
        "index": index,
        **circumstances,
    }


def _control(told: Mapping[str, Any]) -> dict[str, Any]:
    """Its control model by its weights, whatever that is called here."""
    rest = {name: value for name, value in told.items() if name != "model_sha256"}
    return {**rest, "model": told.get("model_sha256") or told["model"]}


def request(record: Mapping[str, Any], loras: Sequence[AppliedLora]) -> GenerateRequest:
    """What makes the picture again, its LoRAs by their sha256. Raises INVALID_FIELD, KeyError and TypeError."""
    if any(record[name] is None for name in _ALWAYS):
        raise TypeError("what makes a picture is never null")
    known = hints_of(GenerateSpec).keys() - {*_OF_THE_JOB, *_OTHERWISE}
    fields = {name: record[name] for name in known if name in record or name in _ALWAYS}
    fields.setdefault("prompt_syntax", CRAFT)  # of a picture that is older than the others
    fields["controls"] = [_control(one) for one in fields.get("controls", ())]
    if refiner := fields.get("refiner"):
        fields["refiner"] = {name: value for name, value in refiner.items() if name != "sha256"}
    if not record["steps"]:  # nothing was drawn: its start picture was enlarged
        fields = {
            name: fields[name] for name in ("start", "upscale", "seed", "format", "deterministic") if name in fields
        }
    return replace(
        from_json(GenerateRequest, {"format": "png", **fields, "model": record["model"]["name"]}),
        loras=tuple(lora.ref for lora in loras),
        lora_missing=FAIL if all(lora.is_whole for lora in loras) else SKIP,
    )
