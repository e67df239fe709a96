"""LoRAs' names: what one may be, and which LoRA somebody means by one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
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


def new_id(sha256: str, taken: Iterable[str]) -> str:
    """The shortest beginning of the hash, of eight digits or more, that nothing is called by."""
    taken = set(taken)
    return next(sha256[:length] for length in range(_ID_LENGTH, len(sha256) + 1) if sha256[:length] not in taken)


def find(text: str, loras: Iterable[Lora]) -> Lora:
    """By id or name, else by the beginning of a hash or the file's name. Raises UNKNOWN_LORA, AMBIGUOUS_ID."""
    loras = list(loras)
    found = [lora for lora in loras if text in (lora.id, lora.name)] or [
        lora for lora in loras if _is_meant(lora, text)
    ]
    if not found:
        raise _unknown(text, [lora.name for lora in loras])
    if len(found) > 1:
        names = ", ".join(sorted(lora.name for lora in found)[:5])
        raise CraftError(
            "AMBIGUOUS_ID",
            f"loras: {text[:100]!r} may be any of {names}",
            "give its name, or more of it",
            field="loras",
        )
    return found[0]


def _is_meant(lora: Lora, text: str) -> bool:
    if text in (lora.file_name, PurePath(lora.file_name).stem):
        return True
    digits = text.lower()
    if not _HASH.fullmatch(digits):
        return False
    return lora.sha256.startswith(digits) or (len(digits) >= _SHORTEST_SS_HASH and lora.ss_hash.startswith(digits))


def _unknown(text: str, names: list[str]) -> CraftError:
    near = difflib.get_close_matches(text[:100], names, n=3, cutoff=0.4)
    if near:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?"
    else:
        hint = "see `craft lora list`" if names else "add one: craft lora add FILE.safetensors"
    return CraftError("UNKNOWN_LORA", f"loras: no LoRA is called {text[:100]!r}", hint, field="loras")
