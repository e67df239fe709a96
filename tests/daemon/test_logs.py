"""The log as a file and as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from craft_protos.daemon_pb2 import WatchLogsRequest
from craftd import logs

from tests.daemon.harness import Daemon, running
from tests.home import HANG_S, Home

OLD = json.dumps({"event": "old", "filling": "x" * 150}) + "\n"


async def _records(daemon: Daemon, request: WatchLogsRequest) -> AsyncIterator[dict[str, object]]:
    async for line in daemon.daemon.WatchLogs(request):
        yield json.loads(line.json)


async def test_who_follows_misses_nothing_when_the_file_is_rotated(home: Home) -> None:
    """A log that is nearly full is taken over from an earlier run."""
    home.paths.log_file.parent.mkdir(parents=True)
    home.paths.log_file.write_text(OLD * ((logs.LARGEST_FILE_BYTES - 1000) // len(OLD)))
    async with running(home) as daemon:
        following = _records(daemon, WatchLogsRequest(tail=1000, follow=True))
        async with asyncio.timeout(HANG_S):
            while (await anext(following))["event"] != "ready":
                continue
            jobs = [(await daemon.finish((await daemon.create()).id)).id for _ in range(8)]
            ended: list[object] = []
            while len(ended) < len(jobs):
                record = await anext(following)
                ended += [record["job"]] if record["event"] == "job ended" else []
        await following.aclose()  # type: ignore[attr-defined]
        assert ended == jobs
        rotated = home.paths.log_file.with_name(f"{home.paths.log_file.name}.1")
        assert '"old"' in rotated.read_text() and '"old"' not in home.paths.log_file.read_text()
        past = [record async for record in _records(daemon, WatchLogsRequest(tail=1000))]
        assert [record["job"] for record in past if record["event"] == "job ended"] == jobs
        assert past[0]["event"] == "old"  # the tail goes back into the file before
