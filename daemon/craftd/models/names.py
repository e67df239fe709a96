"""Models' names: what one may be, and what one is made from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from craft_protos.reasons import CraftError, invalid

from craftd.models import catalogue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check(field: str, name: str) -> str:
    """The name, if it is one. Raises INVALID_FIELD."""
    if not _NAME.fullmatch(name):
        raise invalid(field, f"{name[:100]!r} is no name", "take 1 to 100 letters, digits and any of _-.")
    return name


def derived(text: str) -> str:
    """From a file's, a folder's or a repository's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:100].strip("-._") or "model"


def unknown(name: str, names: Sequence[str]) -> CraftError:
    """UNKNOWN_MODEL with the closest names."""
    near = difflib.get_close_matches(name[:100], names, n=3, cutoff=0.4)
    if (entry := catalogue.find(name)) is not None:
        hint = f"it is not here yet: craft models pull {entry.name} --plan says what it takes"
    elif near:
        hint = f"did you mean {' or '.join(repr(one) for one in near)}?"
    else:
        hint = f"known: {', '.join(names[:20])}" if names else "no model is installed; see `craft models list`"
    return CraftError("UNKNOWN_MODEL", f"model: no model is called {name[:100]!r}", hint, field="model")


def taken(name: str, by: str) -> CraftError:
    return CraftError(
        "NAME_TAKEN",
        f"name: {name!r} is {by}",
        "give another with --name, or remove that one: craft models rm",
        field="name",
    )
