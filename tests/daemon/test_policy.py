"""The decisions that need no process: whose turn, what is late, what hangs, what a slow watcher misses."""

from __future__ import annotations

from craft_protos.config import WorkerSettings
from craft_protos.worker_pb2 import FromWorker, ModelManifest, ToWorker
from craftd.jobs.events import Finished, Hub, Step
from craftd.jobs.flights import Flight, Flights
from craftd.jobs.job import GenerateSpec, Job, JobView, Priority
from craftd.jobs.queue import FairQueue, Waiting
from craftd.supervisor.progress import Progress

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def _order(*waiting: Waiting) -> list[str]:
    queue = FairQueue()
    for one in waiting:
        queue.push(one)
    foretold = sorted(queue.positions(), key=queue.positions().__getitem__)
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
    assert queue.positions()["b2"] > 3


def test_frames_of_an_earlier_dispatch_find_nothing() -> None:
    flights = Flights()
    flights.add(Flight("job", 1, False, {0, 1}))
    assert [flight.epoch for flight in flights.crash()] == [1]
    flights.add(Flight("job", 2, True, {1}))
    assert flights.find("job", 1) is None and flights.remove("job", 1) is None
    assert not flights.have_room(32, is_suspect=False)  # it holds a suspect, which goes alone


def test_a_suspect_training_is_alone_for_its_time() -> None:
    """Others wait no longer than that, however far its step of death is from its checkpoint."""
    flights = Flights()
    assert flights.alone_until is None
    flights.add(Flight("train", 1, True, is_training=True, alone_until=60.0))
    assert flights.alone_until == 60.0  # the dispatcher wakes up then
    flights.let_join(59.0)
    assert not flights.have_room(32, is_suspect=False)
    flights.let_join(60.0)
    assert flights.have_room(32, is_suspect=False) and flights.alone_until is None
    assert flights.training is not None and not flights.have_room(32, is_suspect=True)


def test_a_suspect_that_draws_is_alone_to_its_end() -> None:
    flights = Flights()
    flights.add(Flight("draw", 1, True, {0}))
    flights.let_join(1e9)
    assert flights.alone_until is None and not flights.have_room(32, is_suspect=False)


def test_only_progress_counts() -> None:
    progress = Progress(WorkerSettings(stall_timeout_s=10, load_timeout_s=100), 0.0)
    assert progress.deadline == 100  # it is starting
    progress.saw(FromWorker(hello=FromWorker.Hello()), 1.0)
    assert progress.deadline is None
    progress.gave(ToWorker(submit=ToWorker.Submit(job_id="j", epoch=1, model=ModelManifest(name="m"))), 50.0)
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
