"""Callers who keep a daemon busy while storms go over it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

from tests.storms.callers import Caller, GaveUp, drawing
from tests.storms.scene import Scene


@dataclass
class Load:
    """So many callers with one job after another: drawn, cancelled, or with an image deleted, by chance."""

    scene: Scene
    callers: int = 8
    pauses: bool = True  # a job now and then is a [slow] one
    done: Counter[str] = field(default_factory=Counter)
    faces: tuple[Caller, ...] = ()  # by turns; none: the scene's own
    _is_over: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        faces = self.faces or (self.scene.caller,)
        for number in range(self.callers):
            chance = random.Random(self.scene.chance.random())
            self._tasks.append(asyncio.create_task(self._go_on(faces[number % len(faces)], chance), name="a caller"))

    async def stop(self) -> None:
        """Once everybody's last job has ended."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def _go_on(self, caller: Caller, chance: random.Random) -> None:
        while not self._is_over:
            with contextlib.suppress(GaveUp):  # the journal has it
                await self._once(caller, chance)

    async def _once(self, caller: Caller, chance: random.Random) -> None:
        what = chance.choices(("draw", "cancel", "delete"), (10, 2, 1))[0]
        prompt = "a [slow] apple" if self.pauses and chance.random() < 0.3 else "an apple"
        count = 3 if what == "delete" else chance.randint(1, 3)
        asked = drawing(prompt, seed=chance.randrange(1 << 24), count=count, steps=chance.randint(1, 4))
        job_id = await caller.create(asked)
        if what == "cancel":
            await caller.cancel(job_id)
        elif what == "delete":
            await self._delete_first(caller, job_id)
        end = await caller.finish(job_id)
        self.done[end.state] += 1

    async def _delete_first(self, caller: Caller, job_id: str) -> None:
        """The first image of a job, while the others may still be drawn."""
        while not (images := (await caller.look(job_id)).images) and job_id not in caller.journal.ends:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if images:
            await caller.delete(images[0].id)
