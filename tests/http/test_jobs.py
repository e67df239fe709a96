"""Jobs over HTTP: made, listed, watched as an event stream, cancelled; pictures listed, shown small, deleted."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator

import pytest
import requests
from craft_protos import jobs_pb2, keys_pb2
from PIL import Image

from tests.home import until
from tests.http.shim import Keys, Shim, serving, told

Event = tuple[str, dict[str, object]]


def _make(shim: Shim, key: str, prompt: str = "a red apple", **fields: object) -> dict[str, object]:
    answer = shim.post("/jobs", key, **{"prompt": prompt, "steps": 3, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    assert answer.headers["location"] == f"/jobs/{made['id']}"
    return made


def _watch(shim: Shim, key: str, job_id: object, preview_every: int = 0) -> list[Event]:
    answer = shim.call("GET", f"/jobs/{job_id}/events?preview_every={preview_every}", key, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(_events(answer))


def _events(answer: requests.Response) -> Iterator[Event]:
    name = ""
    for line in answer.iter_lines(decode_unicode=True):
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _finished(shim: Shim, key: str, **fields: object) -> dict[str, object]:
    return _watch(shim, key, _make(shim, key, **fields)["id"])[-1][1]  # type: ignore[arg-type]


def test_a_job_is_watched_from_a_snapshot_to_its_end(shim: Shim, keys: Keys) -> None:
    made = _make(shim, keys.user, "a [slow] apple", steps=4, count=2, seed=9)
    events = _watch(shim, keys.user, made["id"], preview_every=2)
    names = [name for name, _ in events]
    assert names[0] == "snapshot" and names[-1] == "finished" and names.count("finished") == 1
    assert set(names) <= {"snapshot", "queued", "loading", "started", "step", "image", "finished"}
    steps = [data for name, data in events if name == "step"]
    assert {step["index"] for step in steps} == {0, 1} and all(step["of"] == 4 for step in steps)
    assert all(bool(step["preview"]) == (step["step"] in (2, 4)) for step in steps)
    images = [data for name, data in events if name == "image"]
    assert sorted(image["seed"] for image in images) == [9, 10]  # type: ignore[type-var]
    end = events[-1][1]
    assert (end["state"], end["error"], end["id"]) == ("SUCCEEDED", None, made["id"])
    assert shim.call("GET", f"/jobs/{made['id']}", keys.user).json() == end
    late = _watch(shim, keys.user, made["id"])
    assert [name for name, _ in late] == ["snapshot", "finished"] and late[-1][1] == end


def test_the_names_are_those_of_the_command(shim: Shim, keys: Keys) -> None:
    wish = {
        **{"prompt": "a hat", "negative_prompt": "grey", "model": "flat", "width": 64, "height": 72, "steps": 2},
        **{"guidance_scale": 2.5, "seed": 5, "count": 3, "sampler": "euler_a", "format": "webp", "indices": [2]},
        **{"deterministic": True, "priority": "batch", "loras": [{"lora": "hero", "weight": 0.25}]},
    }
    end = _finished(shim, keys.user, **wish)
    assert end["state"] == "SUCCEEDED" and end["priority"] == "batch"
    drawn = end["generate"]
    assert isinstance(drawn, dict)
    same = ("prompt", "negative_prompt", "model", "width", "height", "steps", "guidance_scale", "seed", "count")
    assert {name: drawn[name] for name in same} == {name: wish[name] for name in same}
    assert (drawn["sampler"], drawn["format"], drawn["deterministic"]) == ("Euler a", "webp", True)
    assert [(use["name"], use["weight"]) for use in drawn["loras"]] == [("hero", 0.25)]
    (image,) = end["images"]  # type: ignore[misc]
    assert (image["index"], image["seed"], image["media_type"], image["height"]) == (2, 7, "image/webp", 72)


def test_the_same_request_is_the_same_job(shim: Shim, keys: Keys) -> None:
    one = _make(shim, keys.user, request_id="once")
    assert _make(shim, keys.user, request_id="once")["id"] == one["id"]
    clash = shim.post("/jobs", keys.user, prompt="another", request_id="once")
    assert (clash.status_code, clash.json()["code"]) == (409, "REQUEST_ID_CLASH")
    assert _make(shim, keys.other, request_id="once")["id"] != one["id"]
    headers = {"Idempotency-Key": "some text, of mine"}
    twice = [shim.call("POST", "/jobs", keys.user, json={"prompt": "a"}, headers=headers).json()["id"] for _ in "ab"]
    assert twice[0] == twice[1] != one["id"]
    for path, body in (("/jobs", {"prompt": "b"}), ("/generate", {"model": "flat", "prompt": "b"})):
        other = shim.call("POST", path, keys.user, json=body, headers=headers)
        assert (other.status_code, told(other)[1:]) == (409, ("REQUEST_ID_CLASH", "Idempotency-Key"))
    both = shim.call("POST", "/jobs", keys.user, json={"prompt": "a", "request_id": "x"}, headers=headers)
    assert (both.status_code, both.json()["field"]) == (422, "request_id")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "promt": "b"}, "promt"),
        ({"prompt": "a", "steps": 0}, "steps"),
        ({"prompt": "a", "count": 10**30}, "count"),
        ({"prompt": "a", "seed": 2**53}, "seed"),
        ({"prompt": "a", "loras": [{"lora": "hero", "weight": 11}]}, "loras.0.weight"),
        ({"prompt": "a", "loras": [{"lora": "hero"}, {"lora": "hero"}]}, "loras"),
        ({"prompt": "a", "width": 63}, "width"),
        ({"prompt": "a", "indices": [1]}, "indices"),
        ({"prompt": "a", "expire_time": "soon"}, "expire_time"),
        ({"prompt": "a", "request_id": "no spaces"}, "request_id"),
        ({"prompt": "a", "priority": 1}, "priority"),
    ],
)
def test_a_bad_field_is_named(shim: Shim, keys: Keys, wish: dict[str, object], field: str) -> None:
    answer = shim.call("POST", "/jobs", keys.user, json=wish)
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "INVALID_FIELD", field)


def test_what_is_not_there_is_said(shim: Shim, keys: Keys) -> None:
    assert shim.post("/jobs", keys.user, prompt="a", model="none").json()["code"] == "UNKNOWN_MODEL"
    assert shim.post("/jobs", keys.user, prompt="a", loras=[{"lora": "none"}]).json()["code"] == "UNKNOWN_LORA"
    for path in ("/jobs/0000000000000000", "/jobs/0000000000000000/events"):
        answer = shim.call("GET", path, keys.user)
        assert (answer.status_code, answer.json()["code"]) == (404, "UNKNOWN_JOB")


def test_others_jobs_and_pictures_are_not_there(shim: Shim, keys: Keys) -> None:
    end = _finished(shim, keys.user)
    (image,) = end["images"]  # type: ignore[misc]
    for method, path in (
        ("GET", f"/jobs/{end['id']}"),
        ("GET", f"/jobs/{end['id']}/events"),
        ("DELETE", f"/jobs/{end['id']}"),
        ("GET", f"/images/{image['id']}"),
        ("GET", f"/images/{image['id']}/details"),
        ("GET", f"/images/{image['id']}/thumbnail"),
        ("DELETE", f"/images/{image['id']}"),
        ("GET", f"/image/{image['id']}"),
    ):
        assert shim.call(method, path, keys.other).status_code == 404, path
        assert shim.call(method, path).status_code in (401, 404), path
    theirs = shim.call("GET", "/jobs", keys.other).json()["jobs"]
    assert end["id"] not in [job["id"] for job in theirs]
    everyone = shim.call("GET", "/images?everyone=true", keys.other).json()["images"]
    assert image["id"] not in [one["id"] for one in everyone]
    assert shim.call("GET", f"/images/{image['id']}", keys.admin).status_code == 200
    everyone = shim.call("GET", "/images?everyone=true&page_size=100", keys.admin).json()["images"]
    assert image["id"] in [one["id"] for one in everyone]
    assert shim.call("GET", f"/images/{image['id']}/details", keys.admin).json()["generate"]["seed"] == image["seed"]


def test_lists_come_in_pages_newest_first(shim: Shim) -> None:
    key = shim.key("lister")
    made = [str(_finished(shim, key, prompt=f"tree {number}")["id"]) for number in range(5)]
    for what, name in (("jobs", "id"), ("images", "job")):
        seen, token = [], ""
        while True:
            page = shim.call("GET", f"/{what}?page_size=2&page_token={token}", key).json()
            seen += [one[name] for one in page[what]]
            if not (token := page["next_page_token"]):
                break
        assert seen == made[::-1]
    some = shim.call("GET", "/jobs?state=FAILED&state=CANCELLED", key).json()
    assert some == {"jobs": [], "next_page_token": ""}
    of_one = shim.call("GET", f"/images?job={made[2]}", key).json()["images"]
    assert [one["prompt"] for one in of_one] == ["tree 2"]
    for bad in ("page_size=0", "page_size=101", "page_token=x", "state=LOST"):
        assert shim.call("GET", f"/jobs?{bad}", key).status_code == 422, bad


def test_pages_are_of_so_many_bytes(shim: Shim) -> None:
    """Prompts may be long, and each picture has its own."""
    key = shim.key("writer")
    made = [
        str(_finished(shim, key, prompt=f"{number} " + "tree " * 3000, count=16, steps=1)["id"]) for number in "abcd"
    ]
    for what, name in (("jobs", "id"), ("images", "job")):
        seen, token, pages = [], "", 0
        while pages == 0 or token:
            answer = shim.call("GET", f"/{what}?page_size=100&page_token={token}", key)
            assert answer.headers["content-type"] == "application/json" and len(answer.content) < 600_000
            page = answer.json()
            seen += [one[name] for one in page[what]]
            token, pages = page["next_page_token"], pages + 1
        assert list(dict.fromkeys(seen)) == made[::-1] and len(seen) == (4 if what == "jobs" else 64)
        assert pages > 1


def test_pictures_are_shown_small_and_whole_and_deleted(shim: Shim, keys: Keys) -> None:
    end = _finished(shim, keys.user, width=256, height=128, seed=0x3060C0, format="png")
    (image,) = end["images"]  # type: ignore[misc]
    path = f"/images/{image['id']}"
    small = shim.call("GET", f"{path}/thumbnail?side=64", keys.user)
    assert small.headers["content-type"] == "image/webp" and "private" in small.headers["cache-control"]
    with Image.open(io.BytesIO(small.content), formats=["WEBP"]) as picture:
        assert picture.size == (64, 32)
        pixel = picture.convert("RGB").getpixel((5, 5))
        assert isinstance(pixel, tuple)
        assert all(abs(one - two) < 12 for one, two in zip(pixel, (0xC0, 0x60, 0x30), strict=True))
    with Image.open(io.BytesIO(shim.call("GET", f"{path}/thumbnail?side=1024", keys.user).content)) as picture:
        assert picture.size == (256, 128)
    details = shim.call("GET", f"{path}/details", keys.user).json()
    assert details["generate"]["count"] == 1 and details["provenance"]["seed"] == image["seed"] == 0x3060C0
    assert shim.call("DELETE", path, keys.user).status_code == 204
    for gone in (path, f"{path}/details", f"{path}/thumbnail"):
        assert shim.call("GET", gone, keys.user).status_code == 404


def test_small_pictures_of_large_ones_leave_no_memory_behind(shim: Shim, keys: Keys) -> None:
    images = [_finished(shim, keys.user, width=side, height=side, steps=1)["images"] for side in (64, 2048)]
    paths = [f"/images/{image['id']}/thumbnail?side=64" for (image,) in images]  # type: ignore[misc]
    shim.call("GET", paths[0], keys.user)
    before = shim.status().rss_bytes
    for _ in range(8):
        assert shim.call("GET", paths[1], keys.user).status_code == 200
    assert shim.status().rss_bytes - before < 8e6, "one of them takes 16 MB while it is made small"


def test_cancelled_within_a_step_and_only_once(shim: Shim, keys: Keys) -> None:
    made = _make(shim, keys.user, "a [slow] apple", steps=500)
    events = shim.call("GET", f"/jobs/{made['id']}/events", keys.user, stream=True)
    for name, _ in _events(events):
        if name == "step":
            break
    ended = shim.call("DELETE", f"/jobs/{made['id']}", keys.user)
    assert (ended.status_code, ended.json()["state"], ended.json()["error"]["reason"]) == (
        200,
        "CANCELLED",
        "CANCELLED",
    )
    again = shim.call("DELETE", f"/jobs/{made['id']}", keys.user)
    assert (again.status_code, again.json()["code"]) == (409, "JOB_FINISHED")


def test_a_watcher_that_hangs_up_is_forgotten_and_the_job_goes_on() -> None:
    """A leased job ends when nobody watches it any more; that it lives so long says that the watch counted."""
    with serving(CRAFT_DAEMON_LEASE_S=str(_LEASE_S)) as own:
        key = own.key("ada")
        path, answer, events = _leased(own, key)
        kept = _make(own, key, "a [slow] kept", steps=60)
        with answer:
            steps = (data["step"] for name, data in events if name == "step")
            assert next(step for step in steps if int(str(step)) >= 20)
        assert own.finish(str(kept["id"])).state == jobs_pb2.JOB_STATE_SUCCEEDED
        ended = until(lambda: (job := own.call("GET", path, key).json())["error"] and job, "the lease is over")
        assert ended["state"] == "CANCELLED" and "nobody watched" in ended["error"]["message"]


_LEASE_S = 0.5


def _leased(shim: Shim, key: str) -> tuple[str, requests.Response, Iterator[Event]]:
    """A job's path, and who watches it: in time for sure, as a busy machine may take longer than the lease for that."""
    while True:
        begun = time.monotonic()
        path = f"/jobs/{_make(shim, key, 'a [slow] lease', steps=900, lease=True)['id']}"
        answer = shim.call("GET", f"{path}/events", key, stream=True)
        events = _events(answer)
        assert next(events)[0] == "snapshot"
        if time.monotonic() - begun < _LEASE_S:
            return path, answer, events
        answer.close()


