"""LoRAs' names: what one may be, and which LoRA somebody means by one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from craft_protos.reasons import CraftError, invalid

from craftd.loras.lora import Lora

_NAME = re.compile(r"\w(?:[\w .+()-]{0,98}[\w.+()-])?")  # what <lora:name:0.8> can hold
_ID_LENGTH = 8
_HASH = re.compile(r"[0-9a-f]{4,64}")
_SHORTEST_SS_HASH = 10
_UNTELLING = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model", "lora"}


def check(name: str) -> str:
    """The name, if it is one. Raises INVALID_FIELD."""
    if not _NAME.fullmatch(name):
        raise invalid("name", f"{name[:100]!r} is no name", "take 1 to 100 letters, digits, spaces and any of _-.+()")
    return name


def derived(file_name: str, repository: str = "") -> str:
    """From the file's name; from the repository's, where the file's says nothing."""
    stem = PurePath(file_name).stem
    if repository and stem.lower() in _UNTELLING:
        stem = repository.rpartition("/")[2]
    return re.sub(r"[^\w.+()-]+", "-", stem)[:100].strip("-.+()") or "lora"


def require_free(name: str, loras: Iterable[Lora]) -> None:
    """Raises NAME_TAKEN where one of them is called so."""
    for lora in loras:
        if _is_called(lora, name):
            raise CraftError(
                "NAME_TAKEN",
                f"name: {name!r} is the LoRA {lora.id}, {lora.file_name}",
                "give another name, or remove that one: craft lora rm",
                field="name",
            )


def new_id(sha256: str, taken: Iterable[str]) -> str:
    """The shortest beginning of the hash, of eight digits or more, that nothing is called by."""
    taken = set(taken)
    return next(sha256[:length] for length in range(_ID_LENGTH, len(sha256) + 1) if sha256[:length] not in taken)


def find(text: str, circles: Iterable[Sequence[Lora]]) -> Lora:
    """By id or name, else by the beginning of a hash or the file's name: of the first circle that has such a one.

    Raises UNKNOWN_LORA, AMBIGUOUS_ID.
    """
    circles = tuple(circles)
    for is_it in (_is_called, _is_meant):
        for circle in circles:
            if found := [lora for lora in circle if is_it(lora, text)]:
                return _only(text, found)
    raise unknown(text, [lora.name for circle in circles for lora in circle])


def _only(text: str, found: list[Lora]) -> Lora:
    if len(found) == 1:
        return found[0]
    is_told = len({lora.name for lora in found}) == len(found)
    told = sorted(lora.name if is_told else f"{lora.name} ({lora.owner}'s, {lora.id})" for lora in found)
    message = f"loras: {text[:100]!r} may be any of {', '.join(told[:5])}"
    hint = "give its name, or more of it" if is_told else "give its id"
    raise CraftError("AMBIGUOUS_ID", message, hint, field="loras")


def _is_called(lora: Lora, text: str) -> bool:
    return text in (lora.id, lora.name)


def _is_meant(lora: Lora, text: str) -> bool:
    if text in (lora.file_name, PurePath(lora.file_name).stem):
        return True
    digits = text.lower()
    if not _HASH.fullmatch(digits):
        return False
    return lora.sha256.startswith(digits) or (len(digits) >= _SHORTEST_SS_HASH and lora.ss_hash.startswith(digits))


def unknown(text: str, names: Sequence[str] = ()) -> CraftError:
    """UNKNOWN_LORA, with the names that are near."""
    near = difflib.get_close_matches(text[:100], names, n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?"
    else:
        hint = "see `craft lora list`" if names else "add one: craft lora add FILE.safetensors"
    return CraftError("UNKNOWN_LORA", f"loras: no LoRA is called {text[:100]!r}", hint, field="loras")
