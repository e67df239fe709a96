"""How well each LoRA fits each model that is here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from craft_protos.reasons import CraftError

from craftd.jobs.fits import table
from craftd.jobs.fits.layouts import Layouts
from craftd.jobs.fits.table import Pair
from craftd.loras.files import look
from craftd.loras.lora import Lora
from craftd.models.model import Model
from craftd.store.database import Database
from craftd.workers.fitting import AskFits, AskLayouts, Fit

_log = logging.getLogger("craft.loras")


@dataclass(frozen=True)
class LoraFit:
    """One LoRA and one model. Where no fit is known, their architectures are all that can be compared."""

    lora: Lora
    model: Model
    fit: Fit | None

    @property
    def is_whole(self) -> bool:
        """Whether all of it fits, as far as is known."""
        if self.fit is not None:
            return self.fit.is_whole
        return bool(self.lora.base) and self.lora.base == self.model.architecture.id

    def obstacle(self, *, skips_missing: bool) -> CraftError | None:
        """LORA_MISMATCH where it is known to be one."""
        if self.fit is not None and (self.fit.is_whole or (skips_missing and self.fit.matched)):
            return None
        if self.fit is not None:
            mismatch = self.fit.mismatch(self.lora.name, self.model.name)
            return _error(mismatch.message, f"it {self._bases}; {self._next}") if self._is_foreign else mismatch
        if not self._is_foreign or skips_missing:
            return None
        return _error(f"LoRA {self.lora.name} {self._bases}", self._next)

    @property
    def _is_foreign(self) -> bool:
        return not self.model.architecture.may_take(self.lora.base)

    @property
    def _bases(self) -> str:
        return f"is for {self.lora.base}, and the model {self.model.name} is {self.model.architecture.id}"

    @property
    def _next(self) -> str:
        return f"`craft lora list --model {self.model.name}` shows those that fit; -m chooses another model"


def _error(message: str, hint: str) -> CraftError:
    return CraftError("LORA_MISMATCH", message, hint, field="loras")


class Fits:
    """Kept in the database, and in memory while the daemon runs."""

    def __init__(self, database: Database, ask_layouts: AskLayouts, ask_fits: AskFits) -> None:
        self._database = database
        self._ask = ask_fits
        self._layouts = Layouts(database, ask_layouts)
        self._fits: dict[Pair, Fit] = {}
        self._asking = asyncio.Lock()
        self._tried: set[Pair] = set()  # in the background, once each
        self._wanted: dict[str, tuple[Model, list[Lora]]] = {}
        self._has_wanted = asyncio.Event()

    async def open(self) -> None:
        """Read what is kept. Once, before anything else."""
        self._fits = await self._database.run(table.fits)

    async def known(self, loras: Sequence[Lora], model: Model) -> list[LoraFit]:
        """As far as is known already: at once."""
        if not loras:
            return []
        key = await self._layouts.key(model)
        return [LoraFit(lora, model, self._fits.get((lora.sha256, key))) for lora in loras]

    async def fitting(self, loras: Sequence[Lora], model: Model) -> list[Lora]:
        """Those of which all fits, as far as is known already; the rest is found out in the background."""
        found = await self.known(loras, model)
        self._want(model, [one.lora for one in found if one.fit is None])
        return [one.lora for one in found if one.is_whole]

    async def run(self) -> None:
        """Find out what was asked for and not known, one model after another."""
        while True:
            await self._has_wanted.wait()
            self._has_wanted.clear()
            while self._wanted:
                model, loras = self._wanted.pop(next(iter(self._wanted)))
                await self.learn(loras, [model])

    def _want(self, model: Model, loras: Sequence[Lora]) -> None:
        new = [lora for lora in loras if (lora.sha256, model.name) not in self._tried]
        if new:
            self._tried |= {(lora.sha256, model.name) for lora in new}
            self._wanted[model.name] = model, new
            self._has_wanted.set()

    async def learn(self, loras: Sequence[Lora], models: Sequence[Model]) -> list[list[LoraFit]]:
        """For each model how all the LoRAs fit it; what is not known is found out first, which may take seconds."""
        keys = [await self._layouts.key(model) for model in models]
        wanting = {
            key: model
            for key, model in zip(keys, models, strict=True)
            if key and any((lora.sha256, key) not in self._fits for lora in loras)
        }
        if wanting:
            async with self._asking:
                await self._learn(loras, wanting)
        return [await self.known(loras, model) for model in models]

    async def _learn(self, loras: Sequence[Lora], models: dict[str, Model]) -> None:
        known = await self._layouts.learn(models)
        layouts = {key: one.layout for key, one in known.items() if one.layout}
        wanting = [lora for lora in loras if any((lora.sha256, key) not in self._fits for key in layouts)]
        new = [lora for lora in wanting if await asyncio.to_thread(_is_as_it_was, lora)]
        if not layouts or not new:
            return
        try:
            answers = await self._ask([lora.place.path for lora in new], list(layouts.values()))
        except CraftError as exc:
            _log.error("how LoRAs fit could not be found out", extra={"why": exc.message})
            return
        made: dict[Pair, Fit] = {}
        for lora, answer in zip(new, answers, strict=True):
            if not isinstance(answer, CraftError):  # its file is gone, say: whoever draws with it will hear
                made |= {(lora.sha256, key): fit for key, fit in zip(layouts, answer, strict=True)}
        await self._database.run(lambda connection: table.put_fits(connection, made))
        self._fits |= made


def _is_as_it_was(lora: Lora) -> bool:
    """What fits is kept by the hash, so nothing is read of a file that may hold something else now."""
    try:
        return look(lora.place.path) == lora.place.look
    except CraftError:
        return False
