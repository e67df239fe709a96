"""The types of requests' fields: what JSON lets through and a picture cannot be made of is refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import MISSING
from typing import Annotated, Any, Literal, Optional

from craft_protos.codec import hints_of, rule_of
from craft_protos.generate import SEED_LIMIT
from craft_protos.lora import DETAILS, LoraRef
from craft_protos.lora_strength import FLUX_BLOCKS, LATEST_STEP
from craft_protos.rules import Choice, Length, Range
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


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
Time = Annotated[Real, Field(ge=0, le=LATEST_STEP)]
Token = Annotated[Text | None, Field(description="The key, where no header carries it.")]


class LoraIn(Body):
    """A LoRA; without a weight, its own."""

    lora: Name = Field(description="Id, name or the beginning of a hash.")
    weight: Weight | None = None
    text_weight: Weight | None = Field(None, description="In the text encoders; as the weight, where it is none.")
    blocks: Annotated[tuple[Weight, ...], Field(max_length=FLUX_BLOCKS)] = Field(
        (), description="Of each block, times the weight: 12, 17, 20 or 26 numbers of a UNet, 61 of FLUX.1."
    )
    start: Time | None = Field(None, description="The share of the steps from which it counts; above 1: a step.")
    end: Time | None = Field(None, description="The share of the steps up to which it counts; above 1: a step.")

    @property
    def ref(self) -> LoraRef:
        told = {name: getattr(self, name) for name in DETAILS}
        return LoraRef(self.lora, self.weight, **told)


_TYPES: dict[Any, Any] = {str: Text, int: Whole, float: Real}
_TYPES[tuple[int, ...]] = tuple[Annotated[Whole, Field(ge=0)], ...]


def fields_of(kind: Any, *, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """A schema's dataclass for pydantic's create_model: its fields by name, each with its rule and default."""
    defaults = {field.name: ... if field.default is MISSING else field.default for field in dataclasses.fields(kind)}
    return {
        name: (_type_of(hint, rule_of(kind, name), is_optional=defaults[name] is None), defaults[name])
        for name, hint in hints_of(kind).items()
        if name not in leave_out
    }


def _type_of(hint: Any, rule: Any, *, is_optional: bool) -> Any:
    found = {str: Text, int: Whole, float: Real, tuple[int, ...]: tuple[Annotated[Whole, Field(ge=0)], ...]}.get(
        hint, hint
    )
    match rule:
        case Range(least, most):
            found = Annotated[found, Field(ge=least, le=most)]
        case Length(most):
            found = Annotated[found, Field(max_length=most)]
        case Choice(values):
            found = Literal[values]
    return Optional[found] if is_optional else found  # noqa: UP045 - `found` is no type that a checker knows
