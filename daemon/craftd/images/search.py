"""What is looked for among images."""

from __future__ import annotations

from dataclasses import dataclass

_HAS_LORA = (
    "provenance != '' AND EXISTS (SELECT 1 FROM json_each(provenance, '$.loras')"
    " WHERE instr(lower(json_extract(value, '$.name')), lower({})))"
)
_MOST_WORDS = 16


@dataclass(frozen=True)
class Search:
    """All of these; what is empty or None is not asked. Case counts only beyond ASCII."""

    prompt: str = ""  # words, each in the prompt
    model: str = ""  # a part of its name
    lora: str = ""  # a part of the name of one that it was drawn with
    since: float | None = None  # seconds since 1970
    until: float | None = None  # before
    favourites: bool = False

    def where(self) -> tuple[str, dict[str, object]]:
        """(SQL of the images table, its parameters)."""
        words = self.prompt.split()[:_MOST_WORDS]
        given: dict[str, object] = {f"word{place}": word for place, word in enumerate(words)}
        parts = [f"instr(lower(prompt), lower(:{name}))" for name in given]
        if self.model:
            parts.append("instr(lower(model), lower(:model))")
        if self.since is not None:
            parts.append("create_time >= :since")
        if self.until is not None:
            parts.append("create_time < :until")
        if self.favourites:
            parts.append("is_favourite")
        if self.lora:
            parts.append(_HAS_LORA.format(":lora"))
        given |= {"model": self.model, "lora": self.lora, "since": self.since, "until": self.until}
        return " AND ".join(parts) or "1", given


ALL = Search()
