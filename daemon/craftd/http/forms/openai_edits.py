"""OpenAI's requests that begin from a picture: edits and variations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from craft_protos.generate import MOST_MASK_PIXELS, GenerateRequest, Mask, Reference, Start
from craft_protos.reasons import CraftError, invalid
from pydantic import Field

from craftd.architectures import registry
from craftd.http.fields import Real, Text, Whole
from craftd.http.forms.openai_images import NAMES, GenerationRequest
from craftd.http.multipart import Part
from craftd.http.sent import described, schema_of
from craftd.http.uploads import decoded

# The service's names of fields -> the request's.
EDIT_NAMES = {
    **NAMES,
    "start": "image",
    "start.strength": "strength",
    "mask": "mask",
    "mask.blur": "mask_blur",
    "mask.padding": "mask_padding",
    "references": "image",
    "references.sha256": "image",
}
_FAITHFUL = 0.5  # the strength of input_fidelity `high`
_LIST = re.compile(r"(\w+)\[\d*\]")
_LISTED = re.compile(r"loras\[\d*\]\[(lora|weight)\]")
_ENCODED: dict[str, Any] = {"type": "string", "description": "base64, or a data URL."}
_FILE: dict[str, Any] = {"type": "string", "format": "binary"}
_MASK = "A PNG with an alpha channel, of the image's size: what is transparent is drawn anew."


class EditRequest(GenerationRequest):
    EVENTS: ClassVar[str] = "image_edit"
    edits: ClassVar[bool] = True  # where the model can

    strength: Annotated[Real, Field(ge=0, le=1)] | None = Field(
        None, description="From 0, the image as it is, to 1; 0.8, or with a mask 1, where it is left out."
    )
    input_fidelity: Literal["high", "low"] | None = Field(
        None,
        description="`high` is a strength of 0.5, where there is neither a mask nor a strength; no matter to edits.",
    )
    mask_blur: Annotated[Real, Field(ge=0, le=MOST_MASK_PIXELS)] | None = Field(
        None, description="Pixels over which the mask's edge is softened; 4 where it is left out."
    )
    mask_padding: Annotated[Whole, Field(ge=0, le=MOST_MASK_PIXELS)] | None = Field(
        None, description="Only what is around the mask is drawn, with so many pixels of the image on each side."
    )

    def drawn_from(self, image: str, mask: str | None) -> GenerateRequest:
        """It begins from an image; of inputs' hashes. Raises INVALID_FIELD for what craft does not do."""
        painted, strength = self._painted(mask), self.strength
        if strength is None and mask is None and self.input_fidelity == "high":
            strength = _FAITHFUL
        return replace(self.generate, start=Start(image, strength), mask=painted)

    def shown(self, images: Sequence[str], mask: str | None) -> GenerateRequest:
        """The model is shown the images; of the first, only what the mask shows is drawn anew. Raises INVALID_FIELD."""
        painted = self._painted(mask)
        if self.strength is not None:
            why = "means nothing to a model that is shown the images and begins from none"
            raise invalid("strength", why, "leave it out, or send a job that begins from the image: POST /jobs")
        start = None if painted is None else Start(images[0])
        return replace(self.generate, start=start, mask=painted, references=tuple(map(Reference, images)))

    def _painted(self, mask: str | None) -> Mask | None:
        if mask is not None:
            return Mask(mask, self.mask_blur, padding=self.mask_padding)
        for name in ("mask_blur", "mask_padding"):
            if getattr(self, name) is not None:
                raise invalid(name, "is of a mask, and there is none", "send a mask, or leave it out")
        return None


class VariationRequest(EditRequest):
    edits: ClassVar[bool] = False

    prompt: Text = ""