def test_a_stream_ends_for_a_key_that_is_suspended_meanwhile(shim: Shim) -> None:
    key = shim.key("watcher")
    made = _make(shim, key, "a [slow] apple", steps=200)
    answer = shim.call("GET", f"/jobs/{made['id']}/events", key, stream=True)
    seen: list[Event] = []
    for name, data in _events(answer):
        if name == "step" and "step" not in dict(seen):
            shim.keys.SuspendKey(keys_pb2.SuspendKeyRequest(key="watcher"))
        seen.append((name, data))
    assert seen[-1][0] == "problem" and seen[-1][1]["reason"] == "KEY_SUSPENDED"


def test_a_key_has_so_many_streams_open_and_no_more() -> None:
    with serving() as own:
        key, other = own.key("ada"), own.key("bob")
        path = f"/jobs/{_make(own, key, 'a [held] apple')['id']}/events"
        open_ones = [own.call("GET", path, key, stream=True) for _ in range(32)]
        refused = own.call("GET", path, key)
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) > 0
        theirs = f"/jobs/{_make(own, other, 'a [held] pear')['id']}/events"
        assert own.call("GET", theirs, other, stream=True).status_code == 200
        own.home.release()
        ends = [list(_events(one))[-1] for one in open_ones]
        assert {(name, data["state"]) for name, data in ends} == {("finished", "SUCCEEDED")}
        assert own.call("GET", path, key).status_code == 200


def test_what_there_is_to_choose_from(shim: Shim, keys: Keys) -> None:
    choices = shim.call("GET", "/choices", keys.user).json()
    assert (choices["owner"], choices["role"], choices["default_model"]) == ("alice", "user", "flat")
    models = {model["name"]: model for model in choices["models"]}
    assert models["pocket"]["built_in"] and models["pocket"]["base"] == "pocket"
    assert models["pocket"]["defaults"]["sampler"] in models["pocket"]["samplers"]
    assert [lora["name"] for lora in models["pocket"]["loras"]] == ["hero"] and models["flat"]["loras"] == []
    assert models["flat"]["defaults"]["width"] == 64 and models["flat"]["granularity"] == 8
    assert choices["limits"]["max_steps"] == 1000


def test_no_answer_tells_where_files_lie(shim: Shim, keys: Keys) -> None:
    end = _finished(shim, keys.user)
    for path in ("/choices", "/jobs", "/images", f"/jobs/{end['id']}"):
        assert not re.search(r"/tmp|/home|/root|\.safetensors", shim.call("GET", path, keys.user).text), path
