"""The rows of layouts and fits. Functions of a connection, to be run by the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import apsw

from craftd.workers.fitting import Fit

Pair = tuple[str, str]  # a LoRA's sha256, a layout's key


@dataclass(frozen=True)
class KnownLayout:
    """`layout` is JSON; empty where the model's layers are not known, which `why` says."""

    layout: str
    why: str = ""


def layouts(connection: apsw.Connection, keys: Iterable[str]) -> dict[str, KnownLayout]:
    """Those of `keys` that are known."""
    found = {}
    for key in keys:
        row = connection.execute("SELECT layout, why FROM model_layouts WHERE key = ?", (key,)).fetchone()
        if row is not None:
            found[key] = KnownLayout(*map(str, row))
    return found


def put_layouts(connection: apsw.Connection, made: Mapping[str, KnownLayout]) -> None:
    rows = [(key, known.layout, known.why) for key, known in made.items()]
    connection.executemany("INSERT OR REPLACE INTO model_layouts VALUES (?, ?, ?)", rows)


def fits(connection: apsw.Connection) -> dict[Pair, Fit]:
    """All that is kept."""
    rows = connection.execute("SELECT sha256, layout, fit FROM lora_fits")
    return {(str(sha256), str(layout)): Fit.of(json.loads(fit)) for sha256, layout, fit in rows}


def put_fits(connection: apsw.Connection, made: Mapping[Pair, Fit]) -> None:
    rows = [(*pair, json.dumps(asdict(fit))) for pair, fit in made.items()]
    connection.executemany("INSERT OR REPLACE INTO lora_fits VALUES (?, ?, ?)", rows)
