"""What models have for LoRAs to change, known by their configurations: models of one kind are built once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata

from craft_protos.reasons import CraftError

from craftd.jobs.fits import table
from craftd.jobs.fits.table import KnownLayout
from craftd.models.model import Model
from craftd.store.database import Database
from craftd.workers.fitting import AskLayouts, Parts

_RULES = "2"  # raised with every change of craftd.worker.lora's reading, spellings or fit: what is kept counts no more
_LIBRARIES = ("diffusers", "transformers")  # their releases rename layers
_INDEX = "model_index.json"
_NETWORKS = ("transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3")
_LONGEST_BYTES = 1 << 20


class Layouts:
    """Asked of an inspecting process where they are new."""

    def __init__(self, database: Database, ask: AskLayouts) -> None:
        self._database = database
        self._ask = ask
        self._asking = asyncio.Lock()

    async def key(self, model: Model) -> str:
        """What its layout is known by; "" where its configurations cannot be read."""
        return _key(await asyncio.to_thread(_parts, model))

    async def known(self, keys: Sequence[str]) -> dict[str, KnownLayout]:
        return await self._database.run(lambda connection: table.layouts(connection, keys))

    async def learn(self, models: Mapping[str, Model]) -> dict[str, KnownLayout]:
        """Of models by their layouts' keys, those that had to be asked for among them."""
        async with self._asking:  # many who ask for one at once have it built once
            known = await self.known(list(models))
            wanting = {key: model for key, model in models.items() if key and key not in known}
            if wanting:
                known |= await self._learn(wanting)
            return known

    async def _learn(self, models: Mapping[str, Model]) -> dict[str, KnownLayout]:
        parts = [await asyncio.to_thread(_parts, model) for model in models.values()]
        try:
            answers = await self._ask(parts)
        except CraftError as exc:  # nothing was found out: worth another try, so not to be kept
            return {key: KnownLayout("", exc.message) for key in models}
        made = {key: _known(answer) for key, answer in zip(models, answers, strict=True)}
        await self._database.run(lambda connection: table.put_layouts(connection, made))
        return made


def _known(answer: str | CraftError) -> KnownLayout:
    return KnownLayout("", answer.message) if isinstance(answer, CraftError) else KnownLayout(answer)


def _parts(model: Model) -> Parts:
    """The configurations that its layers follow from; empty where they cannot be read."""
    wanted = {_INDEX, *(f"{name}/config.json" for name in _NETWORKS)}
    found: Parts = {}
    try:
        for file in model.files:
            if file.path in wanted:
                with file.source.open("rb") as stream:
                    found[file.path] = stream.read(_LONGEST_BYTES).decode("utf-8")
    except (OSError, ValueError):
        return {}
    return found if _INDEX in found else {}


def _key(parts: Parts) -> str:
    if not parts:
        return ""
    return hashlib.sha256(json.dumps([_RULES, _versions(), sorted(parts.items())]).encode()).hexdigest()


@cache
def _versions() -> list[str]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(metadata.version(name))
        except metadata.PackageNotFoundError:
            found.append("")
    return found
