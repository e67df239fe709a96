"""The process: its start, its end, its models' files, and what it does with wrong ones."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from craft_protos.worker_pb2 import Cancel, FromWorker, Load, ModelFile, ModelManifest, ToWorker, Unload

from tests import tiny_models
from tests.worker import client
from tests.worker.client import WorkerProcess, submit


def test_the_package_imports_no_torch() -> None:
    code = "import sys, craftd.worker.process.options, craftd.worker.models.folder; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_end_of_file_ends_it_in_the_middle_of_a_step(files: Path, sd: ModelManifest) -> None:
    with client.worker(files) as started:
        started.send(submit(sd, steps=1000, width=256, height=256))
        started.until_kind("step")
        started.close()
        assert started.process.returncode == 0
        assert not list(Path(tempfile.gettempdir()).glob(f"craft-worker-{started.process.pid}-*"))


def test_end_of_file_ends_it_while_it_starts(files: Path) -> None:
    import os
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "craftd.worker", "--fd", str(theirs.fileno()), "--files", str(files)],
            pass_fds=[theirs.fileno()],
            env=os.environ,
        )
    ours.close()
    assert process.wait(client.HANG_S) == 0


def test_load_reports_bytes_and_unload_gives_the_memory_back(files: Path, models: dict[str, ModelManifest]) -> None:
    big = client.put_model(tiny_models.cached("pocket-size"), files, "big")
    with client.worker(files) as started:
        started.send(ToWorker(load=Load(model=models["sd"])))  # the libraries' own share
        started.until_kind("loaded")
        process = psutil.Process(started.process.pid)
        before = process.memory_info().rss
        started.send(ToWorker(load=Load(model=big)))
        loaded = started.until_kind("loaded")
        done = [frame.loading.bytes_done for frame in started.seen if frame.loading.model == "big"]
        assert done[0] == 0
        assert done == sorted(done)
        assert done[-1] == sum(file.size_bytes for file in big.files)
        assert loaded.resident_bytes > 20e6
        started.draw(submit(big, steps=2, width=256, height=256))
        started.send(ToWorker(unload=Unload(model="big")))
        started.until_kind("unloaded")
        assert process.memory_info().rss - before < loaded.resident_bytes


def test_at_rest_it_gives_the_memory_of_large_pictures_back(files: Path) -> None:
    big = client.put_model(tiny_models.cached("pocket-size"), files, "big")
    with client.worker(files) as started:
        sizes = itertools.product((320, 256, 384), repeat=2)
        started.draw(*(submit(big, f"{w}x{h}", steps=1, width=w, height=h) for w, h in sizes))
        drew, rested = (started.until(lambda frame: frame.stats.doing == "idle").stats for _ in range(2))
        assert drew.predict_calls == rested.predict_calls
        assert drew.rss_bytes - rested.rss_bytes > 20e6


def test_cancel_takes_effect_within_a_step(worker: WorkerProcess, sd: ModelManifest) -> None:
    worker.send(submit(sd, "long", steps=1000))
    at = worker.until(lambda frame: frame.step.job_id == "long").step.step
    worker.send(ToWorker(cancel=Cancel(job_id="long", epoch=1)))
    done = worker.until_kind("done")
    assert done.cancelled
    last = max(frame.step.step for frame in worker.seen if frame.HasField("step"))
    assert last < 900, f"cancelled at step {at}, went on to {last}"
    worker.draw(submit(sd, "next"))
    assert not [frame for frame in worker.seen if frame.image.job_id == "long"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.json", "UNSAFE_PATH"),
        ("/etc/passwd", "UNSAFE_PATH"),
        ("unet/../../x", "UNSAFE_PATH"),
        ("", "UNSAFE_PATH"),
        ("a\\..\\b", "UNSAFE_PATH"),
    ],
)
def test_paths_that_lead_out(worker: WorkerProcess, sd: ModelManifest, path: str, reason: str) -> None:
    bad = ModelManifest(name="bad", sha256=f"bad{path}", files=[*sd.files, ModelFile(path=path, sha256="0" * 64)])
    failed = worker.fail(submit(bad))
    assert failed.error.reason == reason
    assert worker.draw(submit(sd))


def _changed(sd: ModelManifest, name: str, change: Callable[[ModelFile], ModelFile | None]) -> ModelManifest:
    kept = [changed for file in sd.files if (changed := change(file)) is not None]
    return ModelManifest(name=name, sha256=f"sha-{name}", files=kept)


def _stored(files: Path, text: bytes) -> str:
    import hashlib

    sha256 = hashlib.sha256(text).hexdigest()
    (files / sha256).write_bytes(text)
    return sha256


def test_wrong_files_are_named(worker: WorkerProcess, sd: ModelManifest, files: Path) -> None:
    def swap(path: str, content: bytes) -> Callable[[ModelFile], ModelFile]:
        sha256 = _stored(files, content)
        return lambda file: ModelFile(path=file.path, sha256=sha256) if file.path == path else file

    weights = "unet/diffusion_pytorch_model.safetensors"
    index = next(file for file in sd.files if file.path == "model_index.json")
    told = json.loads((files / index.sha256).read_text())
    foreign = json.dumps(told | {"unet": ["os", "system"]}).encode()
    unknown = json.dumps(told | {"_class_name": "NoSuchPipeline"}).encode()
    shards = {"weight_map": {"a": "../../secret.safetensors"}}
    cases = {
        "no-index": (lambda file: None if file.path == "model_index.json" else file, "UNSUPPORTED_MODEL"),
        "missing": (lambda file: ModelFile(path=file.path, sha256="1" * 64), "CORRUPT_FILE"),
        "size": (lambda file: ModelFile(path=file.path, sha256=file.sha256, size_bytes=1), "CORRUPT_FILE"),
        "html": (swap(weights, b"<html>not found</html>"), "CORRUPT_FILE"),
        "no-weights": (lambda file: None if file.path == weights else file, "UNSUPPORTED_MODEL"),
        "json": (swap("model_index.json", b"{"), "CORRUPT_FILE"),
        "foreign": (swap("model_index.json", foreign), "UNSUPPORTED_MODEL"),
        "unknown": (swap("model_index.json", unknown), "UNSUPPORTED_MODEL"),
        "shards": (
            lambda file: (
                ModelFile(path="unet/a.safetensors.index.json", sha256=_stored(files, json.dumps(shards).encode()))
                if file.path == weights
                else file
            ),
            "UNSAFE_PATH",
        ),
    }
    for name, (change, reason) in cases.items():
        failed = worker.fail(submit(_changed(sd, name, change), name))
        assert (name, failed.error.reason) == (name, reason), failed.error.message
        assert name in failed.error.message
        assert failed.error.hint
    assert worker.draw(submit(sd))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"width": 65}, "width"),
        ({"height": 4}, "height"),
        ({"sampler": "Nobody's"}, "sampler"),
        ({"steps": 1001}, "steps"),
    ],
)
def test_what_a_model_cannot_do_names_the_field(
    worker: WorkerProcess, sd: ModelManifest, spec: dict[str, int | str], field: str
) -> None:
    failed = worker.fail(submit(sd, **spec))
    assert failed.error.reason == "INVALID_FIELD"
    assert failed.error.message.startswith(f"{field}: ")


def test_weights_that_are_not_numbers_fail_the_job(worker: WorkerProcess, files: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_models.cached("sd"), broken)
    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    failed = worker.fail(submit(client.put_model(broken, files, "broken")))
    assert failed.error.reason == "JOB_FAILED"
    assert "not finite" in failed.error.message
    worker.send(ToWorker(unload=Unload(model="broken")))
    worker.until_kind("unloaded")


def test_stats_prove_progress(worker: WorkerProcess, sd: ModelManifest) -> None:
    worker.draw(submit(sd, steps=5))
    worker.until(lambda frame: frame.stats.doing == "idle")
    stats = [frame.stats for frame in worker.seen if frame.HasField("stats")]
    assert [s.progress for s in stats] == sorted(s.progress for s in stats)
    assert stats[-1].progress > stats[0].progress
    assert stats[-1].rss_bytes > 0
    assert "step" in [s.doing for s in stats]
    assert isinstance(worker.seen[0], FromWorker)
