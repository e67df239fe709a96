"""Upscalers: networks that make a larger picture of one, whatever drew it. They are parts, and used by name.

What Spandrel has found out of a file is kept in its kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_KIND = re.compile(r"upscaler-([1-9]\d?)x-([13])-([\w .+()-]{1,60})")


@dataclass(frozen=True)
class Upscaling:
    """What an upscaler is: Spandrel's name of its architecture, how many times it enlarges, its channels."""

    architecture: str
    scale: int
    channels: int = 3

    @classmethod
    def of(cls, kind: str) -> Upscaling | None:
        """None for parts of other kinds."""
        found = _KIND.fullmatch(kind)
        return None if found is None else cls(found[3], int(found[1]), int(found[2]))

    @property
    def kind(self) -> str:
        """Of the part."""
        return f"upscaler-{self.scale}x-{self.channels}-{self.architecture}"

    @property
    def shown(self) -> str:
        grey = ", by each colour alone" if self.channels == 1 else ""
        return f"an upscaler of {self.scale} times: {self.architecture}{grey}"
