"""Who hangs up gives up: the job ends within a step, unless its caller asked for another end."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest
from craft_protos import jobs_pb2

from tests.http.shim import TIMEOUT_S, Keys, Shim, told

_LONG = {"prompt": "[slow] a red apple"}
_CALLS: dict[str, dict[str, object]] = {
    "/generate": {"model": "flat", "steps": 1000},
    "/image/generate": {"model": "flat", "steps": 1000},
    "/v1/images/generations": {"num_inference_steps": 1000},
    "/sdapi/v1/txt2img": {"steps": 1000},
}
STREAM = {"prompt": "[slow] x", "num_inference_steps": 80, "stream": True, "partial_images": 3}


def begin(shim: Shim, path: str, key: str, body: dict[str, object], **headers: str) -> http.client.HTTPConnection:
    """A call that is under way: its job's first step was made."""
    before = shim.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1)).jobs
    connection = http.client.HTTPConnection(urlsplit(shim.url).netloc, timeout=TIMEOUT_S)
    usual = {"X-API-Key": key, "content-type": "application/json"}
    connection.request("POST", path, json.dumps(body), {**usual, **headers})
    while (now := shim.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1)).jobs) == before or now[0] in before:
        continue
    await_step(shim, now[0].id)
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
            assert event.step.step <= reached + 4  # what was under way between here and there
        if event.WhichOneof("event") == "finished":
            assert event.finished.job.state == jobs_pb2.JOB_STATE_CANCELLED


def test_hanging_up_in_the_middle_of_a_stream_cancels(shim: Shim, keys: Keys) -> None:
    connection = begin(shim, "/v1/images/generations", keys.user, STREAM)
    answer = connection.getresponse()
    assert answer.status == 200 and answer.readline() == b"event: image_generation.partial_image\n"
    connection.close()
    answer.close()
    assert shim.finish(shim.newest().id).state == jobs_pb2.JOB_STATE_CANCELLED


def test_who_asked_for_it_keeps_the_job(shim: Shim, keys: Keys) -> None:
    body = {"model": "flat", "prompt": "[slow] kept", "steps": 10, "image_count": 1}
    headers = {"Craft-On-Disconnect": "continue", "Idempotency-Key": "a key, of any form"}
    connection = begin(shim, "/generate", keys.user, body, **headers)
    job_id = shim.newest().id
    connection.close()
    assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_SUCCEEDED
    again = shim.call("POST", "/generate", keys.user, json=body, headers=headers)
    assert again.status_code == 200 and shim.newest().id == job_id
    other = shim.call("POST", "/generate", keys.user, json=body | {"steps": 11}, headers=headers)
    assert told(other) == (409, "REQUEST_ID_CLASH", "request_id")
    stranger = shim.call("POST", "/generate", keys.other, json=body, headers=headers)
    assert stranger.status_code == 200 and shim.newest().id != job_id


def test_the_last_who_waits_counts(shim: Shim, keys: Keys) -> None:
    """Two wait for one job: it goes on when one of them hangs up."""
    body = {"model": "flat", "prompt": "[slow] shared", "steps": 40}
    one = begin(shim, "/generate", keys.user, body, **{"Idempotency-Key": "shared"})
    job_id = shim.newest().id
    two = http.client.HTTPConnection(urlsplit(shim.url).netloc, timeout=TIMEOUT_S)
    headers = {"X-API-Key": keys.user, "content-type": "application/json", "Idempotency-Key": "shared"}
    two.request("POST", "/generate", json.dumps(body), headers)
    await_step(shim, job_id, 6)  # by then the second call has come in
    one.close()
    answer = two.getresponse()
    assert answer.status == 200 and len(json.loads(answer.read())) == 1
    two.close()
    assert shim.finish(job_id).state == jobs_pb2.JOB_STATE_SUCCEEDED


def test_the_header_is_checked(shim: Shim, keys: Keys) -> None:
    answer = shim.call("POST", "/generate", keys.user, json={}, headers={"Craft-On-Disconnect": "maybe"})
    assert told(answer) == (422, "INVALID_FIELD", "Craft-On-Disconnect")
    answer = shim.call("POST", "/generate", keys.user, json={}, headers={"Idempotency-Key": "x" * 300})
    assert told(answer) == (422, "INVALID_FIELD", "Idempotency-Key")
