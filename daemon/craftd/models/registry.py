"""Which models there are, where, and what else they are called."""

from __future__ import annotations

import asyncio
from pathlib import Path

from craft_protos.reasons import CraftError, invalid

from craftd.models import folder, names, table
from craftd.models.place import Place
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
        self._built_in = Place(BUILT_IN, built_in_dir, "built in", built_in=True)
        self._database = database
        self._registered: dict[str, Place] = {}
        self._aliases: dict[str, str] = {}
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Read what is stored. Once, before anything else."""
        self._registered = {place.name: place for place in await self._database.run(table.every)}
        self._aliases = await self._database.run(table.aliases)

    async def places(self) -> list[Place]:
        """By name, the built-in first."""
        found = await asyncio.to_thread(self._found)
        built_in = [place for place in found if place.built_in]
        taken = {place.name for place in built_in} | set(self._registered)
        others = [*self._registered.values(), *(place for place in found if place.name not in taken)]
        return built_in + sorted(others, key=lambda place: place.name)

    async def find(self, name: str) -> Place:
        """By name or alias. Raises UNKNOWN_MODEL with the closest names."""
        if (registered := self._registered.get(name)) is not None:  # every job asks: the folder is not read for these
            return registered
        if name == BUILT_IN and folder.is_model(self._built_in_dir):
            return self._built_in
        places = {place.name: place for place in await self.places()}
        found = places.get(name) or places.get(self._aliases.get(name, ""))
        if found is None:
            raise names.unknown(name, [*places, *self._aliases])
        return found

    def aliases_of(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(alias for alias, model in self._aliases.items() if model == name))

    async def check_free(self, name: str) -> None:
        """Raises NAME_TAKEN."""
        if name in self._aliases:
            raise names.taken(name, f"another name of the model {self._aliases[name]}")
        for place in await self.places():
            if place.name == name:
                raise names.taken(name, f"the model from {place.source}")

    async def add(self, place: Place) -> None:
        """Raises NAME_TAKEN."""
        async with self._changing:
            await self.check_free(place.name)
            await self._database.run(lambda connection: table.insert(connection, place))
            self._registered[place.name] = place

    async def remove(self, place: Place) -> None:
        """Forget it, and its aliases."""
        async with self._changing:
            await self._database.run(lambda connection: table.delete(connection, place.name))
            self._registered.pop(place.name, None)
            self._aliases = {alias: model for alias, model in self._aliases.items() if model != place.name}

    async def set_alias(self, alias: str, name: str) -> Place:
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

    def check_removable(self, place: Place) -> None:
        """Raises INVALID_FIELD."""
        if place.built_in:
            raise invalid(
                "name", f"{place.name} came with craft and stays", f"unload it: craft models unload {place.name}"
            )
        if not place.is_registered:
            raise invalid("name", f"{place.name} lies in the models folder", f"remove it yourself: rm -r {place.path}")

    def _found(self) -> list[Place]:
        """On the disk."""
        found = []
        if folder.is_model(self._built_in_dir):
            found.append(self._built_in)
        if self._models_dir.is_dir():
            models = (path for path in self._models_dir.iterdir() if folder.is_model(path) and path.name != BUILT_IN)
            found += [Place(path.name, path, str(path)) for path in sorted(models)]
        return found


def in_use(name: str) -> CraftError:
    return CraftError(
        "IN_USE", f"model {name}: jobs that are not finished need it", "wait for them, or cancel them: craft jobs list"
    )
