"""A plan says what would be unloaded; it must be what the worker's own policy does."""

from __future__ import annotations

from pathlib import Path

from craft_protos.settings import WorkerSettings
from craft_protos.worker_pb2 import FromWorker
from craftd import eviction
from craftd.architectures.rows.unets import SD1
from craftd.architectures.sizes import Sizes
from craftd.eviction import Resident
from craftd.models.model import Defaults, Model, ModelFile
from craftd.weights import Weights
from craftd.workers.connection import Connection
from craftd.workers.handle import Vitals, WorkerHandle
from hypothesis import given
from hypothesis import strategies as st

GB = 10**9


@given(st.lists(st.integers(1, 20), max_size=5), st.integers(1, 30), st.integers(1, 60))
def test_idle_models_leave_as_the_worker_has_it(sizes: list[int], need: int, device: int) -> None:
    held = [Resident((str(number), ""), size * GB, number, is_idle=True) for number, size in enumerate(sizes)]
    leaving = eviction.to_evict(held, need * GB, eviction.budget_bytes(device * GB))
    leave = held if leaving is None else leaving  # the worker's last resort: it may fit though the estimate says no
    assert eviction.foretell(held, need * GB, eviction.budget_bytes(device * GB)) == tuple(one.key[0] for one in leave)


def test_busy_models_stay_while_idle_ones_make_room() -> None:
    held = [Resident(("busy", ""), 4 * GB, 1, is_idle=False), Resident(("idle", ""), 4 * GB, 2, is_idle=True)]
    assert eviction.foretell(held, 4 * GB, 8 * GB) == ("idle",)
    assert eviction.foretell(held, 7 * GB, 8 * GB) == ("busy", "idle")


def test_weights_take_what_they_are_kept_in() -> None:
    weights = Weights(packed_bytes=7, layers=100, others=10)
    assert weights.resident_bytes("fp32", "") == 7 + 440
    assert weights.resident_bytes("fp16", "") == weights.resident_bytes("fp32", "bf16") == 7 + 220
    assert weights.resident_bytes("bf16", "fp8") == weights.resident_bytes("bf16", "int8") == 7 + 100 + 20


def test_a_plan_follows_what_the_worker_told() -> None:
    async def nobody() -> Connection:
        raise OSError("no worker in this test")

    worker = WorkerHandle(nobody, WorkerSettings())
    residency = worker.residency
    assert residency.evicted_by(_model("new", 2 * GB)) == ()
    worker.vitals = Vitals(1, FromWorker.Hello(device_bytes=10 * GB, precision="fp32"))
    for name, resident in (("first", 3 * GB), ("second", 4 * GB)):
        residency.on_frame(worker, FromWorker(loaded=FromWorker.Loaded(model=name, resident_bytes=resident)))
    assert residency.evicted_by(_model("new", GB // 4)) == ()
    assert residency.evicted_by(_model("new", 2 * GB)) == ("first",)
    residency.acquire("first")
    assert residency.evicted_by(_model("new", 2 * GB)) == ("second",)
    assert residency.evicted_by(_model("first", 2 * GB)) == ()


def _model(name: str, size_bytes: int) -> Model:
    """Its weights are fp16; the worker computes in fp32."""
    file = ModelFile("unet/diffusion_pytorch_model.safetensors", Path("unused"), size_bytes)
    held = {"precision": "fp16", "weights": Weights(layers=size_bytes // 2)}
    defaults = Defaults(512, 512, 20, 7.5, "Euler")
    return Model(name, Path("unused"), SD1, "StableDiffusionPipeline", Sizes(8), defaults, (file,), **held)
