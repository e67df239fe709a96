"""Completions that need to ask: the names of models, LoRAs and keys, from a daemon that runs already."""

from __future__ import annotations

from craft_protos.formats import FORMATS
from craft_protos.reasons import CraftError

_TIMEOUT_S = 1.0


def models(incomplete: str) -> list[str]:
    from craft_cli.connection.session import Session

    try:
        names = [model.name for model in Session(autostart=False).client.list_models(_TIMEOUT_S)]
    except CraftError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def loras(incomplete: str) -> list[str]:
    from craft_cli.connection.session import Session

    try:
        names = [lora.name for lora in Session(autostart=False).client.list_loras(timeout_s=_TIMEOUT_S)]
    except CraftError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def keys(incomplete: str) -> list[str]:
    from craft_cli.connection.session import Session

    try:
        owners = [key.owner for key in Session(autostart=False).client.list_keys(_TIMEOUT_S)]
    except CraftError:
        return []
    return [owner for owner in owners if owner.startswith(incomplete)]


def samplers(incomplete: str) -> list[str]:
    from craft_protos.samplers import SAMPLERS

    names = [name.replace(" ", "-") for name in SAMPLERS]  # one word; any case and punctuation is understood
    return [incomplete + name[len(incomplete) :] for name in names if name.lower().startswith(incomplete.lower())]


def formats(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


def settings(incomplete: str) -> list[str]:
    from craft_cli.commands.config import names

    return [name for name in names() if name.startswith(incomplete)]
