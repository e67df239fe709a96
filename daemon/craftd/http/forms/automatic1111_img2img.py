"""AUTOMATIC1111's request to draw from a picture, and what it asks craft for."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from craft_protos.generate import MOST_MASK_PIXELS, GenerateRequest, Mask, Start
from craft_protos.reasons import invalid
from pydantic import Field

from craftd.http.fields import Real, Whole
from craftd.http.forms.automatic1111 import Txt2ImgRequest, generate_request, names_of

_FITS = ("stretch", "crop", "fill")  # by resize_mode
_ORIGINAL = 1  # what is under the mask as it is: of inpainting_fill
_MOST_CHARS = 64 << 20
_BLUR = 4.0

Encoded = Annotated[str, Field(max_length=_MOST_CHARS)]
Pixels = Annotated[Whole, Field(ge=0, le=MOST_MASK_PIXELS)]


class Img2ImgRequest(Txt2ImgRequest):
    init_images: list[Encoded] | None = Field(None, description="One picture, in base64 or as a data URL.")
    denoising_strength: Annotated[Real, Field(ge=0, le=1)] | None = 0.75
    resize_mode: Annotated[Whole, Field(ge=0, le=3)] = Field(
        0, description="0 stretches the picture to the size, 1 cuts off what is over, 2 fills what is missing."
    )
    mask: Encoded | None = Field(
        None, description="What is white in it is drawn anew; where anything of it is transparent, what is opaque."
    )
    mask_blur: Pixels | None = Field(None, description="For `mask_blur_x` and `mask_blur_y`.")
    mask_blur_x: Pixels = int(_BLUR)
    mask_blur_y: Pixels = int(_BLUR)
    inpainting_mask_invert: bool = False
    inpainting_fill: Annotated[Whole, Field(ge=0, le=3)] = Field(
        _ORIGINAL, description="What is under the mask before it is drawn; all are drawn as 1, as it is."
    )
    inpaint_full_res: bool = Field(True, description="Only what is around the mask is drawn, at the size asked for.")
    inpaint_full_res_padding: Pixels = 0
    initial_noise_multiplier: float | None = Field(None, description="Only 1, the neutral one.")
    latent_mask: Encoded | None = None
    include_init_images: bool = False

    @property
    def not_done(self) -> list[str]:
        """Fields that are drawn as others, and said to be."""
        return ["inpainting_fill"] if self.mask and self.inpainting_fill != _ORIGINAL else []

    @property
    def init_image(self) -> str:
        """Raises INVALID_FIELD unless there is one."""
        images = self.init_images or []
        if len(images) != 1:
            message = f"are {len(images)}, and a call draws from one" if images else "is missing"
            raise invalid("init_images", message, "send one picture in base64; several as calls of their own")
        return images[0]

    def forget(self) -> None:
        """The pictures, unless the answer is to have them: they are many bytes, and a job may take long."""
        if not self.include_init_images:
            self.init_images = self.mask = None


def img2img_request(
    body: Img2ImgRequest, inputs: tuple[str, str | None], checkpoint: str, request_id: str = ""
) -> GenerateRequest:
    """`inputs`: hashes of the picture and of its mask. Raises INVALID_FIELD for what is known and not done."""
    check(body)
    start = Start(inputs[0], body.denoising_strength, _FITS[body.resize_mode])
    asked = replace(generate_request(body, checkpoint, request_id), start=start)
    if inputs[1] is None:
        return asked
    mask = Mask(
        inputs[1],
        blur=float(body.mask_blur_x if body.mask_blur is None else body.mask_blur),
        invert=body.inpainting_mask_invert,
        padding=body.inpaint_full_res_padding if body.inpaint_full_res else None,
    )
    return replace(asked, mask=mask)


def check(body: Img2ImgRequest) -> None:
    """Raises INVALID_FIELD for what is known and not done."""
    if body.resize_mode >= len(_FITS):
        raise invalid("resize_mode", "3, to scale the latents, is not in craft", "take 0, 1 or 2")
    if body.initial_noise_multiplier not in (None, 1):
        raise invalid("initial_noise_multiplier", "is not in craft", "leave it out, or take 1")
    if body.latent_mask:
        raise invalid("latent_mask", "is not in craft", "send it as mask")
    if body.mask and body.mask_blur is None and body.mask_blur_x != body.mask_blur_y:
        raise invalid("mask_blur_y", "is another than mask_blur_x, and craft softens a mask alike", "take one")


def img2img_names(body: Img2ImgRequest) -> dict[str, Any]:
    """The service's names of fields -> the request's."""
    return {
        **names_of(body),
        "start": "init_images",
        "start.strength": "denoising_strength",
        "mask": "mask",
        "mask.blur": "mask_blur",
        "mask.padding": "inpaint_full_res_padding",
    }
