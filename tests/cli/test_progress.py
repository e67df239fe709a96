"""The line that tells how far a job is."""

from __future__ import annotations

from craft_cli.render.render import JobProgress
from craft_protos import images_pb2, jobs_pb2


def test_who_waits_again_has_no_share_done() -> None:
    """As after the daemon's death in the middle of a picture."""
    progress = JobProgress()
    (line,) = progress._bars.tasks
    progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(step=3, of=12)))
    assert (line.completed, line.total) == (3, 12)
    progress.see(jobs_pb2.JobEvent(queued=jobs_pb2.JobEvent.Queued(why="starting the worker")))
    assert line.total is None


def test_the_clock_goes_on_after_what_was_done() -> None:
    """rich's own stands still at the first 100 %, which is where "preparing" ends."""
    now = iter([10.0, 13.0, 75.0])
    progress = JobProgress(lambda: next(now))
    (line,) = progress._bars.tasks
    clock = progress._bars.columns[-1]
    progress.see(jobs_pb2.JobEvent(preparing=jobs_pb2.JobEvent.Preparing(what="pictures", done=2, of=2)))
    assert str(clock.render(line)) == "0:03"
    progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(step=3, of=12)))
    assert str(clock.render(line)) == "1:05"


def test_only_some_of_the_pictures_are_all_that_is_drawn() -> None:
    progress = JobProgress()
    (line,) = progress._bars.tasks
    spec = jobs_pb2.GenerateSpec(count=9, indices=[4, 7])
    progress.see(jobs_pb2.JobEvent(snapshot=jobs_pb2.Job(generate=spec)))
    progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(index=4, step=12, of=12)))
    assert (line.completed, line.total) == (12, 24)


def test_what_was_drawn_before_the_connection_was_lost_counts() -> None:
    progress = JobProgress()
    (line,) = progress._bars.tasks
    job = jobs_pb2.Job(generate=jobs_pb2.GenerateSpec(count=2), images=[images_pb2.Image(index=0)])
    progress.see(jobs_pb2.JobEvent(snapshot=job))
    progress.see(jobs_pb2.JobEvent(step=jobs_pb2.JobEvent.Step(index=1, step=1, of=4)))
    assert (line.completed, line.total) == (5, 8)
