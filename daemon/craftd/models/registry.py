"""Which models there are, where, and what else they are called."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from craft_protos.generate import LANCZOS
from craft_protos.reasons import CraftError, invalid

from craftd.models import folder, names, part_table, table
from craftd.models.model import ModelSource
from craftd.models.part import Given, Part
from craftd.store.database import Database

BUILT_IN = "pocket"


class Registry:
    """The built-in model, those that were added or pulled, and whatever lies in the models folder.

    Rows are written before memory changes.
    """

    def __init__(self, models_dir: Path, built_in_dir: Path, database: Database) -> None:
        """`built_in_dir` holds the built-in model, if it is there."""
        self._models_dir = models_dir
        self._built_in_dir = built_in_dir
        self._built_in = ModelSource(BUILT_IN, built_in_dir, "built in", built_in=True)
        self._database = database
        self._registered: dict[str, ModelSource] = {}
        self._aliases: dict[str, str] = {}
        self._predictions: dict[str, str] = {}
        self._parts: dict[str, Part] = {}
        self._used: dict[str, dict[str, str]] = {}  # model -> component -> part
        self._precisions: dict[str, str] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read what is stored. Once, before anything else."""
        self._predictions = await self._database.run(table.predictions)
        self._parts = {part.name: part for part in await self._database.run(part_table.every)}
        self._parts |= {part.name: part for part in await asyncio.to_thread(self._parts_of_craft)}
        self._used = await self._database.run(part_table.used)
        self._precisions = await self._database.run(table.precisions)
        every = await self._database.run(table.every)
        self._registered = {place.name: self._as_said(place) for place in every}
        self._aliases = await self._database.run(table.aliases)

    async def places(self) -> list[ModelSource]:
        """By name, the built-in first."""
        found = await asyncio.to_thread(self._found)
        built_in = [place for place in found if place.built_in]
        taken = {place.name for place in built_in} | set(self._registered)
        others = [*self._registered.values(), *(place for place in found if place.name not in taken)]
        return built_in + sorted(others, key=lambda place: place.name)

    async def find(self, name: str) -> ModelSource:
        """By name or alias. Raises UNKNOWN_MODEL with the closest names."""
        if (registered := self._registered.get(name)) is not None:  # every job asks: the folder is not read for these
            return registered
        if name == BUILT_IN and folder.is_model(self._built_in_dir):
            return self._as_said(self._built_in)
        places = {place.name: place for place in await self.places()}
        found = places.get(name) or places.get(self._aliases.get(name, ""))
        if found is None and name in self._parts:
            raise _is_part(self._parts[name])
        if found is None:
            raise names.unknown(name, [*places, *self._aliases])
        return found

    def aliases_of(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(alias for alias, model in self._aliases.items() if model == name))

    async def check_free(self, name: str) -> None:
        """Raises NAME_TAKEN."""
        if name == LANCZOS:
            raise names.taken(name, "what enlarges without an upscaler")
        if name in self._aliases:
            raise names.taken(name, f"another name of the model {self._aliases[name]}")
        if name in self._parts:
            raise names.taken(name, f"the part from {self._parts[name].source}")
        for place in await self.places():
            if place.name == name:
                raise names.taken(name, f"the model from {place.source}")

    async def free_name(self, wanted: str) -> str:
        """That name, or it with a number behind it."""
        taken = {place.name for place in await self.places()} | set(self._parts) | set(self._aliases)
        if wanted not in taken:
            return wanted
        return next(name for number in itertools.count(2) if (name := f"{wanted[:90]}-{number}") not in taken)

    @property
    def parts(self) -> list[Part]:
        """By name."""
        return sorted(self._parts.values(), key=lambda part: part.name)

    def part(self, name: str) -> Part | None:
        return self._parts.get(name)

    def given(self, place: ModelSource) -> list[Given]:
        """The parts that a model uses. Raises UNSUPPORTED_MODEL where one is registered no more."""
        gone = [part for _, part in place.parts if part not in self._parts]
        if gone:
            raise CraftError("UNSUPPORTED_MODEL", f"its part {gone[0]} is registered no more", "add that again")
        return [Given(component, self._parts[part]) for component, part in place.parts]

    def users_of(self, part: str) -> tuple[str, ...]:
        """Names of the models that use it, and are still there."""
        using = (model for model, used in self._used.items() if part in used.values())
        return tuple(sorted(one for one in using if one in self._registered or (self._models_dir / one).exists()))

    async def add_part(self, part: Part) -> None:
        """Raises NAME_TAKEN. One that is here already stays as it is."""
        async with self._changing:
            if self._parts.get(part.name) == part:
                return
            await self.check_free(part.name)
            await self._database.run(lambda connection: part_table.insert(connection, part))
            self._parts[part.name] = part

    async def remove_part(self, name: str) -> Part:
        """Raises IN_USE, naming the models that use it."""
        async with self._changing:
            if self._parts[name].built_in:
                raise invalid("name", f"{name} came with craft and stays", "it leaves the memory once it is idle")
            users = self.users_of(name)
            if users:
                raise CraftError(
                    "IN_USE",
                    f"{name}: {', '.join(users)} {'use' if len(users) > 1 else 'uses'} it",
                    f"remove {'those' if len(users) > 1 else 'that'} first: craft models rm {' '.join(users)}",
                )
            await self._database.run(lambda connection: part_table.delete(connection, name))
            return self._parts.pop(name)

    async def use_parts(self, place: ModelSource, used: Mapping[str, str]) -> ModelSource:
        """Those parts, by component, instead of what the model used before."""
        async with self._changing:
            await self._database.run(lambda connection: part_table.use(connection, place.name, used))
            self._use(place.name, used)
            if place.name in self._registered:
                self._registered[place.name] = self._as_said(self._registered[place.name])
        return self._as_said(place)

    def _use(self, model: str, used: Mapping[str, str]) -> None:
        self._used.pop(model, None)
        if used:
            self._used[model] = dict(used)

    async def add(self, place: ModelSource) -> None:
        """Raises NAME_TAKEN."""
        async with self._changing:
            await self.check_free(place.name)
            await self._database.run(lambda connection: table.insert(connection, place))
            self._predictions[place.name], self._precisions[place.name] = place.prediction, place.precision
            self._use(place.name, dict(place.parts))
            self._registered[place.name] = place

    async def set_sayings(self, place: ModelSource, prediction: str, precision: str) -> ModelSource:
        """What its user says that the model predicts and is kept in; "" takes it back."""
        async with self._changing:
            await self._database.run(
                lambda connection: table.set_sayings(connection, place.name, prediction, precision)
            )
            self._predictions[place.name], self._precisions[place.name] = prediction, precision
            if place.name in self._registered:
                self._registered[place.name] = self._as_said(self._registered[place.name])
        return self._as_said(place)

    async def remove(self, place: ModelSource) -> None:
        """Forget it, and its aliases."""
        async with self._changing:
            await self._database.run(lambda connection: table.delete(connection, place.name))
            self._registered.pop(place.name, None)
            self._predictions.pop(place.name, None)
            self._used.pop(place.name, None)
            self._precisions.pop(place.name, None)
            self._aliases = {alias: model for alias, model in self._aliases.items() if model != place.name}

    async def set_alias(self, alias: str, name: str) -> ModelSource:
        """An alias that exists is moved. Raises INVALID_FIELD, NAME_TAKEN, UNKNOWN_MODEL."""
        names.check("alias", alias)
        async with self._changing:
            place = await self.find(name)
            if any(alias == other.name for other in await self.places()):
                raise CraftError(
                    "NAME_TAKEN", f"alias: {alias!r} is a model's own name", "choose another", field="alias"
                )
            await self._database.run(lambda connection: table.set_alias(connection, alias, place.name))
            self._aliases[alias] = place.name
        return place

    async def delete_alias(self, alias: str) -> None:
        """Raises INVALID_FIELD where it is none."""
        async with self._changing:
            if alias not in self._aliases:
                raise invalid("alias", f"{alias[:100]!r} is no alias", f"known: {', '.join(self._aliases) or 'none'}")
            await self._database.run(lambda connection: table.delete_alias(connection, alias))
            del self._aliases[alias]

    def check_removable(self, place: ModelSource) -> None:
        """Raises INVALID_FIELD."""
        if place.built_in:
            raise invalid(
                "name", f"{place.name} came with craft and stays", f"unload it: craft models unload {place.name}"
            )
        if not place.is_registered:
            raise invalid("name", f"{place.name} lies in the models folder", f"remove it yourself: rm -r {place.path}")

    def _parts_of_craft(self) -> list[Part]:
        """Control models of the built-in model, in folders beside it, and the upscaler in its own."""
        beside, name = self._built_in_dir.parent, self._built_in_dir.name
        found = [Part.of_craft(one) for one in sorted(beside.glob(f"{name}_*"))]
        return [part for part in (*found, Part.upscaler_of_craft(self._built_in_dir)) if part is not None]

    def _found(self) -> list[ModelSource]:
        """On the disk."""
        found = []
        if folder.is_model(self._built_in_dir):
            found.append(self._as_said(self._built_in))
        if self._models_dir.is_dir():
            models = (path for path in self._models_dir.iterdir() if folder.is_model(path) and path.name != BUILT_IN)
            found += [self._as_said(ModelSource(path.name, path, str(path))) for path in sorted(models)]
        return found

    def _as_said(self, place: ModelSource) -> ModelSource:
        name, used = place.name, tuple(sorted(self._used.get(place.name, {}).items()))
        prediction, precision = self._predictions.get(name, ""), self._precisions.get(name, "")
        return replace(place, prediction=prediction, precision=precision, parts=used)


def _is_part(part: Part) -> CraftError:
    hint = "take a model"
    if part.is_control:
        hint = "take a model; --control KIND=PATH --control-model NAME draws with it"
    elif part.upscaling is not None:
        hint = "take a model; --upscale enlarges what it draws with it"
    return CraftError(
        "UNSUPPORTED_MODEL", f"{part.name} is {part.shown}: nothing is drawn with it alone", hint, field="model"
    )


def in_use(name: str) -> CraftError:
    return CraftError(
        "IN_USE", f"model {name}: jobs that are not finished need it", "wait for them, or cancel them: craft jobs list"
    )
