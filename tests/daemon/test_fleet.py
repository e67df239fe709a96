"""Workers on other machines: they join by an invitation, draw, are removed; strangers are not let in."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from craft_protos import frames
from craft_protos.dispatch import ModelFile
from craft_protos.reasons import CraftError
from craft_protos.remote_pb2 import Ended, FromRemote, Greeting, Piece, Renew, Want
from craft_protos.training_pb2 import TrainingSample
from craft_protos.version import __version__
from craft_protos.worker_pb2 import FromWorker
from craftd.jobs.job import State
from craftd.joining.agent import Agent
from craftd.joining.identity import Identity, connect
from craftd.models.model import Manifest
from craftd.workers.remote import certificates
from craftd.workers.remote import line as lines
from craftd.workers.remote.certificates import Authority
from craftd.workers.remote.link import Seat

from tests.daemon.fleets import PORT, Fleet, fleet, next_of
from tests.daemon.test_pool import Models, _until


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path) as made:
        yield made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A model that has some, one of them of several pieces; by sha256."""
    contents = {"unet/weights.safetensors": b"weights" * 500_000, "model_index.json": b"{}"}
    made, sources = [], []
    for number, (path, data) in enumerate(contents.items()):
        sources.append(tmp_path / f"file{number}")
        sources[-1].write_bytes(data)
        made.append(ModelFile(path, hashlib.sha256(data).hexdigest(), len(data)))
    pipeline = "StableDiffusionPipeline"
    monkeypatch.setattr(Models, "manifest", Manifest("flat", "sd", pipeline, "a", tuple(made), sources=tuple(sources)))
    return {file.sha256: data for file, data in zip(made, contents.values(), strict=True)}


async def test_one_joins_fetches_the_model_draws_its_share_and_is_removed(
    front: Fleet, files: dict[str, bytes]
) -> None:
    remote = await front.joined()
    worker = front.worker()
    await _until(lambda: worker.is_reachable)
    for one in front.pool.workers:
        one.want()
    await _until(lambda: all(one.is_ready for one in front.pool.workers))
    await front.scene.add("a", "[held] apples", count=8)
    await _until(lambda: len(front.scene.of(worker)) == 1 == len(front.scene.of(front.pool.workers[0])))
    for folder in (front.scene.folders[0], remote.identity.folder / "files"):
        (folder / "release").touch()
    assert (await front.scene.finish("a")).state is State.SUCCEEDED
    assert {one: (remote.identity.folder / "files" / one).read_bytes() for one in files} == files
    assert worker.vitals is not None and worker.vitals.pid and worker.residency.names == ("flat",)
    await front.port.remove("box-2")
    assert [one.name for one in front.pool.workers] == ["cpu-1"]
    assert remote.running is not None
    with pytest.raises(CraftError, match="removed from the fleet"):
        await remote.running


async def test_a_broken_line_gives_its_jobs_back_and_the_process_is_there_when_it_is_mended(front: Fleet) -> None:
    remote = await front.joined()
    worker, local = front.worker(), front.pool.workers[0]
    front.pool.drain("cpu-1")
    await front.scene.add("a")
    await _until(lambda: len(front.scene.of(worker)) == 1)
    (active,), vitals = front.scene.of(worker), worker.vitals
    assert vitals is not None
    assert isinstance(worker.elsewhere, Seat) and worker.elsewhere.link is not None
    worker.elsewhere.link.line.close("the cable was cut")
    await _until(lambda: active.epoch == 2)
    assert not active.job.is_suspect and not active.job.attempts and local.vitals is None
    (remote.identity.folder / "files" / "release").touch()
    assert (await front.scene.finish("a")).state is State.SUCCEEDED
    assert worker.vitals is not None and worker.vitals.pid == vitals.pid
    assert (worker.restarts, worker.failures) == (0, 0)


