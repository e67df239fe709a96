"""What each tool takes, refused by name where it is wrong, and what that asks for as a request.

The names are those of `craft mcp`, of which every tool here has a twin.
"""

from __future__ import annotations

from typing import Annotated

from craft_protos import agents
from craft_protos.generate import MOST_REFERENCES, MOST_UPSCALE, GenerateRequest
from craft_protos.lora import MOST_LORAS, parse_named
from pydantic import Field

from craftd.http.fields import Body, Guidance, Name, Real, Seed, Side, Steps, Text, Whole

_PICTURE = "The id of a picture of yours, the sha256 that POST /inputs gave, or the picture itself in base64."

Picture = Annotated[str, Field(min_length=1)]  # as long as the body may be


class Nothing(Body):
    pass


class Drawn(Body):
    """What both ways of drawing take."""

    prompt: Text = Field(description=agents.PROMPT)
    negative_prompt: Text = Field("", description=agents.NEGATIVE)
    model: Text = Field("", description=agents.MODEL)
    steps: Steps | None = Field(None, description=agents.STEPS)
    guidance_scale: Guidance | None = Field(None, description=agents.GUIDANCE)
    seed: Seed | None = Field(None, description=agents.SEED)
    count: Annotated[Whole, Field(ge=1, le=agents.MOST_PICTURES)] = Field(1, description=agents.COUNT)
    sampler: Text = Field("", description=agents.SAMPLER)
    loras: Annotated[list[Name], Field(max_length=MOST_LORAS)] | None = Field(None, description=agents.LORAS)

    @property
    def generate(self) -> GenerateRequest:
        """Raises INVALID_FIELD."""
        return GenerateRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=self.seed,
            count=self.count,
            sampler=self.sampler,
            loras=tuple(map(parse_named, self.loras or ())),
        )


class Generate(Drawn):
    width: Side | None = Field(None, description=agents.SIDE)
    height: Side | None = Field(None, description=agents.SIDE)


class Edit(Drawn):
    image: Picture = Field(description=_PICTURE)
    strength: Annotated[Real, Field(ge=0, le=1)] | None = Field(None, description=agents.STRENGTH)
    mask: Picture | None = Field(None, description=agents.MASK)
    refs: Annotated[list[Picture], Field(max_length=MOST_REFERENCES)] | None = Field(
        None, description=agents.REFERENCES
    )


class Enlarge(Body):
    image: Picture = Field(description=_PICTURE)
    scale: Annotated[Real, Field(ge=1, le=MOST_UPSCALE)] | None = Field(None, description=agents.SCALE)
    upscaler: Text = Field("", description=agents.UPSCALER)


class OfModel(Body):
    model: Text = Field("", description=agents.FITTING)


class OfJob(Body):
    job: Name = Field(description=agents.JOB)


class Newest(Body):
    limit: Annotated[Whole, Field(ge=1, le=100)] = Field(20, description=agents.LIMIT)
