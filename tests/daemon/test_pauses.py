"""Faults of the surroundings are told from a job's own, and waited out together."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.scheduler.pauses import DISK, Pauses, is_of_surroundings
from craftd.store.disk import unwritable


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def caused(reason: str, cause: BaseException | None) -> CraftError:
    error = CraftError(reason, "it failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("exc", "is_waited_out"),
    [
        (OSError(errno.EMFILE, "too many open files"), True),
        (caused("DISK_FULL", None), True),
        (caused("STORAGE_FAILED", None), True),
        (caused("CORRUPT_FILE", FileNotFoundError(2, "gone")), True),
        (caused("NO_INPUT", caused("NO_INPUT", PermissionError(13, "no"))), True),
        (caused("CORRUPT_FILE", None), False),
        (caused("CORRUPT_FILE", TimeoutError()), False),  # a limit of our own
        (caused("OUT_OF_MEMORY", None), False),
        (ValueError("a bug"), False),
    ],
)
def test_the_system_refused_or_the_job_is_at_fault(exc: Exception, is_waited_out: bool) -> None:
    assert is_of_surroundings(exc) is is_waited_out


def test_waits_grow_once_a_try_however_many_wait() -> None:
    clock = Clock()
    pauses = Pauses(clock)
    waits = []
    for _ in range(8):
        waits.append(pauses.begin(DISK, "full"))
        assert pauses.begin(DISK, "full") == pytest.approx(waits[-1])  # another who waits
        clock.now += waits[-1]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert not pauses.is_on(DISK) and pauses.why(DISK) == "full"  # the next try is due
    pauses.end(DISK)
    assert not pauses.why(DISK) and pauses.begin(DISK, "full") == pytest.approx(0.1)


async def test_what_fails_is_tried_until_it_goes() -> None:
    pauses, tries = Pauses(), []

    async def work() -> str:
        tries.append(pauses.is_on(DISK))
        if len(tries) < 3:
            raise unwritable(Path("x"), "it", OSError(errno.ENOSPC, "no room"))
        return "done"

    assert await pauses.outlast(DISK, work) == "done"
    assert tries == [False, True, True] and not pauses.warnings  # nothing else was begun between the tries


async def test_other_errors_are_raised_at_once() -> None:
    pauses = Pauses()

    async def work() -> None:
        raise CraftError("JOB_FINISHED", "too late")

    with pytest.raises(CraftError, match="too late"):
        await pauses.outlast(DISK, work)
    assert not pauses.is_on(DISK)


def test_what_a_look_found_held_back_has_a_deadline_by_the_same_reading() -> None:
    """Though it has passed meanwhile: else nobody would look again."""
    clock = Clock()
    pauses = Pauses(clock)
    pauses.begin("model a", "gone")
    looked_at = clock.now
    assert pauses.is_on("model a", looked_at)
    clock.now += 10
    assert pauses.deadline(looked_at) == pytest.approx(0.1)
    assert not pauses.is_on("model a", clock.now) and pauses.deadline(clock.now) is None
