"""What a model is kept in: said by its user, stored, shown, told to workers, and part of its hash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from craft_protos import models_pb2 as pb
from craft_protos.dispatch import ModelManifest
from craftd import gguf, safetensors, weights
from craftd.models import folder, table
from craftd.models.model import Manifest, ModelSource
from craftd.models.registry import Registry
from craftd.store.database import Database
from craftd.weights import Weights

from tests import packed_files, tiny_models
from tests.daemon.harness import Daemon, field, reason
from tests.daemon.safetensors import KINDS


async def _add(daemon: Daemon, path: Path, **more: str) -> pb.Model:
    request = pb.ImportModelRequest(path=str(path), **more)  # type: ignore[arg-type]
    events = [event async for event in daemon.models.ImportModel(request)]
    return events[-1].model


async def _update(daemon: Daemon, name: str, precision: str) -> pb.Model:
    return await daemon.models.UpdateModel(pb.UpdateModelRequest(name=name, precision=precision))


async def test_it_is_kept_with_the_model_and_counts_in_its_hash(daemon: Daemon) -> None:
    path = tiny_models.cached("sd")
    model = await _add(daemon, path, name="kept", precision="fp8")
    assert model.memory_precision == "fp8"
    first = await daemon.models.GetModel(pb.GetModelRequest(name="kept"))
    assert first.memory_precision == "fp8"
    await _update(daemon, "kept", "int8")
    second = await daemon.models.GetModel(pb.GetModelRequest(name="kept"))
    await _update(daemon, "kept", "auto")
    plain = await daemon.models.GetModel(pb.GetModelRequest(name="kept"))
    assert (second.memory_precision, plain.memory_precision) == ("int8", "")
    assert len({first.sha256, second.sha256, plain.sha256}) == 3
    again = await _add(daemon, path)
    assert again.name == "kept"


async def test_it_survives_a_restart(database: Database, tmp_path: Path) -> None:
    place = ModelSource("kept", tiny_models.cached("sd"), "here", precision="bf16", is_registered=True)
    first = Registry(tmp_path, tmp_path, database)
    await first.open()
    await first.add(place)
    second = Registry(tmp_path, tmp_path, database)
    await second.open()
    assert (await second.find("kept")).precision == "bf16"
    await second.remove(place)
    assert await database.run(table.precisions) == {}


async def test_what_is_none_is_refused_with_those_that_are(daemon: Daemon) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _add(daemon, tiny_models.cached("sd"), precision="int3")
    assert (reason(refused.value), field(refused.value)) == ("INVALID_FIELD", "precision")
    assert "fp8, int8" in str(refused.value.details())
    await _add(daemon, tiny_models.cached("sd"), name="kept")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _add(daemon, tiny_models.cached("sd"), precision="fp8")
    assert field(refused.value) == "precision"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _update(daemon, "kept", "small")
    assert reason(refused.value) == "INVALID_FIELD"


async def test_a_prediction_that_is_said_later_leaves_it(daemon: Daemon) -> None:
    await _add(daemon, tiny_models.cached("sd"), name="kept", precision="fp8")
    model = await daemon.models.UpdateModel(pb.UpdateModelRequest(name="kept", prediction="v"))
    assert (model.memory_precision, model.prediction) == ("fp8", "v_prediction")
    model = await _update(daemon, "kept", "auto")
    assert (model.memory_precision, model.prediction) == ("", "v_prediction")


def test_workers_are_told() -> None:
    model = folder.read(tiny_models.cached("sd"), name="it")
    kept = Manifest.of(replace(model, memory_precision="fp8"), ["0" * 64] * len(model.files))
    plain: ModelManifest = Manifest.of(model, ["0" * 64] * len(model.files))
    assert (kept.precision, plain.precision) == ("fp8", "")
    assert kept.key != plain.key


def test_weights_are_counted_as_they_will_be_kept(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(8, 64), "a.bias": torch.randn(8), "x_embedder.weight": torch.randn(4, 64)}
    whole = weights.of(safetensors.read(packed_files.save(tensors, tmp_path / "a.safetensors")), "transformer")
    assert whole == Weights(layers=512, others=8 + 256)
    cast = weights.of(
        safetensors.read(packed_files.save(packed_files.cast(tensors), tmp_path / "b.safetensors")), "transformer"
    )
    assert cast == Weights(packed_bytes=512, others=8 + 256)
    packed_files.write_gguf(tensors, tmp_path / "c.gguf", "Q4_0")
    blocks = weights.of(gguf.read(tmp_path / "c.gguf"), "transformer")
    assert blocks == Weights(packed_bytes=512 * 18 // 32, others=8 + 256)
    vae = weights.of(safetensors.read(tmp_path / "a.safetensors"), "vae")
    assert vae == Weights(others=512 + 8 + 256)


async def test_a_gguf_file_is_known_by_its_tensors(daemon: Daemon, tmp_path: Path) -> None:
    """It is a transformer alone, so what is said is which parts it wants."""
    tensors = {name: torch.zeros([side or 32 for side in shape]) for name, shape in KINDS["flux-dev-bare"].items()}
    packed_files.write_gguf(tensors, tmp_path / "flux1-dev-Q8_0.gguf", "Q8_0")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _add(daemon, tmp_path / "flux1-dev-Q8_0.gguf")
    assert reason(refused.value) == "UNSUPPORTED_MODEL"
    assert "CLIP-L" in str(refused.value.details()) and "flux" in str(refused.value.details()).lower()
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _add(daemon, tmp_path / "bad.gguf")
    assert reason(refused.value) == "CORRUPT_FILE"
