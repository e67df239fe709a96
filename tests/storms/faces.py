"""The same callers over HTTP and over TCP with TLS, and callers who train: all faces stand in the same storms."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx2
from craft_protos import jobs_pb2, keys_pb2, keys_pb2_grpc

from tests.daemon import certificates, trains
from tests.http.again import free_port
from tests.storms.callers import CALL_S, Broken, Caller
from tests.storms.journal import End, Picture
from tests.storms.scene import Scene, scene

_PLENTY = "[tiers.default]\nrequests_per_minute = 1000000\nimages_in_flight = 10000\nqueue_share = 1.0\n"
_AGAIN = {408, 429, 500, 502, 503, 507}  # come again; 499: the caller itself had hung up
STEPS, CHECKPOINT = 10, 4


@dataclass
class HttpCaller(Caller):
    """A key's, over HTTP."""

    url: str = ""
    key: str = ""
    _client: httpx2.AsyncClient | None = None

    async def create(self, asked: jobs_pb2.CreateJobRequest) -> str:
        spec = asked.generate
        body = {"request_id": asked.request_id, "prompt": spec.prompt, "seed": spec.seed, "steps": spec.steps}
        body |= {"width": spec.width, "height": spec.height, "count": spec.count or 1}
        job = await self._insist("POST /jobs", lambda: self._call("POST", "/jobs", json=body))
        self.journal.note_created(asked, _job({"request_id": asked.request_id, **job}))
        return str(job["id"])

    async def look(self, job_id: str) -> jobs_pb2.Job:
        had_ended = job_id in self.journal.ends
        job = _job(await self._insist(f"GET /jobs/{job_id}", lambda: self._call("GET", f"/jobs/{job_id}")))
        self.journal.note_job(job, had_ended=had_ended)
        return job

    async def close(self) -> None:
        await super().close()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _watch(self, job_id: str) -> End:
        had_ended = job_id in self.journal.ends
        with _mapped():
            async with self.client.stream("GET", f"/jobs/{job_id}/events", timeout=self.limit_s) as stream:
                _check(stream)
                async for name, data in _events(stream):
                    if self._hear(job_id, name, data, had_ended=had_ended):
                        return self.journal.ends[job_id]
        raise Broken("the stream ended before the job did")

    def _hear(self, job_id: str, name: str, data: dict[str, Any], *, had_ended: bool) -> bool:
        """Whether that was the end."""
        self.journal.tick()
        if name in ("snapshot", "finished"):
            self.journal.note_job(_job(data), had_ended=had_ended)
        elif name == "image":
            self.journal.note_picture(data["id"], Picture(job_id, data["index"], data["seed"], data["sha256"]))
        return name == "finished"

    async def _cancel(self, job_id: str) -> None:
        try:
            self.journal.note_cancelled(_job(await self._call("DELETE", f"/jobs/{job_id}")))
        except _Refused as refused:
            if refused.reason != "JOB_FINISHED":
                raise
            self.journal.note_finished_already(_job(await self._call("GET", f"/jobs/{job_id}")))

    async def _delete(self, image_id: str) -> None:
        try:
            await self._call("DELETE", f"/images/{image_id}")
        except _Refused as refused:
            if refused.reason != "UNKNOWN_IMAGE":
                raise
        self.journal.note_deleted(image_id)

    async def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        with _mapped():
            answer = await self.client.request(method, path, timeout=CALL_S, **more)
            _check(answer)
            return dict(answer.json()) if answer.content else {}

    @property
    def client(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(base_url=self.url, headers={"X-API-Key": self.key})
        return self._client


async def _events(stream: httpx2.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in stream.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


class _Refused(Exception):
    """An answer that is not worth asking for again."""

    def __init__(self, answer: httpx2.Response) -> None:
        super().__init__(f"HTTP {answer.status_code}")
        self.reason = _reason(answer)

    def __str__(self) -> str:
        return f"{super().__str__()} {self.reason}"


def _reason(answer: httpx2.Response) -> str:
    with contextlib.suppress(ValueError, httpx2.ResponseNotRead):
        return str(answer.json().get("code", "")) if answer.status_code >= 400 else ""
    return ""


@contextlib.contextmanager
def _mapped() -> Any:
    try:
        yield
    except httpx2.TransportError as exc:
        raise Broken(repr(exc)) from exc


def _check(answer: httpx2.Response) -> None:
    if answer.status_code in _AGAIN or _reason(answer) == "UNKNOWN_MODEL":  # a model's disk may be away for a moment
        raise Broken(f"HTTP {answer.status_code}")
    if answer.status_code >= 400:
        raise _Refused(answer)


def _job(told: dict[str, Any]) -> jobs_pb2.Job:
    """As the journal knows jobs."""
    error = told.get("error") or {}
    job = jobs_pb2.Job(
        id=told["id"],
        state=jobs_pb2.JobState.Value(f"JOB_STATE_{told['state']}"),
        request_id=told.get("request_id", ""),
        error=jobs_pb2.JobError(reason=error.get("reason", ""), message=error.get("message", "")),
    )
    for image in told["images"]:
        job.images.add(id=image["id"], index=image["index"], seed=image["seed"], sha256=image["sha256"])
    return job


@dataclass
class Faces:
    """One caller for each."""

    scene: Scene
    callers: dict[str, Caller] = field(default_factory=dict)

    async def dataset(self) -> str:
        """Pictures that were taken in; uploads have no request_id, so it is done before the storm."""
        daemon: Any = SimpleNamespace(address=self.scene.keeper.address)
        return (await trains.upload(daemon)).id

    async def train(self, dataset: str, chance: random.Random, word: str = "") -> str:
        """A train job, and somebody who waits for its end."""
        trigger = f"sks {word}".strip()
        seed = chance.randrange(1 << 24)
        asked = trains.request(dataset, trigger=trigger, seed=seed, steps=STEPS, checkpoint_every=CHECKPOINT)
        job_id = await self.scene.caller.create(asked)
        self.scene.begin(self.scene.caller.finish(job_id))
        return job_id


@contextlib.asynccontextmanager
async def faces(seed: int, folder: Path, **settings: str) -> AsyncIterator[Faces]:
    """A craft that answers on its socket, over TCP with TLS and over HTTP."""
    pems, tcp, http = certificates.make(folder), free_port(), free_port()
    listening = {
        "CRAFT_DAEMON_LISTEN": f"127.0.0.1:{tcp}",
        "CRAFT_DAEMON_TLS_CERT": str(pems.cert),
        "CRAFT_DAEMON_TLS_KEY": str(pems.key),
        "CRAFT_HTTP_ENABLED": "true",
        "CRAFT_HTTP_LISTEN": f"127.0.0.1:{http}",
    }
    async with scene(seed, config=_PLENTY, **(listening | settings)) as one:
        made = Faces(one, {"socket": one.caller})
        key = await _key(one, "alice")
        secure = grpc.ssl_channel_credentials(pems.ca.read_bytes())
        made.callers["TLS"] = Caller(
            one.keeper,
            one.journal,
            credentials=secure,
            target=lambda: f"localhost:{tcp}",
            metadata=(("x-api-key", key),),
        )
        made.callers["HTTP"] = HttpCaller(one.keeper, one.journal, url=f"http://127.0.0.1:{http}", key=key)
        try:
            yield made
        finally:
            for caller in made.callers.values():
                await caller.close()


async def _key(one: Scene, owner: str) -> str:
    keys = keys_pb2_grpc.KeysStub(one.caller.channel)
    return str((await keys.CreateKey(keys_pb2.CreateKeyRequest(owner=owner))).secret)
