"""The types of requests' fields: what JSON lets through and a picture cannot be made of is refused by name."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from craftd.jobs.job import SEED_LIMIT, LoraWish


class Body(BaseModel):
    """A request's body: finite numbers, no unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _unicode(value: object) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            raise ValueError(f"has a lone surrogate at {exc.start}, which is no Unicode text") from None
    return value


def _writable(value: object) -> object:
    """Whatever JSON holds, if it can be answered as JSON again."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text:
                _unicode(text)
            case float() as number if not math.isfinite(number):
                raise ValueError("must be a finite number")
            case list() as parts:
                rest += parts
            case dict() as named:
                rest += [*named.keys(), *named.values()]
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")  # noqa: TRY004 - pydantic collects ValueErrors
    return value


def _named(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    return value


Text = Annotated[str, BeforeValidator(_unicode), Field(max_length=100_000)]
Name = Annotated[str, BeforeValidator(_unicode), Field(min_length=1, max_length=255), AfterValidator(_named)]
Anything = Annotated[Any, BeforeValidator(_writable)]
Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]

Steps = Annotated[Whole, Field(ge=1, le=100_000)]
Guidance = Annotated[Real, Field(ge=0, le=1000)]
Side = Annotated[Whole, Field(ge=1, le=65_536)]
Seed = Annotated[Whole, Field(ge=0, lt=SEED_LIMIT)]
Weight = Annotated[Real, Field(ge=-10, le=10)]
Token = Annotated[Text | None, Field(description="The key, where no header carries it.")]


class LoraIn(Body):
    """A LoRA; without a weight, its own."""

    lora: Name = Field(description="Id, name or the beginning of a hash.")
    weight: Weight | None = None

    @property
    def wish(self) -> LoraWish:
        return LoraWish(self.lora, self.weight)
