"""What a picture's file says about how it was made.

PNG: the text chunk `craft`. JPEG and WebP: EXIF UserComment. Both hold the same JSON.
The file may come from anyone: it is read as data, within limits.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from craft_protos import files, infotexts
from craft_protos.codec import from_json, hints_of
from craft_protos.formats import FORMATS
from craft_protos.generate import GenerateRequest
from craft_protos.provenance import AppliedLora, request
from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

_EXIF, _USER_COMMENT = 0x8769, 0x9286
_MAX_FILE_BYTES = 256 * 1024 * 1024
_MAX_PIXELS = 100_000_000
_READABLE = [one.pillow for one in FORMATS.values()]


@dataclass(frozen=True)
class Provenance:
    """A picture's origin, as far as it must be known to make it again."""

    spec: GenerateRequest  # of this one image: its own seed, a count of 1; its LoRAs by their sha256
    model_sha256: str
    loras: tuple[AppliedLora, ...]
    lora_files: dict[str, str]  # sha256 -> the file's name there
    device: str
    precision: str
    weights: str  # how its model's were packed
    versions: dict[str, str]
    refiner_sha256: str
    upscalers: dict[str, str]  # that it went through after it was drawn: name there -> sha256

    def differences(self, other: Provenance) -> dict[str, list[str]]:
        """What was not the same when the other was made: name -> [this, other]."""
        here, there = self._circumstances(), other._circumstances()
        return {
            name: [here.get(name, ""), there.get(name, "")]
            for name in sorted(here.keys() | there.keys())
            if here.get(name, "") != there.get(name, "")
        }

    def _circumstances(self) -> dict[str, str]:
        return {
            "model": f"{self.spec.model} {self.model_sha256}".strip(),
            "device": self.device,
            "precision": self.precision,
            "weights": self.weights,
            "refiner": f"{self.spec.refiner.model} {self.refiner_sha256}".strip() if self.spec.refiner else "",
            "upscalers": ", ".join(f"{name} {sha256}" for name, sha256 in self.upscalers.items()),
            "LoRAs": ", ".join(f"{lora.name} {lora.sha256[:12]} {lora.weight:g}" for lora in self.loras),
            **self.versions,
        }


def read_source(name: str) -> bytes:
    """The bytes of a file, or of stdin for `-`. Raises NO_INPUT."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_FILE_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise files.unreadable(name, error, "give the path of a picture") from error
    if len(data) > _MAX_FILE_BYTES:
        raise CraftError("BAD_DATA", f"{name} is larger than {_MAX_FILE_BYTES >> 20} MiB", "give a picture of craft's")
    return data


def open_picture(data: bytes, name: str) -> Image.Image:
    """A decoded picture; its size is checked before its pixels are. Raises BAD_DATA."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(data), formats=_READABLE)
            if picture.width * picture.height > _MAX_PIXELS:
                raise CraftError("BAD_DATA", f"{name} is too large: {picture.width}x{picture.height}", "")
            picture.load()
    except UnidentifiedImageError as error:  # whose text is an object's address
        raise CraftError("BAD_DATA", f"{name} is no picture", "give a PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise CraftError("BAD_DATA", f"{name} is not a readable picture: {error}", "PNG, JPEG and WebP are") from error
    return picture


def read(picture: Image.Image, name: str) -> Provenance:
    """The provenance in a picture. Raises NO_PROVENANCE."""
    text = _text(picture)
    if text is None:
        message = f"{name} does not say how it was made"
        raise CraftError(
            "NO_PROVENANCE", message, "pictures do that craft or another program drew, and no tool stripped"
        )
    try:
        return _parse(json.loads(text))
    except (CraftError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CraftError("NO_PROVENANCE", f"{name}: its provenance cannot be read: {error}", "") from error


def described(name: str, data: bytes) -> dict[str, Any]:
    """`images show FILE --json`. Raises BAD_DATA or NO_PROVENANCE."""
    told = outside(name, data)
    picture = open_picture(data, told["file"])
    read(picture, told["file"])
    return {**told, "provenance": json.loads(_text(picture) or "{}")}


def outside(name: str, data: bytes) -> dict[str, Any]:
    """What a picture is, whatever it says. Raises BAD_DATA."""
    shown = "stdin" if name == "-" else name
    picture = open_picture(data, shown)
    return {
        "file": shown,
        "media_type": f"image/{(picture.format or '').lower()}",
        "width": picture.width,
        "height": picture.height,
    }


def _text(picture: Image.Image) -> str | None:
    if picture.format == "PNG":
        text = getattr(picture, "text", {}).get("craft")
        return text if isinstance(text, str) else None
    comment = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT)
    if not isinstance(comment, bytes):
        return None
    return infotexts.comment(comment)


def _parse(record: dict[str, Any]) -> Provenance:
    loras = tuple(_lora(_is(dict, one)) for one in _is(list, record.get("loras", [])))
    versions = {str(name): str(version) for name, version in dict(record.get("versions", {})).items()}
    return Provenance(
        spec=request(record, loras),
        model_sha256=_is(str, record["model"].get("sha256", "")),
        loras=loras,
        lora_files={str(name): str(file) for name, file in _is(dict, record.get("lora_files", {})).items()},
        device=_is(str, record.get("device", "")),
        precision=_is(str, record.get("precision", "")),
        weights=_is(str, record.get("weights", "")),
        versions=versions,
        refiner_sha256=_is(str, _is(dict, record.get("refiner") or {}).get("sha256", "")),
        upscalers={_is(str, one["name"]): _is(str, one["sha256"]) for one in _is(list, record.get("upscalers", []))},
    )


def _lora(one: dict[str, Any]) -> AppliedLora:
    known = {name: one[name] for name in hints_of(AppliedLora) if name in one}
    return from_json(AppliedLora, {"id": "", "name": "", **known})


def _is(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is not {kind.__name__}")
    return value
