"""An upgrade while everything runs: workers and commands of another version than the daemon's."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest
from craft_protos.jobs_pb2 import JOB_STATE_QUEUED
from craft_protos.version import __version__

from tests.home import Home
from tests.storms.checker import summary
from tests.storms.scene import Scene, scene

pytestmark = pytest.mark.slow

_OLDER = "0.0.1"
# A craft of another version, as far as versions go: Python runs this before anything of craft's is imported.
_PATCH = "import os, craft_protos.version as v\nv.__version__ = os.environ['STORM_VERSION']\n"


async def test_a_worker_of_another_version_draws_nothing(storm_seed: int) -> None:
    """The daemon goes on replacing it; once the right one is installed, what waited is drawn."""
    async with scene(storm_seed) as one:
        one.home.paths.files_dir.mkdir(parents=True, exist_ok=True)
        older = one.home.paths.files_dir / "older"
        older.touch()
        jobs = [await one.ask() for _ in range(6)]
        assert await one.warned(_OLDER, __version__)
        assert {(await one.caller.look(job)).state for job in jobs} == {JOB_STATE_QUEUED}
        older.unlink()
        await one.settle()
        violations = [*await one.check_running(), *await one.check_stopped()]
    assert not violations, summary(violations)


async def test_commands_of_two_versions_restart_the_daemon_once_at_most(storm_seed: int) -> None:
    """Each in turn draws: all of them are served, and only the newer one has the older daemon replaced."""
    async with scene(storm_seed) as one:
        _let_versions_differ(one.home)
        await one.keeper.end(signal.SIGTERM)
        pids = []
        for number in range(6):
            version = (_OLDER, "9.0.0")[number % 2]
            status, stderr = await _generate(one, version, number)
            assert status == 0, stderr
            pids.append(_pid(one.home))
        assert len(set(pids)) <= 2, pids
        await _craft(one.home, _OLDER, "daemon", "stop")


def _let_versions_differ(home: Home) -> None:
    folder = home.root / "patch"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_PATCH)


async def _generate(one: Scene, version: str, number: int) -> tuple[int, str]:
    return await _craft(one.home, version, "generate", "an apple", "-s", "2", "-o", f"{number}.png")


async def _craft(home: Home, version: str, *arguments: str) -> tuple[int, str]:
    """(exit status, stderr) of the command, and of what it starts, as craft of that version."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "craft_cli.main", *arguments),
        env={**home.env, "PYTHONPATH": str(home.root / "patch"), "STORM_VERSION": version},
        cwd=home.root,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()


def _pid(home: Home) -> int:
    return int(json.loads(Path(home.paths.lock_file).read_text())["pid"])
