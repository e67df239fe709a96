"""Models of strangers, at the daemon: refused with the reason everywhere, checked once, in nobody's way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest
from craft_protos import jobs_pb2, models_pb2
from craft_protos.reasons import REASONS, CraftError
from craftd.models.inspection_cache import InspectionCache, fingerprint
from craftd.store.database import Database
from craftd.workers import inspector
from craftd.workers.inspector import Verdict

from tests.daemon.harness import Daemon, reason, running
from tests.home import HANG_S, MODEL, Home, write_model

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _page(folder: Path) -> None:
    (folder / WEIGHTS).write_text("<!DOCTYPE html><html>Sign in</html>")


def _cut(folder: Path) -> None:
    os.truncate(folder / WEIGHTS, 20)


def _shard_above(folder: Path) -> None:
    index = {"weight_map": {"w": "../../flat/unet/diffusion_pytorch_model.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def _link_out(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/hostname")


def _pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def _deep(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def _remote_code(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Evil"}}')


STRANGERS: dict[str, tuple[Callable[[Path], None], str, grpc.StatusCode, str]] = {
    "pickled": (_pickled, "UNSAFE_FORMAT", grpc.StatusCode.FAILED_PRECONDITION, "diffusion_pytorch_model.bin"),
    "page": (_page, "CORRUPT_FILE", grpc.StatusCode.DATA_LOSS, "found an HTML page"),
    "cut": (_cut, "CORRUPT_FILE", grpc.StatusCode.DATA_LOSS, "expected"),
    "shard-above": (_shard_above, "UNSAFE_PATH", grpc.StatusCode.INVALID_ARGUMENT, "../../flat"),
    "link-out": (_link_out, "UNSAFE_PATH", grpc.StatusCode.INVALID_ARGUMENT, "link out"),
    "pipe": (_pipe, "UNSAFE_PATH", grpc.StatusCode.INVALID_ARGUMENT, "named pipe"),
    "deep": (_deep, "CORRUPT_FILE", grpc.StatusCode.DATA_LOSS, "deep"),
    "remote-code": (_remote_code, "UNSAFE_CONFIG", grpc.StatusCode.FAILED_PRECONDITION, "auto_map"),
}


@pytest.fixture
def strangers(home: Home) -> Home:
    for name, (spoil, *_) in STRANGERS.items():
        spoil(write_model(home.paths.models_dir / name))
    return home


async def _listed(daemon: Daemon) -> dict[str, models_pb2.Model]:
    answer = await daemon.models.ListModels(models_pb2.ListModelsRequest())
    return {model.name: model for model in answer.models}


async def _checks(daemon: Daemon) -> int:
    return daemon.home.log.count('"model checked"')


async def test_the_reason_is_said_everywhere_and_the_next_request_served(strangers: Home) -> None:
    async with running(strangers) as daemon, asyncio.timeout(HANG_S):
        listed = await _listed(daemon)
        for name, (_, expected, code, says) in STRANGERS.items():
            assert says in listed[name].refused
            for call in (
                daemon.create(model=name),
                daemon.models.LoadModel(models_pb2.LoadModelRequest(name=name)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert (reason(refused.value), refused.value.code()) == (expected, code)
                assert says in str(refused.value.details()) and name in str(refused.value.details())
                assert REASONS[expected].exit == 65
        assert listed[MODEL].refused == ""
        job = await daemon.create()
        assert (await daemon.finish(job.id)).state == jobs_pb2.JOB_STATE_SUCCEEDED


async def test_a_pickle_names_the_command_that_converts_it(strangers: Home) -> None:
    async with running(strangers) as daemon:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await daemon.create(model="pickled")
        metadata = dict(refused.value.trailing_metadata() or ())
        assert b"save_pretrained" in metadata["grpc-status-details-bin"]  # type: ignore[operator]


async def test_a_model_is_checked_once_and_again_when_it_changes(home: Home) -> None:
    async with running(home) as daemon:
        await asyncio.gather(*(_listed(daemon) for _ in range(5)))
        assert await _checks(daemon) == 1
    async with running(home) as daemon:
        await _listed(daemon)
        assert await _checks(daemon) == 1  # the verdict outlives the daemon
        _page(home.paths.models_dir / MODEL)
        assert "HTML" in (await _listed(daemon))[MODEL].refused
        assert await _checks(daemon) == 2
        shutil.rmtree(home.paths.models_dir / MODEL)
        write_model(home.paths.models_dir / MODEL)
        assert (await _listed(daemon))[MODEL].refused == ""
        assert await _checks(daemon) == 3


async def test_a_file_that_goes_bad_while_its_job_waits_fails_the_job(make_home: Callable[..., Home]) -> None:
    home = make_home(CRAFT_WORKER_MAX_ROWS="1")
    write_model(home.paths.models_dir / "other")
    async with running(home) as daemon, asyncio.timeout(HANG_S):
        await daemon.create("[held]")
        await daemon.create("[held]")  # the one that the worker has in store
        waiting = await daemon.create(model="other")
        _remote_code(home.paths.models_dir / "other")
        home.release()
        done = await daemon.finish(waiting.id)
        assert (done.state, done.error.reason) == (jobs_pb2.JOB_STATE_FAILED, "UNSAFE_CONFIG")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await daemon.create(model="other")
        assert reason(refused.value) == "UNSAFE_CONFIG"


async def test_an_inspection_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper, pid = tmp_path / "python", tmp_path / "pid"
    sleeper.write_text(f"#!/bin/sh\necho $$ > {pid}.new && mv {pid}.new {pid}\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    while not pid.exists():  # a busy machine may take longer than the limit to begin it
        begun = time.monotonic()
        with pytest.raises(CraftError) as refused:
            await inspector.inspect(tmp_path, limit_s=1.0)
        assert refused.value.reason == "CORRUPT_FILE" and "longer than 1 s" in refused.value.message
        assert time.monotonic() - begun < HANG_S
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), signal.SIG_DFL)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "SIGKILL"),
        ("echo no JSON", "cannot be read"),
        ('echo \'{"reason": "NO_SUCH"}\'', "not known"),
        ("yes x | head -c 200000 | tr -d '\\n'", "no end"),
    ],
)
async def test_no_verdict_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, why: str) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\n{says}\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(CraftError) as refused:
        await inspector.inspect(tmp_path)
    assert why in refused.value.message


async def test_a_failed_check_is_not_remembered(tmp_path: Path) -> None:
    verdicts = [CraftError("CORRUPT_FILE", "took too long"), Verdict()]

    async def inspect(_: Path) -> Verdict:
        found = verdicts.pop(0)
        if isinstance(found, CraftError):
            raise found
        return found

    database = Database(tmp_path / "craft.db")
    try:
        kept = InspectionCache(database, inspect)
        folder = write_model(tmp_path / "model")
        assert (await kept.of(folder)).message == "took too long"
        assert (await kept.of(folder)).reason == ""
        assert (await kept.of(folder)).reason == ""  # from memory
        assert (await InspectionCache(database, inspect).of(folder)).reason == ""  # from the store
    finally:
        await database.close()


def _rewrite(folder: Path) -> None:
    """The same size and times: only the inode tells."""
    path = folder / WEIGHTS
    status, content = path.stat(), path.read_bytes()
    (folder / "new").write_bytes(content)
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new").replace(path)


def _touch(folder: Path) -> None:
    os.utime(folder / WEIGHTS, ns=(1, 1))


def _hidden(folder: Path) -> None:
    (folder / "vae" / ".hidden").touch()


@pytest.mark.parametrize("change", [_page, _rewrite, _touch, _hidden, _link_out, _pipe])
def test_every_change_shows(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = write_model(tmp_path / "model")
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    change(folder)
    assert fingerprint(folder) != before


def test_a_change_behind_a_link_shows(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / WEIGHTS).rename(tmp_path / "elsewhere")
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    before = fingerprint(folder)
    os.truncate(tmp_path / "elsewhere", 3)
    assert fingerprint(folder) != before
    (tmp_path / "elsewhere").unlink()
    fingerprint(folder)  # what leads nowhere is no error here


async def test_the_built_in_model_is_not_checked(home: Home) -> None:
    async with running(home) as daemon:
        listed = await _listed(daemon)
        built_in = [model for model in listed.values() if model.built_in]
        if not built_in:
            pytest.skip("this craft comes without its built-in model")
        assert [model.refused for model in built_in] == [""]
        assert await _checks(daemon) == len(listed) - 1
