"""Make a picture again from what its file says, and say whether it came out the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from craft_protos.generate import LANCZOS, UPSCALER, Control, GenerateRequest, Reference
from craft_protos.pixels import eight_bits
from craft_protos.reasons import CraftError

from craft_cli.generate import controls, delivery, drawing, provenance
from craft_cli.generate.delivery import Manner
from craft_cli.generate.inputs import Pictures, Wish
from craft_cli.generate.provenance import Provenance

if TYPE_CHECKING:
    from PIL import Image

    from craft_cli.connection.session import Session


@dataclass(frozen=True)
class Original:
    """A picture's file: its pixels and its provenance."""

    name: str
    picture: Image.Image
    provenance: Provenance


@dataclass(frozen=True)
class Verdict:
    """How the new picture differs from the original."""

    max_difference: int  # of 255, in any channel of any pixel
    tolerance: int
    differences: dict[str, list[str]]  # circumstances: name -> [then, now]

    @property
    def result(self) -> str:
        if self.max_difference == 0:
            return "identical"
        return "within" if self.max_difference <= self.tolerance else "different"

    def as_dict(self) -> dict[str, Any]:
        return {
            "result": self.result,
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "differences": self.differences,
        }


def read_original(name: str) -> Original:
    """Raises NO_INPUT, BAD_DATA or NO_PROVENANCE."""
    data = provenance.read_source(name)
    shown = "stdin" if name == "-" else name
    picture = provenance.open_picture(data, shown)
    return Original(shown, picture, provenance.read(picture, shown))


def find_model(session: Session, origin: Provenance) -> str:
    """The name here of the model that drew it, whatever it was called there. Raises UNKNOWN_MODEL."""
    name, sha256 = origin.spec.model, origin.model_sha256
    if not sha256:
        return name
    if _is_enlarged_only(origin.spec):
        return _find_upscaler(session, name, sha256)
    return _drawing(session, name, sha256, "drawn with the model", "-m NAME draws with another model")


def with_others(session: Session, origin: Provenance, spec: GenerateRequest) -> GenerateRequest:
    """The refiner and the upscalers that it went through by their names here. Raises UNKNOWN_MODEL."""
    refiner = spec.refiner
    if refiner is not None and origin.refiner_sha256:
        hint = "add it: craft models add FILE"
        name = _drawing(session, refiner.model, origin.refiner_sha256, "finished by the refiner", hint)
        spec = replace(spec, refiner=replace(refiner, model=name))
    return _with_upscalers(session, origin, spec)


def _drawing(session: Session, name: str, sha256: str, how: str, hint: str) -> str:
    listed = [model.name for model in drawing.insist(session, lambda client: client.list_models())]
    found, here = _matching(session, listed, name, sha256)
    if found:
        return found
    raise CraftError("UNKNOWN_MODEL", f"it was {how} {name} {sha256[:12]}, which is not here{here}", hint)


def _with_upscalers(session: Session, origin: Provenance, spec: GenerateRequest) -> GenerateRequest:
    here = {name: _find_upscaler(session, name, sha256) for name, sha256 in origin.upscalers.items()}
    upscale, hires = spec.upscale, spec.hires
    if upscale is not None:
        upscale = replace(
            upscale, model=spec.model if _is_enlarged_only(spec) else here.get(upscale.model, upscale.model)
        )
    if hires is not None:
        hires = replace(hires, upscaler=here.get(hires.upscaler, hires.upscaler))
    return replace(spec, upscale=upscale, hires=hires)


def _is_enlarged_only(spec: GenerateRequest) -> bool:
    """Says whether nothing was drawn: its model is an upscaler."""
    return spec.upscale is not None and spec.steps is None


def _find_upscaler(session: Session, name: str, sha256: str) -> str:
    """The name here of an upscaler, whatever it was called there. Raises UNKNOWN_MODEL."""
    parts = drawing.insist(session, lambda client: client.list_parts())
    listed = [LANCZOS, *(part.name for part in parts if part.kind.startswith(UPSCALER))]
    found, here = _matching(session, listed, name, sha256)
    if found:
        return found
    message = f"it was enlarged with the upscaler {name} {sha256[:12]}, which is not here{here}"
    raise CraftError("UNKNOWN_MODEL", message, "add it: craft models add FILE")


def _matching(session: Session, names: Sequence[str], name: str, sha256: str) -> tuple[str, str]:
    """Which of them has those files, its namesake first; and what is told of the namesake where that has others."""
    here = ""
    for candidate in sorted(names, key=lambda other: other != name):
        found = _sha256(session, candidate)
        if found == sha256:
            return candidate, ""
        here = f"; {name} here is {found[:12]}" if candidate == name else here
    return "", here


def require_loras(session: Session, origin: Provenance) -> None:
    """Each of the LoRAs that took part is here, under whatever name. Raises UNKNOWN_LORA."""
    if not origin.loras:
        return
    here = {lora.sha256 for lora in drawing.insist(session, lambda client: client.list_loras())}
    for lora in origin.loras:
        if lora.sha256 not in here:
            name = origin.lora_files.get(lora.sha256)
            file = f" ({name})" if name else ""
            message = f"it was drawn with the LoRA {lora.name}{file}, sha256 {lora.sha256}, which is not here"
            raise CraftError("UNKNOWN_LORA", message, "add that file: craft lora add FILE")