@dataclass
class Sent:
    """What came: the fields, and pictures by the names of theirs."""

    fields: dict[str, Any] = field(default_factory=dict)
    images: list[tuple[str, bytes | memoryview]] = field(default_factory=list)
    masks: list[tuple[str, bytes | memoryview]] = field(default_factory=list)

    def require_images(self, most: int) -> None:
        """Raises INVALID_FIELD unless there are some, and no more than that."""
        if not self.images:
            raise invalid("image", "is missing", "send a picture: PNG, JPEG or WebP")
        if len(self.images) > most:
            several = [row.name for row in registry.ROWS if "references" in row.takes and row.most_references > most]
            hint = f"send fewer, or take a model that is shown several: {' or '.join(several)}"
            raise invalid("image", f"are {len(self.images)}; the model takes {most}", hint if several else "send fewer")

    @property
    def mask(self) -> tuple[str, bytes | memoryview] | None:
        """Raises INVALID_FIELD for several."""
        if len(self.masks) > 1:
            raise invalid("mask", f"is given {len(self.masks)} times", "send one")
        return self.masks[0] if self.masks else None


def sent_as_form(parts: Iterable[Part]) -> Sent:
    """Blocking. Raises INVALID_FIELD, UNDECODABLE, BAD_DATA."""
    sent = Sent()
    for part in parts:
        listed = _LIST.fullmatch(part.name)
        name = listed[1] if listed else part.name
        if name in ("image", "mask"):
            data = part.data if part.is_file else decoded(name, part.text)
            (sent.images if name == "image" else sent.masks).append((name, data))
        elif part.is_file:
            raise invalid(name[:60], "is no field of this request that takes a file", "send image and mask as files")
        else:
            _add_text(sent.fields, part, name, is_listed=listed is not None)
    return sent


def sent_as_json(given: Mapping[str, Any]) -> Sent:
    """Blocking. Raises INVALID_FIELD, BAD_DATA."""
    sent = Sent({name: value for name, value in given.items() if name not in ("image", "images", "mask")})
    for name in ("image", "images"):
        value = given.get(name)
        several = value if isinstance(value, list) else [] if value is None else [value]
        for index, one in enumerate(several):
            field_name = f"{name}[{index}]" if isinstance(value, list) else name
            sent.images.append((field_name, _encoded(field_name, one)))
    if given.get("mask") is not None:
        sent.masks.append(("mask", _encoded("mask", given["mask"])))
    return sent


def _add_text(fields: dict[str, Any], part: Part, name: str, *, is_listed: bool) -> None:
    if (nested := _LISTED.fullmatch(part.name)) is not None:
        _add_lora(fields, nested[1], part.text)
    elif is_listed:
        fields.setdefault(name, []).append(part.text)
    elif name in fields:
        raise invalid(name[:60], "is given twice", "send it once")
    elif part.text or name == "prompt":  # what a page's form leaves empty is left out
        fields[name] = _parsed(part.text) if name == "loras" else part.text


def _add_lora(fields: dict[str, Any], key: str, text: str) -> None:
    """As OpenAI's package writes a list of objects: their keys one after another."""
    loras = fields.setdefault("loras", [])
    if not loras or not isinstance(loras[-1], dict) or key in loras[-1]:
        loras.append({})
    loras[-1][key] = text


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("[") else [text]
    except (ValueError, RecursionError) as exc:
        raise CraftError("UNDECODABLE", "loras: is no JSON", "send a name, or a JSON list", field="loras") from exc


def _encoded(name: str, value: object) -> bytes:
    if isinstance(value, dict):
        if not isinstance(url := value.get("image_url"), str):
            raise invalid(name, "has no image_url", "send the picture itself, in base64 or as a data URL")
        value = url
    if not isinstance(value, str):
        raise invalid(name, "must be a picture in base64, or a data URL of it")
    return decoded(name, value)


def documented(kind: type[EditRequest]) -> dict[str, Any]:
    """The bodies of edits, or of variations, for the documentation."""
    mask = {"description": _MASK}
    form = schema_of(
        kind, image={**_FILE, "description": "PNG, JPEG or WebP; several as `image[]`."}, mask={**_FILE, **mask}
    )
    body = schema_of(kind, image=_ENCODED, mask={**_ENCODED, **mask})
    for schema in (form, body):
        schema["required"] = ["image", *schema.get("required", [])]
    return described({"multipart/form-data": form, "application/json": body})
