"""File names in a repository: a stranger's words, which become paths here."""

from __future__ import annotations

from craft_protos.reasons import CraftError

_LONGEST_NAME = 1024
_LONGEST_PART = 255  # bytes; file systems take no more


def check(repository: str, name: object) -> str:
    """The name, if it stays inside whatever folder it is put into. Raises UNSAFE_PATH."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise _unsafe(repository, name, "is no file's name")
    if not name.isprintable() or "\\" in name or ":" in name:
        raise _unsafe(repository, name, "has characters that do not belong into a file's name")
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in parts):
        raise _unsafe(repository, name, "leads out of the model's folder, or is no path")
    return name


def _unsafe(repository: str, name: object, why: str) -> CraftError:
    shown = ascii(name)
    shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
    return CraftError(
        "UNSAFE_PATH", f"{repository}: the file {shown} {why}", "nothing was downloaded; use another model"
    )