async def test_what_was_drawn_while_the_line_was_cut_comes_late_and_does_no_harm(
    front: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_mended = asyncio.Event()
    monkeypatch.setattr(Agent, "_wait", lambda _agent, _wait_s: is_mended.wait())
    remote = await front.joined()
    worker = front.worker()
    front.pool.drain("cpu-1")
    await front.scene.add("a", count=2)
    await _until(lambda: len(front.scene.of(worker)) == 1)
    (active,) = front.scene.of(worker)
    assert isinstance(worker.elsewhere, Seat) and worker.elsewhere.link is not None and remote.host is not None
    worker.elsewhere.link.line.close("the cable was cut")
    (remote.identity.folder / "files" / "release").touch()
    late = remote.host._late
    await _until(lambda: [one.WhichOneof("frame") for one in late] == ["image", "image", "done"])
    is_mended.set()
    job = await front.scene.finish("a")
    assert job.state is State.SUCCEEDED and sorted(active.images) == [0, 1] and active.epoch == 2
    assert not remote.host._late and worker.is_reachable and not worker.restarts


async def test_a_silent_line_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "craft.fleet")
    async with fleet(tmp_path, replace(PORT, line_timeout_s=0.3)) as front:
        remote = await front.invited()
        line = await front.greeted(remote.identity)
        await _until(lambda: any("nothing was heard for" in getattr(one, "why", "") for one in caplog.records))
        assert front.worker().state == "AWAY"
        line.close("done")


