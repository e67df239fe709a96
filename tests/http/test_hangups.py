"""Who hangs up gives up: the job ends within a step, unless its caller asked for another end."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest
import requests
from craft_protos import daemon_pb2, daemon_pb2_grpc, jobs_pb2, keys_pb2

from tests.home import HANG_S, until
from tests.http.shim import LORA, Keys, Shim, serving, told

_LONG = {"prompt": "[slow] a red apple"}
_CALLS: dict[str, dict[str, object]] = {
    "/generate": {"model": "flat", "steps": 1000},
    "/image/generate": {"model": "flat", "steps": 1000},
    "/v1/images/generations": {"num_inference_steps": 1000},
    "/sdapi/v1/txt2img": {"steps": 1000},
}
_STREAM = {"prompt": "[slow] x", "num_inference_steps": 160, "stream": True, "partial_images": 3}


def begin(shim: Shim, path: str, key: str, body: dict[str, object], **headers: str) -> http.client.HTTPConnection:
    """A call that is under way: its job's first step was made."""
    before = newest(shim)
    connection = ask(shim, path, key, body, **headers)
    (job_id,) = until(lambda: (now := newest(shim)) != before and now, "the call has made a job")
    await_step(shim, job_id)
    return connection


def newest(shim: Shim) -> list[str]:
    """The last job's id, where there is one."""
    return [job.id for job in shim.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1)).jobs]


def ask(shim: Shim, path: str, key: str, body: dict[str, object], **headers: str) -> http.client.HTTPConnection:
    """A call whose answer is not awaited."""
    connection = http.client.HTTPConnection(urlsplit(shim.url).netloc, timeout=HANG_S)
    usual = {"X-API-Key": key, "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), {**usual, **headers})
    return connection


def await_step(shim: Shim, job_id: str, count: int = 1) -> None:
    """Until so many more steps were made."""
    for event in shim.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
        count -= event.WhichOneof("event") == "step"
        if not count:
            return
    raise AssertionError("the job ended before")


@pytest.mark.parametrize("path", _CALLS)
def test_hanging_up_cancels(shim: Shim, keys: Keys, path: str) -> None:
    connection = begin(shim, path, keys.user, _LONG | _CALLS[path])
    job = shim.newest()
    watch = shim.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job.id))
    reached = 0
    for event in watch:
        if event.WhichOneof("event") == "step" and connection.sock is not None:
            reached = event.step.step
            connection.close()
        if event.WhichOneof("event") == "step":
            assert event.step.step <= reached + 100  # long before its end, also on a busy machine
        if event.WhichOneof("event") == "finished":
            assert event.finished.job.state == jobs_pb2.JOB_STATE_CANCELLED


def test_hanging_up_in_the_middle_of_a_stream_cancels(shim: Shim, keys: Keys) -> None:
    connection = begin(shim, "/v1/images/generations", keys.user, _STREAM)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.readline() == b"event: image_generation.partial_image\n"
    connection.close()
    answer.close()
    assert shim.finish(shim.newest().id).state == jobs_pb2.JOB_STATE_CANCELLED


def test_who_asked_for_it_keeps_the_job(shim: Shim, keys: Keys) -> None:
    body = {"model": "flat", "prompt": "[slow] kept", "steps": 400, "image_count": 1}
    headers = {"Craft-On-Disconnect": "continue", "Idempotency-Key": "a key, of any form"}
    connection = begin(shim, "/generate", keys.user, body, **headers)
    job_id = shim.newest().id
    connection.close()
    await_step(shim, job_id, 20)
    with shim.home.hurried():
        assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_SUCCEEDED
        again = shim.call("POST", "/generate", keys.user, json=body, headers=headers)
        assert again.status_code == 200 and shim.newest().id == job_id
        other = shim.call("POST", "/generate", keys.user, json=body | {"steps": 401}, headers=headers)
        assert told(other) == (409, "REQUEST_ID_CLASH", "Idempotency-Key")
        stranger = shim.call("POST", "/generate", keys.other, json=body, headers=headers)
        assert stranger.status_code == 200 and shim.newest().id != job_id


def two_wait(
    shim: Shim, keys: Keys, word: str, steps: int
) -> tuple[http.client.HTTPConnection, http.client.HTTPConnection, str]:
    """(one call, another, the job that both wait for)."""
    body = {"model": "flat", "prompt": f"[slow] {word}", "steps": steps}
    one = begin(shim, "/generate", keys.user, body, **{"Idempotency-Key": word})
    job_id, before = shim.newest().id, _requests(shim)
    two = ask(shim, "/generate", keys.user, body, **{"Idempotency-Key": word})
    until(lambda: _requests(shim) != before, "the second call has come in")
    await_step(shim, job_id, 30)  # the daemon tells of them after it has looked at the call
    return one, two, job_id


