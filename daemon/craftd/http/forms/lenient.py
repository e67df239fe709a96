"""Bodies whose unknown fields are ignored, with a warning: clients of AUTOMATIC1111's always send dozens."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from craftd.http.fields import Anything, Text


class Lenient(BaseModel):
    """One such body."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        """Clients write null for what they leave out."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    __pydantic_extra__: dict[Text, Anything]  # pyright: ignore[reportIncompatibleVariableOverride] - pydantic wants it so

    @property
    def ignored(self) -> list[str]:
        return sorted(self.model_extra or ())
