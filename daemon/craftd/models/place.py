"""A model by name, of which nothing has been opened yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """`files`: of a pulled folder, those that are the model's; () for a pulled checkpoint; None where it was linked."""

    name: str
    path: Path  # a diffusers folder, or a checkpoint of one file
    source: str
    files: tuple[str, ...] | None = None
    built_in: bool = False
    is_registered: bool = False  # by `add` or `pull`; others lie in the models folder

    @property
    def own_files(self) -> tuple[Path, ...]:
        """Those that came with a pull; () where it was linked."""
        if self.files == ():
            return (self.path,)
        return tuple(self.path / name for name in self.files or ())