def with_inputs(session: Session, spec: GenerateRequest, wish: Wish) -> GenerateRequest:
    """What it was made from is there, or is sent now. Raises UNKNOWN_INPUT where it is neither, BAD_DATA, USAGE."""
    pictures, start, mask = Pictures(session), spec.start, spec.mask
    for option, one, given in (("--image", start, wish.image), ("--mask", mask, wish.mask)):
        if one is None and given is not None:
            raise CraftError("USAGE", f"{option}: it was made from none", "leave it out")
    if start is not None:
        start = replace(start, sha256=_found(pictures, start.sha256, "--image", wish.image))
    if mask is not None:
        mask = replace(mask, sha256=_found(pictures, mask.sha256, "--mask", wish.mask))
    spec = replace(spec, start=start, mask=mask, references=_references(pictures, spec.references, wish.refs))
    spec = replace(spec, controls=_controls(pictures, spec.controls, wish.control))
    pictures.send(spec)
    return spec


def _references(pictures: Pictures, shown: Sequence[Reference], given: Sequence[str] | None) -> tuple[Reference, ...]:
    """Those that its model was shown, in their order: the given ones, or all of them are here."""
    if given is not None and len(given) != len(shown):
        message = f"--ref: its model was shown {len(shown) or 'no'} pictures, not {len(given)}"
        raise CraftError("USAGE", message, "give all of them, in their order" if shown else "leave it out")
    names: Sequence[str | None] = given or [None] * len(shown)
    pairs = zip(shown, names, strict=True)
    return tuple(Reference(_found(pictures, one.sha256, "--ref", name)) for one, name in pairs)


def _controls(pictures: Pictures, shown: Sequence[Control], given: Sequence[str] | None) -> tuple[Control, ...]:
    """Those that it was drawn with, in their order; of a given one the path counts, and a kind before it is its own."""
    if given is not None and len(given) != len(shown):
        message = f"--control: it was drawn with {len(shown) or 'no'} control pictures, not {len(given)}"
        raise CraftError("USAGE", message, "give all of them, in their order" if shown else "leave it out")
    names: Sequence[str | None] = [None] * len(shown) if given is None else controls.paths(given)
    pairs = zip(shown, names, strict=True)
    return tuple(replace(one, sha256=_found(pictures, one.sha256, "--control", name)) for one, name in pairs)


def _found(pictures: Pictures, sha256: str, option: str, given: str | None) -> str:
    """The sha256 of what is drawn from: a public picture does not name it."""
    if given is None:
        if sha256 and pictures.is_there(sha256):
            return sha256
        named = f"the picture {sha256[:12]}" if sha256 else "a picture that it does not name"
        message = f"it was made from {named}, which the daemon does not have (any more)"
        raise CraftError("UNKNOWN_INPUT", message, f"send it with {option} PATH")
    read = pictures.read(given)
    if sha256 not in ("", read.sha256):
        message = f"{option} {read.name}: is not what it was made from: sha256 {read.sha256[:12]}, not {sha256[:12]}"
        raise CraftError("BAD_DATA", message, "find that file, or draw another: craft generate -i")
    return read.sha256


def _sha256(session: Session, name: str) -> str:
    """Of a model's files; hashing them takes its time where that was never done."""
    return drawing.insist(session, lambda client: client.get_model(name)).sha256


def again(session: Session, origin: Provenance, model: str, wish: Wish) -> GenerateRequest:
    """What draws it once more: its own seed, one picture. Raises UNKNOWN_MODEL, UNKNOWN_LORA and as `with_inputs`."""
    require_loras(session, origin)
    spec = replace(origin.spec, model=model or find_model(session, origin))
    return with_inputs(session, with_others(session, origin, spec), wish)


def verify(session: Session, original: Original, spec: GenerateRequest, tolerance: int, manner: Manner) -> Verdict:
    """Draw it again, compare, and leave nothing behind."""
    from craft_cli.generate import spec as specs

    request = specs.request(spec, lease=True)
    job = delivery.attend(session, request, lambda job_id: delivery.watch(session, job_id, manner))
    data = drawing.fetch(session, job.images[0])
    session.client.delete_image(job.images[0].id)
    return _compare(original, data, tolerance)


def _compare(original: Original, data: bytes, tolerance: int) -> Verdict:
    remade = provenance.open_picture(data, "the new picture")
    now = provenance.read(remade, "the new picture")
    differences = original.provenance.differences(now)
    return Verdict(_max_difference(original.picture, remade), tolerance, differences)


def _max_difference(one: Image.Image, other: Image.Image) -> int:
    from PIL import ImageChops

    if one.size != other.size:
        return 255
    extrema = ImageChops.difference(eight_bits(one).convert("RGB"), eight_bits(other).convert("RGB")).getextrema()
    return max(int(high) for _, high in extrema)  # type: ignore[misc]
