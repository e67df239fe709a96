"""How long a job will take is told from what others took."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from craft_protos.generate import GenerateSpec, Hires, Start
from craftd.jobs import pace, store
from craftd.jobs.job import Job, State
from craftd.store import schema

SPEC = GenerateSpec("x", "", "flat", 512, 512, 20, 7.5, 1, 1, "Euler")


@pytest.fixture
def connection(tmp_path: Path) -> apsw.Connection:
    made = apsw.Connection(str(tmp_path / "craft.db"))
    schema.migrate(made)
    return made


def drawn(connection: apsw.Connection, spec: GenerateSpec, draw_s: float, load_s: float = 0.0) -> None:
    name = f"j{connection.total_changes()}"
    job = Job(id=name, owner="local", request_id=name, body_sha256="", spec=spec, create_time=1.0)
    store.insert(connection, replace(job, state=State.SUCCEEDED, denoise_s=draw_s, load_s=load_s))


@pytest.mark.parametrize(
    ("spec", "factor"),
    [
        (SPEC, 1),
        (replace(SPEC, steps=40), 2),
        (replace(SPEC, width=1024), 2),
        (replace(SPEC, count=4), 4),
        (replace(SPEC, count=4, indices=(2,)), 1),
        (replace(SPEC, guidance_scale=1.0), 0.5),
        (replace(SPEC, start=Start("0" * 64, 0.5)), 0.5),
        (replace(SPEC, hires=Hires(2, 0.5, 20, "lanczos", 1024, 1024)), 3),
    ],
)
def test_time_grows_with_the_work(connection: apsw.Connection, spec: GenerateSpec, factor: float) -> None:
    for draw_s in (4.0, 5.0, 60.0):  # one of them had to wait for others
        drawn(connection, SPEC, draw_s)
    told = pace.expected(connection, spec)
    assert told is not None and told.draw_s == pytest.approx(5.0 * factor) and told.jobs == 3


def test_pictures_of_a_size_tell_of_that_size(connection: apsw.Connection) -> None:
    for _ in range(20):
        drawn(connection, SPEC, 5.0)
        drawn(connection, replace(SPEC, width=1024, height=1024), 40.0)
    told = [pace.expected(connection, replace(SPEC, width=side, height=side)) for side in (512, 1024)]
    assert [one and one.draw_s for one in told] == [pytest.approx(5.0), pytest.approx(40.0)]


def test_other_models_and_failures_tell_nothing(connection: apsw.Connection) -> None:
    assert pace.expected(connection, SPEC) is None
    drawn(connection, replace(SPEC, model="other"), 5.0)
    drawn(connection, replace(SPEC, start=Start("0" * 64, 0.0)), 5.0)  # nothing was drawn
    assert pace.expected(connection, SPEC) is None


def test_loading_is_told_apart(connection: apsw.Connection) -> None:
    drawn(connection, SPEC, 5.0, load_s=8.0)
    drawn(connection, SPEC, 5.0)
    told = pace.expected(connection, SPEC)
    assert told is not None and (told.draw_s, told.load_s) == (pytest.approx(5.0), 8.0)
