"""Which models there are, and where. Blocking; callers run it off the event loop."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.models import folder

BUILT_IN = "pocket"


@dataclass(frozen=True)
class Place:
    """A model by name, of which nothing has been opened yet."""

    name: str
    folder: Path
    built_in: bool = False


class Registry:
    def __init__(self, models_dir: Path, built_in_dir: Path) -> None:
        """`built_in_dir` holds the built-in model, if it is there."""
        self._models_dir = models_dir
        self._built_in_dir = built_in_dir

    def places(self) -> list[Place]:
        """By name, the built-in first."""
        built_in = [Place(BUILT_IN, self._built_in_dir, built_in=True)] if folder.is_model(self._built_in_dir) else []
        if not self._models_dir.is_dir():
            return built_in
        found = sorted(path for path in self._models_dir.iterdir() if folder.is_model(path))
        taken = {place.name for place in built_in}
        return built_in + [Place(path.name, path) for path in found if path.name not in taken]

    def find(self, name: str) -> Place:
        """Raises UNKNOWN_MODEL with the closest names."""
        if name == BUILT_IN and folder.is_model(self._built_in_dir):
            return Place(BUILT_IN, self._built_in_dir, built_in=True)
        places = {place.name: place for place in self.places()}
        if name not in places:
            raise _unknown(name, list(places))
        return places[name]


def _unknown(name: str, names: list[str]) -> CraftError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(repr(one) for one in near)}?"
    else:
        hint = f"known: {', '.join(names[:20])}" if names else "no model is installed; see `craft models list`"
    return CraftError("UNKNOWN_MODEL", f"model: no model is called {name[:100]!r}", hint, field="model")
