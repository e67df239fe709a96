"""A real craftd that serves HTTP, with keys of every kind, and the worker that needs no torch."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import requests
from craft_protos import (
    daemon_pb2,
    daemon_pb2_grpc,
    images_pb2,
    images_pb2_grpc,
    jobs_pb2,
    jobs_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    loras_pb2,
    loras_pb2_grpc,
)

from tests.daemon.harness import spawn_and_wait
from tests.daemon.loras import upload_parts
from tests.home import HANG_S, Home, until
from tests.lora_files import kohya

_ROOT = str(Path(__file__).parents[2])
LORA, TRIGGER = "hero", "sks hero"
# Nobody is slowed down unless a test is about that.
_PLENTY = "[tiers.default]\nrequests_per_minute = 1000000\nimages_in_flight = 10000\nqueue_share = 1.0\n"


@dataclass
class Shim:
    """`url` has no slash at its end."""

    home: Home
    process: subprocess.Popen[bytes]
    channel: grpc.Channel
    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def key(self, owner: str, *, admin: bool = False, tier: str = "") -> str:
        role = keys_pb2.KEY_ROLE_ADMIN if admin else keys_pb2.KEY_ROLE_USER
        return self.keys.CreateKey(keys_pb2.CreateKeyRequest(owner=owner, role=role, tier=tier)).secret

    @property
    def keys(self) -> keys_pb2_grpc.KeysStub:
        return keys_pb2_grpc.KeysStub(self.channel)

    @property
    def jobs(self) -> jobs_pb2_grpc.JobsStub:
        return jobs_pb2_grpc.JobsStub(self.channel)

    def call(self, method: str, path: str, key: str = "", **more: object) -> requests.Response:
        """With the key as X-API-Key."""
        headers = {"X-API-Key": key} if key else {}
        headers |= more.pop("headers", {})  # type: ignore[call-overload]
        return self.session.request(
            method,
            self.url + path,
            headers=headers,
            timeout=HANG_S,
            **more,  # type: ignore[arg-type]
        )

    def post(self, path: str, key: str = "", **body: object) -> requests.Response:
        return self.call("POST", path, key, json=body)

    def status(self) -> daemon_pb2.DaemonStatus:
        return daemon_pb2_grpc.DaemonStub(self.channel).GetStatus(daemon_pb2.GetStatusRequest())

    def newest(self) -> jobs_pb2.Job:
        return self.jobs.ListJobs(jobs_pb2.ListJobsRequest(page_size=1)).jobs[0]

    def await_running(self, count: int) -> None:
        """Until so many jobs run and none waits."""
        until(lambda: (now := self.status()).running == count and not now.queued, f"{count} jobs run, and none waits")

    def fill(self, key: str, limit: int) -> None:
        """The queue, behind jobs that stay: a worker of one row takes one job, and one more to go on with."""
        while (status := self.status()).queued < limit or status.running < 2:
            self.post("/jobs", key, prompt="[held] x", steps=2)

    def finish(self, job_id: str) -> jobs_pb2.Job:
        """The job, once it has ended."""
        for event in self.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=job_id)):
            if event.WhichOneof("event") == "finished":
                return event.finished.job
        raise AssertionError("the stream ended before the job did")

    def image(self, image_id: str) -> images_pb2.Image:
        stub = images_pb2_grpc.ImagesStub(self.channel)
        return next(iter(stub.GetImage(images_pb2.GetImageRequest(id=image_id, metadata_only=True)))).image

    def add_lora(self, path: Path, name: str) -> None:
        header = loras_pb2.ImportLoraRequest.Header(path=str(path), name=name)
        stub = loras_pb2_grpc.LorasStub(self.channel)
        for _ in stub.ImportLora(iter([loras_pb2.ImportLoraRequest(header=header)])):
            continue

    def send_lora(self, path: Path, owner: str) -> loras_pb2.Lora:
        """As that owner does, who has a key."""
        stub = loras_pb2_grpc.LorasStub(self.channel)
        *_, last = stub.ImportLora(iter(upload_parts(path)), metadata=[("craft-owner", owner)])
        return last.lora


@dataclass(frozen=True)
class Keys:
    """One of each kind; `user`'s owner is alice."""

    user: str
    other: str
    admin: str
    suspended: str
    banned: str


def make_keys(shim: Shim) -> Keys:
    made = Keys(shim.key("alice"), shim.key("bob"), shim.key("root", admin=True), shim.key("sue"), shim.key("ben"))
    shim.keys.SuspendKey(keys_pb2.SuspendKeyRequest(key="sue"))
    shim.keys.BanOwner(keys_pb2.BanOwnerRequest(key="ben"))
    return made


@contextmanager
def serving(config: str = _PLENTY, **settings: str) -> Iterator[Shim]:
    """`settings`: environment variables. Ended however the test goes."""
    usual = {
        "CRAFT_HTTP_ENABLED": "true",
        "CRAFT_HTTP_LISTEN": "127.0.0.1:0",
        "CRAFT_KEYS_FAILURES_PER_MINUTE": "1000000",
    }
    home = Home(**{**usual, **settings})
    home.paths.config_file.write_text(config)
    process, said = spawn_and_wait(home)
    try:
        assert said.get("ready"), (said, process.communicate()[1])
        with grpc.insecure_channel(str(said["address"])) as channel:
            shim = Shim(home, process, channel, "")
            shim.url = shim.status().http
            with shim.session:
                yield shim
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        home.remove()


def told(answer: requests.Response) -> tuple[int, str, str]:
    """(status, reason, field) in whichever form the route has."""
    problem = answer.json()
    if "error" in problem:
        error = problem["error"]
        assert list(error) == ["message", "type", "param", "code"] and error["message"]
        return answer.status_code, error["code"], error["param"] or ""
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["detail"] and problem["request_id"] == answer.headers["x-request-id"]
    if answer.request.path_url == "/image/create/lora":
        assert (problem["status"], problem["message"]) == ("error", problem["detail"])
    else:
        assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"], problem.get("field", "")


def check_says_nothing(text: str) -> None:
    """No trace, path or address, in what is told of an error."""
    for word in ("Traceback", 'File "', " object at ", "/tmp/", _ROOT, "/home/", "craft-test-", ".py", "site-packages"):
        assert word not in text, text


def give_lora(shim: Shim) -> None:
    """One with a trigger phrase; the fake model is of no architecture, so that it fits."""
    folder = shim.home.root / "files"
    folder.mkdir()
    shim.add_lora(kohya(folder / "hero.safetensors", metadata={"modelspec.trigger_phrase": TRIGGER}), LORA)


def tool(name: str) -> str:
    """A program that CI installs."""
    found = shutil.which(name)
    assert found, f"{name} is missing: .ci/run installs it"
    return found
