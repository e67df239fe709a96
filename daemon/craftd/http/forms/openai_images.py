"""OpenAI's image requests and answers, and what a request asks craft for."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from craft_protos.generate import GenerateRequest
from craft_protos.lora import MOST_LORAS, LoraRef
from craft_protos.reasons import invalid
from pydantic import BaseModel, Field

from craftd.http.fields import Body, Guidance, LoraIn, Name, Seed, Steps, Text, Token, Whole
from craftd.jobs.validate import check_room_in_jpeg

# The service's names of fields -> the request's.
NAMES = {"steps": "num_inference_steps", "count": "n", "width": "size", "height": "size", "format": "output_format"}
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})")


class GenerationRequest(Body):
    EVENTS: ClassVar[str] = "image_generation"  # how a stream's events begin

    prompt: Text
    model: Name | None = Field(None, description="One of GET /v1/models; the daemon's own choice where it is left out.")
    n: Annotated[Whole, Field(ge=1, le=10)] | None = None
    size: Text | None = Field(None, description="`auto`, or WIDTHxHEIGHT.")
    quality: Literal["auto", "standard", "hd", "low", "medium", "high"] | None = Field(
        None, description="`low` halves the model's steps, `high` and `hd` take half as many again."
    )
    background: Literal["auto", "opaque", "transparent"] | None = Field(None, description="`transparent` is refused.")
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[Whole, Field(ge=0, le=100)] | None = Field(
        None, description="Quality of a jpeg or webp that is answered as b64_json."
    )
    response_format: Literal["url", "b64_json"] | None = Field(None, description="b64_json where it is left out.")
    stream: bool | None = None
    partial_images: Annotated[Whole, Field(ge=0, le=3)] | None = Field(None, description="Previews, with `stream`.")
    user: Text | None = None
    moderation: Literal["auto", "low"] | None = None
    style: Literal["vivid", "natural"] | None = Field(None, description="Only `vivid`, the neutral one.")
    negative_prompt: Text | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Guidance | None = None
    seed: Seed | None = None
    loras: Annotated[list[LoraIn | Name], Field(max_length=MOST_LORAS)] | None = Field(
        None, description="Names, or objects of `lora` and `weight`."
    )
    token: Token = None

    @property
    def generate(self) -> GenerateRequest:
        """But for the quality. Raises INVALID_FIELD for what craft does not do."""
        self._check()
        width, height = self._sides()
        return GenerateRequest(
            self.prompt,
            negative_prompt=self.negative_prompt or "",
            model=self.model or "",
            width=width,
            height=height,
            steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            count=self.n or 1,
            format="png" if self.compresses else self.output_format or "png",
            loras=tuple(LoraRef(one) if isinstance(one, str) else one.ref for one in self.loras or ()),
        )

    @property
    def compresses(self) -> bool:
        """Whether the picture that is stored is encoded again for the answer."""
        return self.output_format in ("jpeg", "webp") and self.output_compression is not None

    @property
    def is_public(self) -> bool:
        return self.response_format == "url"

    def _check(self) -> None:
        if self.background == "transparent":
            raise invalid("background", "transparent pictures are not made", "take auto or opaque")
        if self.style == "natural":
            raise invalid("style", "only vivid is known", "leave it out")
        if self.output_compression not in (None, 100) and not self.compresses:
            raise invalid("output_compression", "is for jpeg and webp", "set output_format")
        if self.compresses and self.is_public:
            raise invalid("output_compression", "is for b64_json: a url shows the picture as it is stored")
        if self.compresses and self.output_format == "jpeg":  # the picture that is stored is none
            check_room_in_jpeg(self.prompt, self.negative_prompt or "")
        if self.stream and self.is_public:
            raise invalid("response_format", "a stream carries b64_json")
        if self.partial_images and not self.stream:
            raise invalid("partial_images", "come in a stream alone", "set stream")

    def _sides(self) -> tuple[int | None, int | None]:
        if self.size in (None, "auto"):
            return None, None
        found = _SIZE.fullmatch(self.size)
        if found is None:
            raise invalid("size", "must be auto or WIDTHxHEIGHT", "such as 512x512")
        return int(found[1]), int(found[2])


class Datum(BaseModel):
    b64_json: str | None = None
    url: str | None = None


class GenerationAnswer(BaseModel):
    created: int
    data: list[Datum]
    background: str
    output_format: str
    quality: str
    size: str


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "craft"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]