def _requests(shim: Shim) -> int:
    """Of alice's, counted when they come in."""
    return shim.keys.GetUsage(keys_pb2.GetUsageRequest(key="alice")).requests


def test_the_last_who_waits_counts(shim: Shim, keys: Keys) -> None:
    """Two wait for one job: it goes on when one of them hangs up."""
    one, two, job_id = two_wait(shim, keys, "shared", steps=1000)
    one.close()
    await_step(shim, job_id, 20)
    with shim.home.hurried():
        answer = two.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())) == 1
    two.close()
    assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_all_who_wait_leave(shim: Shim, keys: Keys) -> None:
    one, two, job_id = two_wait(shim, keys, "left", steps=1000)
    one.close()
    two.close()
    assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_CANCELLED


def test_a_call_that_broke_off_may_be_repeated(shim: Shim, keys: Keys) -> None:
    """Under its key: what was cancelled since nobody waited is drawn; then it is the same job for ever."""
    body, headers = {"model": "flat", "prompt": "[slow] again", "steps": 400}, {"Idempotency-Key": "again"}
    for _ in range(2):
        connection = begin(shim, "/generate", keys.user, body, **headers)
        job_id = shim.newest().id
        connection.close()
        assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_CANCELLED
    with shim.home.hurried():
        drawn = [shim.call("POST", "/generate", keys.user, json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in drawn] == [200, 200] and drawn[0].json() == drawn[1].json()
    assert shim.newest().id != job_id
    other = shim.call("POST", "/generate", keys.user, json=body | {"steps": 401}, headers=headers)
    assert told(other) == (409, "REQUEST_ID_CLASH", "Idempotency-Key")


def test_the_daemons_end_gives_no_job_up() -> None:
    """Who waits hears that it stops; the job waits for the next one."""
    with serving() as own:
        key = own.key("ada")
        own.fill(key, 1)
        body = {"model": "flat", "prompt": "kept", "steps": 2}
        answers: list[requests.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(own.post("/generate", key, **body)))
        waiting.start()
        until(lambda: own.newest().generate.prompt == "kept", "the call has made a job")
        job_id = own.newest().id
        daemon_pb2_grpc.DaemonStub(own.channel).Shutdown(daemon_pb2.ShutdownRequest(now=True))
        waiting.join()
        assert [told(answer)[:2] for answer in answers] == [(503, "DRAINING")]
        own.process.wait()
        assert own.home.rows(f"SELECT state FROM jobs WHERE id = '{job_id}'") == [("QUEUED",)]


_REPEATED: dict[str, dict[str, object]] = {
    "/generate": {"model": "flat", "prompt": "x", "image_count": 2},
    "/image/generate": {"model": "flat", "prompt": "x"},
    "/image/create/lora": {"lora_id": LORA, "prompt": "x", "response_format": "base64"},
    "/v1/images/generations": {"prompt": "x", "model": "flat", "n": 2},
    "/sdapi/v1/txt2img": {"prompt": "x", "steps": 2},
}


@pytest.mark.parametrize("path", _REPEATED)
def test_pictures_that_were_deleted_are_not_drawn_again(shim: Shim, keys: Keys, path: str) -> None:
    headers = {"Idempotency-Key": f"deleted of {path}"}
    assert shim.call("POST", path, keys.user, json=_REPEATED[path], headers=headers).status_code == 200
    shim.call("DELETE", f"/images/{shim.newest().images[0].id}", keys.user)
    again = shim.call("POST", path, keys.user, json=_REPEATED[path], headers=headers)
    assert told(again)[:2] == (404, "UNKNOWN_IMAGE")


def test_the_header_is_checked(shim: Shim, keys: Keys) -> None:
    answer = shim.call("POST", "/generate", keys.user, json={}, headers={"Craft-On-Disconnect": "maybe"})
    assert told(answer) == (422, "INVALID_FIELD", "Craft-On-Disconnect")
    answer = shim.call("POST", "/generate", keys.user, json={}, headers={"Idempotency-Key": "x" * 300})
    assert told(answer) == (422, "INVALID_FIELD", "Idempotency-Key")
