"""/metrics: for admins; counts that are right, and stay so."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import FromWorker
from craftd.http.lag import LoopLag
from craftd.http.metrics import StepTimes
from craftd.workers.connection import Connection, Death
from craftd.workers.handle import WorkerHandle
from prometheus_client.parser import text_string_to_metric_families

from tests.http.again import free_port, kill, running_again
from tests.http.shim import Keys, Shim, serving

_NAME = r"\b(?:craft|process)_\w+"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def _read(shim: Shim, key: str) -> Samples:
    answer = shim.call("GET", "/metrics", key)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _jobs(samples: Samples, state: str) -> float:
    return samples["craft_jobs", (("state", state),)]


def _make(shim: Shim, key: str, prompt: str, **fields: object) -> str:
    return str(shim.post("/jobs", key, **{"prompt": prompt, "steps": 5, **fields}).json()["id"])


def test_only_an_admins_key_opens_it(shim: Shim, keys: Keys) -> None:
    assert shim.call("GET", "/metrics").status_code == 401
    answer = shim.call("GET", "/metrics", keys.user)
    assert (answer.status_code, answer.json()["code"]) == (403, "NOT_ALLOWED")
    assert shim.call("GET", "/metrics", keys.admin).status_code == 200


def test_it_counts_what_happened() -> None:
    with serving() as shim:
        admin = shim.key("root", admin=True)
        before = _read(shim, admin)
        assert before["craft_images_total", ()] == before["craft_step_seconds_count", ()] == 0
        assert [_jobs(before, state) for state in ("queued", "running", "succeeded")] == [0, 0, 0]
        shim.finish(_make(shim, admin, "a [slow] apple", count=2))
        shim.finish(_make(shim, admin, "a [fail] apple"))
        _make(shim, admin, "a [held] apple")
        shim.await_running(1)
        shim.finish(_make(shim, admin, "a second apple"))
        now = _read(shim, admin)
        assert [_jobs(now, state) for state in ("succeeded", "failed", "cancelled")] == [2, 1, 0]
        assert (_jobs(now, "running"), _jobs(now, "queued"), now["craft_queue_depth", ()]) == (1, 0, 0)
        assert now["craft_images_total", ()] == 3
        assert now["craft_step_seconds_count", ()] == 2 * 4 + 4, "from each step to the next, of each image"
        assert now["craft_step_seconds_sum", ()] >= 8 * 0.05
        assert now["craft_step_seconds_bucket", (("le", "0.03"),)] <= 4
        assert 10e6 < now["craft_front_memory_bytes", ()] < 500e6
        assert now["craft_workers", (("device", "cpu"), ("state", "busy"), ("worker", "cpu"))] == 1
        assert now["craft_worker_restarts_total", ()] == 0
        assert now["process_open_fds", ()] > 5
        assert now["craft_loop_lag_seconds_count", ()] > before["craft_loop_lag_seconds_count", ()]


def test_a_worker_that_dies_is_counted_and_the_count_of_images_outlives_the_daemon() -> None:
    with serving(CRAFT_HTTP_LISTEN=f"127.0.0.1:{free_port()}") as shim:
        admin = shim.key("root", admin=True)
        job = shim.finish(_make(shim, admin, "a [crash once] apple"))
        shim.call("DELETE", f"/images/{job.images[0].id}", admin)
        after = _read(shim, admin)
        assert (after["craft_worker_restarts_total", ()], after["craft_images_total", ()]) == (1, 1)
        kill(shim)
        with running_again(shim):
            again = _read(shim, admin)
            assert (_jobs(again, "succeeded"), again["craft_images_total", ()]) == (1, 1)
            assert not [name for name, _ in again if name == "craft_workers"]


def test_no_name_or_prompt_is_a_label(shim: Shim, keys: Keys) -> None:
    shim.finish(_make(shim, keys.user, "a secret wish"))
    text = shim.call("GET", "/metrics", keys.admin).text
    labels = {label for _, labels in _read(shim, keys.admin) for label, _ in labels}
    assert labels <= {"state", "worker", "device", "kind", "version", "le"}
    assert "secret" not in text and "alice" not in text


async def test_how_late_the_loop_is_counts() -> None:
    lag, loop = LoopLag(), asyncio.get_running_loop()
    lag.start()
    held_until = loop.time() + 0.3
    while loop.time() < held_until:  # what nothing on a loop may do
        continue
    noted = asyncio.Event()
    loop.call_later(0, noted.set)
    await noted.wait()
    lag.stop()
    samples = {(s.name, s.labels.get("le")): s.value for family in lag.histogram.collect() for s in family.samples}
    assert samples["craft_loop_lag_seconds_count", None] == 1
    assert 0.2 <= samples["craft_loop_lag_seconds_sum", None] < 5
    assert samples["craft_loop_lag_seconds_bucket", "0.2"] == 0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _nobody() -> Connection:
    raise OSError("no worker in this test")


WORKER = WorkerHandle(_nobody, WorkerSettings())


@pytest.mark.parametrize("kind", ["done", "failed"])
def test_times_between_steps_of_the_same_image_and_nothing_kept_of_ended_jobs(kind: str) -> None:
    clock, seen = Clock(), list[float]()
    times = StepTimes(seen.append, clock)

    def step(job: str, index: int, number: int, at: float) -> None:
        clock.now = at
        times.on_frame(WORKER, FromWorker(step=FromWorker.Step(job_id=job, index=index, step=number, of=9)))

    step("a", 0, 1, 1.0)
    step("a", 1, 1, 1.5)
    step("b", 0, 1, 1.75)
    assert seen == []
    step("a", 0, 2, 2.0)
    step("a", 1, 2, 2.25)
    assert seen == [1.0, 0.75]
    step("a", 1, 5, 3.75)
    assert seen == [1.0, 0.75, 0.5, 0.5, 0.5], "three steps told at once"
    seen.clear()
    end = FromWorker.JobDone(job_id="a") if kind == "done" else FromWorker.JobFailed(job_id="a")
    times.on_frame(WORKER, FromWorker(**{kind: end}))  # type: ignore[arg-type]
    step("a", 0, 1, 9.0)
    assert seen == [], "drawn again, it begins anew"
    times.on_death(WORKER, Death("killed", is_planned=False))
    step("b", 0, 2, 20.0)
    assert seen == []


def test_the_dashboard_shows_what_there_is(shim: Shim, keys: Keys) -> None:
    """Each name in docs/grafana.json is a metric's, and no metric of craft's own is left out."""
    dashboard = (Path(__file__).parents[2] / "docs/grafana.json").read_text()
    panels = json.loads(dashboard)["panels"]
    asked = {name for panel in panels for one in panel["targets"] for name in re.findall(_NAME, one["expr"])}
    families = list(text_string_to_metric_families(shim.call("GET", "/metrics", keys.admin).text))
    told = {sample.name for family in families for sample in family.samples}
    unlisted = {"craft_bot_waiting", "craft_bot_api_errors_total", "craft_bot_restarts_total"}  # where there is a bot
    assert asked <= told | unlisted
    own = {
        family.name for family in families if family.name.startswith("craft_") and not family.name.endswith("_created")
    }
    unshown = {name for name in own if not any(one.startswith(name) for one in asked)}
    assert unshown == {"craft_build_info"}  # it says which daemons there are


def test_the_dashboards_places_do_not_overlap() -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docs/grafana.json").read_text())
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24