async def test_a_certificate_is_renewed_over_the_line_and_the_next_line_shows_it(
    front: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await front.invited()
    before = remote.serial
    monkeypatch.setattr(Identity, "is_due", property(lambda _: True))
    running = front.run(remote)
    await _until(lambda: remote.serial != before)
    assert await front.roster.find(before) == await front.roster.find(remote.serial) == "box-2"
    running.cancel()
    (await front.greeted(remote.identity)).close("it was let in")
    assert await front.roster.find(before) is None


REFUSED = {
    "a wrong token": "token is wrong",
    "a token once more": "token is wrong, was used already",
    "an old token": "older than 15 minutes",
    "another version": "craft 9.9 (frames 1), the daemon craft",
    "other frames": "(frames 99), the daemon craft",
    "another front": "its fingerprint is",
    "no request": "is none",
}


@pytest.mark.parametrize("what", REFUSED)
async def test_who_may_not_join_is_told_why(front: Fleet, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await front.port.invite("box-2")
    token, fingerprint = told.invitation.token, told.fingerprint
    match what:
        case "a wrong token":
            token = "0" * 32
        case "a token once more":
            await Identity(front.folder / "first").join(told.address, fingerprint, token)
        case "an old token":
            front.roster._clock = lambda: time.time() + 15 * 60 + 1
        case "another version":
            monkeypatch.setattr("craftd.joining.identity.__version__", "9.9")
        case "other frames":
            monkeypatch.setattr("craftd.joining.identity.lines.VERSION", 99)
            monkeypatch.setattr("craftd.workers.remote.port.lines", replace_version(1))
        case "another front":
            fingerprint = f"sha256:{'0' * 64}"
        case "no request":
            monkeypatch.setattr(certificates, "request_for", lambda _: b"0\x03junk")
    with pytest.raises(CraftError) as refused:
        await Identity(front.folder / "second").join(told.address, fingerprint, token)
    assert REFUSED[what] in refused.value.message and token not in refused.value.message
    assert not Identity(front.folder / "second").is_there
    if what == "another front":
        assert await front.roster.name_invited(token) == "box-2"


async def test_who_has_joined_is_let_in_by_its_own_certificate_alone(
    front: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = await front.invited()
    other = Authority.open(tmp_path / "elsewhere")
    key = certificates.load_key(remote.identity._key_file.read_bytes())
    real = remote.identity._certificate_file.read_bytes()
    forged = other.issue(certificates.request_for(key), "box-2").certificate
    remote.identity._certificate_file.write_text(certificates.ssl.DER_cert_to_PEM_cert(forged))
    line = await connect(front.port.address, remote.identity.context())
    line.send(FromRemote(greeting=Greeting(version=__version__, frames=lines.VERSION)))
    assert await line.receive() is None and not front.worker().is_reachable
    line.close("seen")
    remote.identity._certificate_file.write_bytes(real)
    monkeypatch.setattr("craftd.joining.agent.__version__", "0.0.9")
    with pytest.raises(CraftError, match=rf"craft 0\.0\.9 .*the daemon craft {__version__}"):
        await remote.agent().run()
    monkeypatch.setattr(certificates, "is_over", lambda _: True)
    with pytest.raises(CraftError, match="the certificate is over"):
        await remote.agent().run()


def _of_worker(**told: object) -> FromRemote:
    return FromRemote(worker=FromWorker(**told), life=1)  # type: ignore[arg-type]


HELLO = FromWorker.Hello(pid=1, device="cpu", precision="fp32", capacity_rows=1, version=__version__)
NOT_GIVEN = FromWorker.ImageDone(job_id="another", epoch=1, data=b"\x89PNG\r\n\x1a\n", media_type="image/png")
GIVEN = {"job_id": "a", "epoch": 1}
PATH = "../../etc/passwd"
HOSTILE: dict[str, tuple[list[FromRemote | bytes], str]] = {
    "a huge frame": ([struct.pack(">I", frames.MAX_FRAME_BYTES + 1)], "is the most"),
    "no frame": ([struct.pack(">I", 3) + b"\xff\xff\xff"], "cannot be decoded"),
    "an empty frame": ([FromRemote()], "an empty frame"),
    "a second greeting": ([FromRemote(greeting=Greeting())], "greeting where that cannot be"),
    "a join": ([FromRemote(join={"token": "x"})], "join where that cannot be"),  # type: ignore[arg-type]
    "a path that is wanted": ([FromRemote(want=Want(sha256=PATH))], "no sha256"),
    "a piece of a path": ([FromRemote(piece=Piece(sha256=PATH))], "no sha256"),
    "many wishes": ([FromRemote(want=Want(sha256="ab" * 32))] * 400, "it sent more than"),
    "renewals": ([FromRemote(renew=Renew(request=b"x"))] * 2, "is none"),
    "others' pictures": ([_of_worker(image=NOT_GIVEN)] * 300, "a minute about what it was not given"),
    "lives that were not": ([FromRemote(ended=Ended(), life=7), _of_worker(done={})] * 300, "what it was not given"),
    "a name with escapes": ([_of_worker(hello={"device": "\x1b[2J"})], "cannot be printed"),
    "a page": ([_of_worker(image={**GIVEN, "data": b"<html>", "media_type": "text/html"})], "in no format"),
    "a page as a picture": ([_of_worker(image={**GIVEN, "data": b"<html>", "media_type": "image/png"})], "no format"),
    "a checkpoint's path": ([_of_worker(checkpoint={**GIVEN, "sha256": PATH})], "no sha256"),
    "a sample's page": ([_of_worker(sample={**GIVEN, "sample": TrainingSample(data=b"<", media_type="x")})], "is none"),
    "an old epoch": ([_of_worker(image={**GIVEN, "epoch": 9})] * 300, "what it was not given"),
}


async def test_strange_frames_end_the_line_and_nothing_else(front: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "craft.fleet")
    remote = await front.invited()
    front.pool.drain("cpu-1")
    await front.scene.add("a")
    (active,) = front.scene.jobs
    for what, (sent, why) in HOSTILE.items():
        line = await front.greeted(remote.identity)
        life = (await next_of(line, "start")).life
        if "hello" not in str(sent[0]):
            line.send(FromRemote(worker=FromWorker(hello=HELLO), life=life))
            dispatch = (await next_of(line, "worker")).worker.dispatch
        caplog.clear()
        for frame in sent:
            if isinstance(frame, bytes):
                line._writer.write(frame)
                continue
            if (told := getattr(frame.worker, frame.worker.WhichOneof("frame") or "hello")) and hasattr(told, "epoch"):
                told.epoch = dispatch.epoch if told.epoch == 1 else told.epoch
            line.send(frame)
        while await line.receive() is not None:
            pass
        line.close("seen")
        await _until(lambda: not front.worker().is_reachable)
        logged = [getattr(one, "why", "") for one in caplog.records]
        assert any(why in one for one in logged), (what, logged)
        assert not active.images and not active.received, what
    assert not active.job.is_suspect


def replace_version(number: int) -> object:
    """The module that has the frames' version, as it were, of another craft."""
    return type("Lines", (), {**vars(lines), "VERSION": number})
