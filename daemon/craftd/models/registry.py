"""Which models there are, and their manifests. Blocking; callers run it off the event loop."""

from __future__ import annotations

import difflib
from pathlib import Path

from craft_protos.reasons import CraftError

from craftd.models import folder
from craftd.models.model import Model

BUILT_IN = "pocket"
_HINTS = {
    "UNSAFE_FORMAT": "convert it with diffusers: from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
    "CORRUPT_FILE": "download it again",
}


class Registry:
    def __init__(self, models_dir: Path, built_in_dir: Path) -> None:
        """`built_in_dir` holds the built-in model, if it is there."""
        self._models_dir = models_dir
        self._built_in_dir = built_in_dir

    def models(self) -> list[Model]:
        """By name, the built-in first."""
        return [self._read(name) for name in self._names()]

    def find(self, name: str) -> Model:
        """A model by name, refused or not. Raises UNKNOWN_MODEL with the closest names."""
        names = self._names()
        if name not in names:
            raise _unknown(name, names)
        return self._read(name)

    def usable(self, name: str) -> Model:
        """A model that can be drawn with. Raises UNKNOWN_MODEL, UNSAFE_FORMAT, CORRUPT_FILE, ..."""
        model = self.find(name)
        if model.refused:
            raise CraftError(model.refused, model.refused_why, _HINTS.get(model.refused, ""), field="model")
        return model

    def _names(self) -> list[str]:
        built_in = [BUILT_IN] if folder.is_model(self._built_in_dir) else []
        if not self._models_dir.is_dir():
            return built_in
        found = sorted(path.name for path in self._models_dir.iterdir() if folder.is_model(path))
        return built_in + [name for name in found if name not in built_in]

    def _read(self, name: str) -> Model:
        is_built_in = name == BUILT_IN and folder.is_model(self._built_in_dir)
        path = self._built_in_dir if is_built_in else self._models_dir / name
        return folder.read(path, name=name, built_in=is_built_in)


def _unknown(name: str, names: list[str]) -> CraftError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(repr(one) for one in near)}?"
    else:
        hint = f"known: {', '.join(names[:20])}" if names else "no model is installed; see `craft models list`"
    return CraftError("UNKNOWN_MODEL", f"model: no model is called {name[:100]!r}", hint, field="model")
