"""Which of the models and LoRAs that are here another program means: by the hash, by Civitai's version, by the name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from craft_protos.frozen import dataclass
from craft_protos.recipes.recipe import LoraUse, Named
from craft_protos.recipes.told import named

_FEWEST_DIGITS = 8
_BY_HASH = "https://civitai.com/api/v1/model-versions/by-hash/"
_DOWNLOAD = "https://civitai.com/api/download/models/"


@dataclass(frozen=True)
class Here:
    """A model or a LoRA that is registered."""

    name: str
    hashes: tuple[str, ...] = ()  # of its file, and of its tensors alone
    others: tuple[str, ...] = ()  # what else it is called: aliases, its file's name
    source: str = ""  # where it came from: a path, "civitai:ID@VERSION:FILE"


def find(file: Named, here: Sequence[Here]) -> Here | None:
    """A hash that is told decides; where there is none, or it is of nothing here, Civitai's version does.

    A name does where no hash is told: a file of the same name and another hash is another.
    """
    if len(file.hash) >= _FEWEST_DIGITS:
        for one in here:
            if any(known.startswith(file.hash) for known in one.hashes):
                return one
    if file.version:
        for one in here:
            if re.search(rf"civitai:\d*@{file.version}\b", one.source):
                return one
    return None if file.hash else _called(file.name, here)


def namesake(file: Named, here: Sequence[Here]) -> str:
    """The name of one that is called so and has another hash, or ""."""
    found = _called(file.name, here)
    return found.name if found else ""


def _called(name: str, here: Sequence[Here]) -> Here | None:
    wanted = _key(name)
    return next((one for one in here if wanted and wanted in _keys(one)), None)


def _keys(one: Here) -> set[str]:
    files = [named(text).name for text in (one.source.rpartition(":")[2], *one.others)]
    return {_key(text) for text in (one.name, *one.others, *files)}


def _key(name: str) -> str:
    """Names in craft have no spaces and few signs: letters and digits count."""
    return re.sub(r"[\W_]+", "", name.lower())


def told(file: Named) -> str:
    """A file in words: its name and its hash."""
    digits = f" [{file.hash[:12]}]" if file.hash else ""
    return (file.name or (f"Civitai's version {file.version}" if file.version else "of no name")) + digits


def how_to_get(file: Named) -> str:
    """What to do about one that is not here."""
    command = "craft lora add" if isinstance(file, LoraUse) else "craft models pull"
    if file.version:
        return f"{command} {_DOWNLOAD}{file.version}"
    if file.hash:
        return f"{_BY_HASH}{file.hash} says where it is, if Civitai has it"
    return f"add it: {command.replace('pull', 'add')} FILE"
