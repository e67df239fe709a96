"""A database with millions of finished jobs: how long a start and the lists take.

    python -m benchmarks.finished_jobs [--jobs N] [--rounds N]

A real craftd makes the database and draws one job; its rows are then copied, by plain SQL, for as many
jobs and images as there should be, and the daemon is started with that.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
from craft_cli.connection.client import Client
from craft_protos import jobs_pb2
from craft_protos.config import find_paths

from benchmarks import daemon, figures
from benchmarks.daemon import Daemon
from benchmarks.figures import Figure

FINISHED, AT_ONCE = 2_000_000, 100_000
START_S, LIST_S = 2.0, 0.05
_SETTINGS: dict[str, str | int] = {"WORKER_MODULE": "craftd.fakeworker"}
_EARLIER = " - 86400 + n * 0.01"  # a day ago, and a hundred a second
_STATES = ("SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED", "FAILED", "CANCELLED")  # by turns


def fill(database: Path, jobs: int) -> None:
    """Copies of the one job that is there, and of its image: with ids, requests and times of their own."""
    connection = apsw.Connection(str(database))
    connection.pragma("synchronous", "off")
    for first in range(0, jobs, AT_ONCE):
        with connection:
            _copy(connection, first, min(AT_ONCE, jobs - first))
    connection.execute("ANALYZE")
    connection.close()


def _copy(connection: apsw.Connection, first: int, count: int) -> None:
    states = " ".join(f"WHEN {place} THEN '{state}'" for place, state in enumerate(_STATES))
    numbers = f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers LIMIT {count})"
    job_id, image_id = "printf('made%012d', n)", "printf('made%022d', n)"
    _insert(
        connection,
        numbers,
        "jobs",
        {
            "id": job_id,
            "request_id": "printf('copy-%d', n)",
            "state": f"CASE n % {len(_STATES)} {states} END",
            "create_time": f"create_time{_EARLIER}",
            "finish_time": f"finish_time{_EARLIER}",
        },
    )
    _insert(
        connection,
        numbers,
        "images",
        {"id": image_id, "job_id": job_id, "file": f"{image_id} || '.png'", "create_time": f"create_time{_EARLIER}"},
    )


def _insert(connection: apsw.Connection, numbers: str, table: str, differs: dict[str, str]) -> None:
    """Rows as the first one of the table, but for what differs."""
    columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
    values = ", ".join(differs.get(name, f'"{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    source = f"(SELECT * FROM {table} ORDER BY seq LIMIT 1), numbers"
    connection.execute(f"{numbers} INSERT INTO {table} ({names}) SELECT {values} FROM {source}")


def main() -> int:
    asked = _parse()
    with tempfile.TemporaryDirectory(prefix="craft-b-") as name:
        folder = Path(name)
        with daemon.running_in(folder, **_SETTINGS) as craftd, _client(craftd) as client:
            daemon.finish(client, daemon.request("a red apple", seed=1, width=64, height=64, steps=1))
        database = find_paths(daemon.environment(folder, _SETTINGS)).database
        began = time.perf_counter()
        fill(database, asked.jobs)
        size_mb, took_s = database.stat().st_size / 2**20, time.perf_counter() - began
        print(f"{asked.jobs:,} jobs: {size_mb:.0f} MB, made in {took_s:.0f} s", flush=True)
        starts = [_start(folder) for _ in range(asked.rounds)]
        with daemon.running_in(folder, **_SETTINGS) as craftd, _client(craftd) as client:
            lists = {what: _times(call, asked.rounds * 3) for what, call in _lists(client, asked.jobs).items()}
    against = f"a budget, with {asked.jobs:,} finished jobs"
    found = [figures.of_rounds("craftd, start to ready", against, starts, unit="s", at_most=START_S)]
    found += [_list(f"a list: {what}", against, seconds) for what, seconds in lists.items()]
    return figures.tell(found)


def _list(claim: str, against: str, seconds: list[float]) -> Figure:
    return figures.of_rounds(claim, against, seconds, unit="s", at_most=LIST_S)


def _lists(client: Client, jobs: int) -> dict[str, Callable[[], object]]:
    """These lists are what people look at: newest jobs, jobs of a state, the queue, newest pictures."""
    failed, queued = jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_QUEUED
    return {
        "50 newest jobs": lambda: list(client.list_jobs([], 50)),
        "50 failed jobs": lambda: list(client.list_jobs([failed], 50)),
        "jobs that wait (none)": lambda: list(client.list_jobs([queued], 50)),
        "50 newest pictures": lambda: list(client.list_images("", 50)),
        "one job": lambda: client.get_job(f"made{jobs // 2:012}"),
    }


def _times(call: Callable[[], object], rounds: int) -> list[float]:
    call()
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _start(folder: Path) -> float:
    """Seconds until the daemon says that it is ready."""
    began = time.perf_counter()
    with daemon.running_in(folder, **_SETTINGS):
        return time.perf_counter() - began


@contextmanager
def _client(craftd: Daemon) -> Iterator[Client]:
    client = craftd.client()
    try:
        yield client
    finally:
        client.close()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=FINISHED)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
