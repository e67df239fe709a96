"""Options that do not go together: refused with the reason, for one of them would be ignored."""

from __future__ import annotations

from collections.abc import Mapping

from craft_protos.reasons import CraftError


def refuse(given: Mapping[str, object], *clashes: tuple[str, str, str]) -> None:
    """Raises USAGE for the first clash (one, other, what to do) of which both are given: neither None, False nor ""."""
    for one, other, hint in clashes:
        if given[one] and given[other]:
            raise CraftError("USAGE", f"{one} does not go with {other}", hint)
