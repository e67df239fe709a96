"""The line that tells how far a job is."""

from __future__ import annotations

from craft_cli.render import JobProgress
from craft_protos import jobs_pb2


def test_who_waits_again_has_no_share_done() -> None:
    """As after the daemon's death in the middle of a picture."""
    progress = JobProgress()
    (line,) = progress._bars.tasks
    progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(step=3, of=12)))
    assert (line.completed, line.total) == (3, 12)
    progress.see(jobs_pb2.JobEvent(queued=jobs_pb2.JobEvent.Queued(why="starting the worker")))
    assert line.total is None
