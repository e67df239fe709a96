"""A plan says what would be unloaded; it must be what the worker's own policy does."""

from __future__ import annotations

from pathlib import Path

from craft_protos.config import WorkerSettings
from craft_protos.worker_pb2 import FromWorker
from craftd.models import eviction
from craftd.models.eviction import Held
from craftd.models.model import Defaults, Model, ModelFile
from craftd.models.residency import Residency
from craftd.supervisor.interface import Worker
from craftd.supervisor.supervisor import Supervisor, Vitals
from craftd.worker import memory
from hypothesis import given
from hypothesis import strategies as st

GB = 10**9


@given(st.lists(st.integers(1, 20), max_size=5), st.integers(1, 30), st.integers(1, 60))
def test_idle_models_leave_as_the_worker_has_it(sizes: list[int], need: int, device: int) -> None:
    held = [Held(str(number), size * GB, number, is_idle=True) for number, size in enumerate(sizes)]
    theirs = [memory.Resident((one.name, ""), one.resident_bytes, int(one.last_used), is_idle=True) for one in held]
    leaving = memory.to_evict(theirs, need * GB, memory.budget_bytes(device * GB))
    leave = theirs if leaving is None else leaving  # the worker's last resort: it may fit though the estimate says no
    assert eviction.foretell(held, need * GB, device * GB) == tuple(one.key[0] for one in leave)


def test_busy_models_stay_while_idle_ones_make_room() -> None:
    held = [Held("busy", 4 * GB, 1, is_idle=False), Held("idle", 4 * GB, 2, is_idle=True)]
    assert eviction.foretell(held, 4 * GB, 10 * GB) == ("idle",)
    assert eviction.foretell(held, 7 * GB, 10 * GB) == ("busy", "idle")


def test_weights_grow_with_the_precision_they_are_computed_in() -> None:
    assert eviction.weights_bytes(100, "fp16", "fp32") == 200
    assert eviction.weights_bytes(100, "bf16", "fp16") == 100
    assert eviction.weights_bytes(100, "", "fp32") == 100


def test_a_plan_follows_what_the_worker_told() -> None:
    async def nobody() -> Worker:
        raise OSError("no worker in this test")

    supervisor = Supervisor(nobody, WorkerSettings())
    residency = Residency(supervisor, 300.0)
    assert residency.evicted_by(_model("new", 2 * GB)) == ()
    supervisor.vitals = Vitals(1, FromWorker.Hello(device_bytes=10 * GB, precision="fp32"))
    for name, resident in (("first", 3 * GB), ("second", 4 * GB)):
        residency.on_frame(FromWorker(loaded=FromWorker.Loaded(model=name, resident_bytes=resident)))
    assert residency.evicted_by(_model("new", GB // 4)) == ()
    assert residency.evicted_by(_model("new", 2 * GB)) == ("first",)
    residency.acquire("first")
    assert residency.evicted_by(_model("new", 2 * GB)) == ("second",)
    assert residency.evicted_by(_model("first", 2 * GB)) == ()


def _model(name: str, size_bytes: int) -> Model:
    """Its weights are fp16; the worker computes in fp32."""
    file = ModelFile("unet/diffusion_pytorch_model.safetensors", Path("unused"), size_bytes)
    defaults = Defaults(512, 512, 20, 7.5, "Euler")
    return Model(name, Path("unused"), "sd", "StableDiffusionPipeline", 8, defaults, (file,), precision="fp16")
