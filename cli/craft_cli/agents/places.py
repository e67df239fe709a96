"""An agent's tools may read pictures below the client's roots, and write new files in one folder: checked here."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli.generate import output, writing


def root_of(uri: str) -> Path | None:
    """The folder of a root that a client names; None for one that is no folder of this machine."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    folder = Path(unquote(parts.path))
    return folder.resolve() if folder.is_absolute() else None


def readable(name: str, roots: Sequence[Path]) -> str:
    """The file that a tool may read, as it really lies. Raises NOT_ALLOWED where it is below none of the roots."""
    try:
        found = Path(name).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CraftError("NO_INPUT", f"{files.shown(name)} cannot be read", "give the path of a picture") from error
    if any(found.is_relative_to(root) for root in roots):
        return str(found)
    allowed = ", ".join(map(str, roots)) or "none: the client named no roots"
    raise CraftError(
        "NOT_ALLOWED",
        f"{files.shown(name)} is outside the folders that may be read ({allowed})",
        "name a picture below them, or the id of one that craft drew; `craft mcp --root DIR` adds a folder",
    )


def is_id(name: str) -> bool:
    """It is called as craft's own pictures are, and not as a file."""
    return name.isalnum() and not Path(name).exists()


def keep(folder: Path, prompt: str, seed: int, extension: str, data: bytes) -> Path:
    """Write a picture under a name that is nobody's yet. Raises OUTPUT_*."""
    path = folder / f"{output.slug(prompt) or 'picture'}-{seed}-{secrets.token_hex(4)}.{extension}"
    writing.write(path, data, force=False)
    return path
