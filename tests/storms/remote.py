"""All faces and trainings under kills, failing writes and the rest of the table.

python -m tests.storms.remote [--rounds N] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.storms import program
from tests.storms.faces import Faces, faces
from tests.storms.faults import FAULTS
from tests.storms.load import Load
from tests.storms.program import Outcome, progress

_AT_ONCE = 4  # faults in one scene
_WORDS = ("", "[slow]", "[crash once]")


async def pass_over(all_faces: Faces, faults: list[str], *, callers: int = 6) -> Outcome:
    """Callers of every kind draw, cancel and delete, others train; after each fault they go on for a while."""
    one = all_faces.scene
    dataset = await all_faces.dataset()
    load = Load(one, callers, faces=tuple(all_faces.callers.values()))
    load.start()
    for fault in faults:
        await all_faces.train(dataset, one.chance, one.chance.choice(_WORDS))
        await one.journal.hear(one.chance.randrange(20, 120))
        await FAULTS[fault](one)
        one.shim.release()
    await load.stop()
    await one.settle()
    found = [*await one.check_running(), *await one.check_stopped()]
    counts = {"faults on all faces": len(faults), "trainings": len(faults), "jobs": sum(load.done.values())}
    return Outcome(counts, violations=list(dict.fromkeys(found)))


async def storm(asked: argparse.Namespace) -> Outcome:
    whole = Outcome()
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="craft-pems-") as folder:
            async with faces(asked.seed + number, Path(folder)) as all_faces:
                chosen = all_faces.scene.chance.sample(list(FAULTS), _AT_ONCE)
                part = await pass_over(all_faces, chosen)
        whole.add(part)
        progress(f"round {number + 1} of {asked.rounds} ({', '.join(chosen)}): {part.told}")
    return whole


if __name__ == "__main__":
    sys.exit(program.main("remote", __doc__, storm, rounds=30))
