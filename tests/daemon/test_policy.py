"""The decisions that need no process: whose turn, what is late, what hangs, what a slow watcher misses."""

from __future__ import annotations

import itertools
from dataclasses import replace

from craft_protos.generate import GenerateSpec
from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import Dispatch, FromWorker, ModelManifest, ToWorker
from craftd.jobs.events import Finished, Hub, Step
from craftd.jobs.job import Job, JobView, Priority
from craftd.scheduler.queue import FairQueue, Waiting
from craftd.workers.dispatches import ActiveDispatch, Dispatches
from craftd.workers.progress import Progress
from hypothesis import given, settings
from hypothesis import strategies as st

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def _order(*waiting: Waiting) -> list[str]:
    queue = FairQueue()
    for one in waiting:
        queue.push(one)
    foretold = sorted((one.job_id for one in waiting), key=queue.position)
    assert [queue.position(job_id) for job_id in foretold] == list(range(len(waiting)))
    served = []
    while (head := queue.head()) is not None:
        queue.serve(head)
        served.append(head.job_id)
    assert served == foretold
    return served


def test_one_owner_is_served_in_order() -> None:
    assert _order(*(Waiting(str(n), "a", INTERACTIVE, 1, n) for n in range(4))) == ["0", "1", "2", "3"]


def test_owners_take_turns_by_rows() -> None:
    many = [Waiting(f"a{n}", "a", INTERACTIVE, 2, n) for n in range(3)]
    few = [Waiting(f"b{n}", "b", INTERACTIVE, 1, 10 + n) for n in range(3)]
    assert _order(*many, *few) == ["a0", "b0", "b1", "a1", "b2", "a2"]


def test_interactive_goes_before_batch_and_suspects_before_all() -> None:
    batch, interactive = Waiting("batch", "a", BATCH, 1, 0), Waiting("now", "a", INTERACTIVE, 1, 1)
    suspect = Waiting("suspect", "a", BATCH, 1, 2, is_suspect=True)
    assert _order(batch, interactive, suspect) == ["suspect", "now", "batch"]


@st.composite
def _queues(draw: st.DrawFn) -> FairQueue:
    """A queue that was pushed to, served and cancelled from, in any order."""
    queue, orders = FairQueue(), itertools.count()
    for _ in range(draw(st.integers(1, 40))):
        match draw(st.sampled_from(["push", "push", "push", "serve", "cancel", "return"])):
            case "push":
                order = next(orders)
                queue.push(_draw_waiting(draw, order))
            case "serve" if (head := queue.head()) is not None:
                queue.serve(head)
                if draw(st.booleans()):  # its worker died: it returns to its place
                    queue.push(replace(head, is_suspect=draw(st.booleans())))
            case "cancel" if len(queue):
                queue.remove(str(draw(st.integers(0, 40))))
    return queue


def _draw_waiting(draw: st.DrawFn, order: int) -> Waiting:
    owner, priority = draw(st.sampled_from("abc")), draw(st.sampled_from([INTERACTIVE, BATCH]))
    return Waiting(str(order), owner, priority, draw(st.integers(1, 4)), order, draw(st.booleans()))


@settings(deadline=None)
@given(_queues())
def test_a_position_is_how_many_are_served_before(queue: FairQueue) -> None:
    waiting = [str(number) for number in range(41) if str(number) in queue]
    foretold = sorted(waiting, key=queue.position)
    assert [queue.position(job_id) for job_id in foretold] == list(range(len(waiting)))
    for job_id in foretold:
        head = queue.head()
        assert head is not None and head.job_id == job_id
        queue.serve(head)
    assert queue.position("nobody") == 0


def test_who_comes_back_does_not_catch_up() -> None:
    queue = FairQueue()
    for number in range(10):
        queue.push(Waiting(f"a{number}", "a", INTERACTIVE, 1, number))
    for _ in range(5):
        head = queue.head()
        assert head is not None
        queue.serve(head)
    for number in range(3):
        queue.push(Waiting(f"b{number}", "b", INTERACTIVE, 1, 20 + number))
    assert queue.position("b2") > 3


def test_frames_of_an_earlier_dispatch_find_nothing() -> None:
    dispatches = Dispatches()
    dispatches.add(ActiveDispatch("job", 1, False, {0, 1}))
    assert [one.epoch for one in dispatches.remove_all()] == [1]
    dispatches.add(ActiveDispatch("job", 2, True, {1}))
    assert dispatches.find("job", 1) is None and dispatches.remove("job", 1) is None
    assert not dispatches.have_room(32, is_suspect=False)  # it holds a suspect, which goes alone


def test_a_suspect_training_is_alone_for_its_time() -> None:
    """Others wait no longer than that, however far its step of death is from its checkpoint."""
    dispatches = Dispatches()
    assert dispatches.alone_until is None
    dispatches.add(ActiveDispatch("train", 1, True, is_training=True, alone_until=60.0))
    assert dispatches.alone_until == 60.0  # the scheduler wakes up then
    dispatches.let_join(59.0)
    assert not dispatches.have_room(32, is_suspect=False)
    dispatches.let_join(60.0)
    assert dispatches.have_room(32, is_suspect=False) and dispatches.alone_until is None
    assert dispatches.are_training and not dispatches.have_room(32, is_suspect=True)


def test_a_suspect_that_draws_is_alone_to_its_end() -> None:
    dispatches = Dispatches()
    dispatches.add(ActiveDispatch("draw", 1, True, {0}))
    dispatches.let_join(1e9)
    assert dispatches.alone_until is None and not dispatches.have_room(32, is_suspect=False)


def test_only_progress_counts() -> None:
    progress = Progress(WorkerSettings(stall_timeout_s=10, load_timeout_s=100), 0.0)
    assert progress.deadline == 100  # it is starting
    progress.saw(FromWorker(hello=FromWorker.Hello()), 1.0)
    assert progress.deadline is None
    progress.gave(ToWorker(dispatch=Dispatch(job_id="j", epoch=1, model=ModelManifest(name="m"))), 50.0)
    assert progress.deadline == 150 and progress.is_loading
    progress.saw(FromWorker(loaded=FromWorker.Loaded(model="m")), 60.0)
    assert progress.deadline == 70
    progress.saw(FromWorker(stats=FromWorker.Stats(progress=0)), 65.0)  # a pulse
    assert progress.deadline == 70
    progress.saw(FromWorker(stats=FromWorker.Stats(progress=1)), 66.0)
    assert progress.deadline == 76
    progress.saw(FromWorker(done=FromWorker.JobDone(job_id="j", epoch=1)), 70.0)
    assert progress.deadline is None


async def test_a_slow_watcher_gets_the_newest_step_and_the_end() -> None:
    hub = Hub()
    watcher = hub.subscribe("job")
    for step in range(1, 1001):
        hub.publish("job", Step(0, step, 1000, b""))
    spec = GenerateSpec("p", "", "m", 64, 64, 1, 1.0, 0, 1, "Euler", "png", False, ())
    hub.publish("job", Finished(JobView(Job("job", "o", "r", "h", spec, 0.0))))
    assert await watcher.next() == Step(0, 1000, 1000, b"")
    assert isinstance(await watcher.next(), Finished)
    hub.unsubscribe(watcher)
    assert not hub.is_watched("job")
