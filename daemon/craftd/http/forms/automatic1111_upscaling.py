"""AUTOMATIC1111's requests to enlarge pictures, its "extras", and what they ask craft for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from craft_protos.generate import MOST_UPSCALE, GenerateRequest, Start, Upscale
from craft_protos.reasons import invalid
from pydantic import BaseModel, Field

from craftd.http.fields import Real, Side, Text, Token, Whole
from craftd.http.forms.automatic1111_hires import upscaler
from craftd.http.forms.automatic1111_img2img import Encoded
from craftd.http.forms.lenient import Lenient
from craftd.inputs.input import Input
from craftd.models.part import Part

_MOST_IMAGES = 100


class ExtrasRequest(Lenient):
    resize_mode: Annotated[Whole, Field(ge=0, le=1)] = Field(
        0, description="0: by upscaling_resize; 1: to upscaling_resize_w x upscaling_resize_h."
    )
    upscaling_resize: Annotated[Real, Field(ge=1, le=MOST_UPSCALE)] = 2
    upscaling_resize_w: Side = 512
    upscaling_resize_h: Side = 512
    upscaling_crop: bool = True
    upscaler_1: Text = Field("None", description="One of GET upscalers.")
    # Known, and not done: they pass at their neutral value.
    upscaler_2: Text = "None"
    extras_upscaler_2_visibility: Annotated[Real, Field(ge=0, le=1)] = 0
    gfpgan_visibility: Annotated[Real, Field(ge=0, le=1)] = 0
    codeformer_visibility: Annotated[Real, Field(ge=0, le=1)] = 0
    # Known, and of no consequence here.
    codeformer_weight: Real = 0
    upscale_first: bool = False
    show_extras_results: bool = True
    token: Token = None


class ExtraSingleRequest(ExtrasRequest):
    image: Encoded = Field(description="base64, or a data URL.")


class ExtraFile(BaseModel):
    data: Encoded
    name: Text = ""


class ExtraBatchRequest(ExtrasRequest):
    imageList: Annotated[list[ExtraFile], Field(min_length=1, max_length=_MOST_IMAGES)]


class ExtraSingleAnswer(BaseModel):
    html_info: str = ""
    image: str


class ExtraBatchAnswer(BaseModel):
    html_info: str = ""
    images: list[str]


class UpscalerEntry(BaseModel):
    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float


EXTRAS_NAMES = {"upscale.model": "upscaler_1", "upscale.scale": "upscaling_resize", "start": "image"}


def extras(body: ExtrasRequest, image: Input) -> GenerateRequest:
    """To enlarge a picture that was kept. Raises INVALID_FIELD for what is known and not done."""
    scale = body.upscaling_resize if not body.resize_mode else _scale_to(body, image)
    upscale = Upscale(upscaler("upscaler_1", body.upscaler_1), 1.0 if body.upscaler_1 == "None" else scale)
    return GenerateRequest(format="png", seed=0, start=Start(image.sha256, 0.0), upscale=upscale)


def check(body: ExtrasRequest) -> None:
    """Raises INVALID_FIELD for what is known and not done."""
    for name in ("gfpgan_visibility", "codeformer_visibility"):
        if getattr(body, name):
            raise invalid(name, "is not in craft: faces are not restored", "leave it out, or send 0")
    if body.extras_upscaler_2_visibility and body.upscaler_2.strip().lower() not in ("", "none"):
        raise invalid("upscaler_2", "is not in craft: a picture goes through one upscaler", "leave it out")


def _scale_to(body: ExtrasRequest, image: Input) -> float:
    """Raises INVALID_FIELD where the picture would be cut, or stretched."""
    width, height = body.upscaling_resize_w, body.upscaling_resize_h
    if abs(width * image.height - height * image.width) > max(image.width, image.height):
        message = f"{width}x{height} has another shape than the picture's {image.width}x{image.height}"
        raise invalid("upscaling_resize_w", f"{message}, and craft cuts nothing off", "take resize_mode 0")
    return width / image.width


def entries(parts: Sequence[Part]) -> list[UpscalerEntry]:
    """In AUTOMATIC1111's terms; `parts`: craft's upscalers."""
    own = [UpscalerEntry(name=name, scale=4) for name in ("None", "Lanczos")]
    told = [(one.name, one.upscaling) for one in parts]
    return own + [UpscalerEntry(name=name, model_name=name, scale=one.scale) for name, one in told if one is not None]
