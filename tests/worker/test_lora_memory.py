"""What a batch of many LoRAs gathers from the slots is counted, and kept within its limit."""

from __future__ import annotations

import itertools
import queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from craft_protos.codec import from_message
from craft_protos.dispatch import Dispatch
from craft_protos.lora_strength import Strength
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.engine.denoiser import Denoiser
from craftd.worker.lora.adapter import Adapter, Delta, Facts
from craftd.worker.lora.layers import AdaptedLayer, Gathered, Stack
from craftd.worker.lora.reader import Reader
from craftd.worker.lora.slots import Limits, Slots, Use
from craftd.worker.lora.targets import own_layers
from craftd.worker.models import memory
from craftd.worker.models.loader import Loader
from craftd.worker.process.device import Device
from torch import nn

from tests.home import HANG_S
from tests.worker.fakes import FakeRunner, Studio, draw
from tests.worker.loras import Make, submit_with

CPU = torch.device("cpu")
RANK = 16
INPUTS, OUTPUTS, NARROW = 40, 24, 8
WIDE_BYTES = RANK * (INPUTS + OUTPUTS) * 4  # one LoRA's matrices of a layer, in fp32
NARROW_BYTES = RANK * (NARROW + OUTPUTS) * 4
NO_ROOM = (torch.OutOfMemoryError("no room"), RuntimeError("DefaultCPUAllocator: no room"))


def _slots(limits: Limits) -> Slots:
    layers = {"wide": nn.Linear(INPUTS, OUTPUTS), "narrow": nn.Linear(NARROW, OUTPUTS)}
    network = nn.ModuleDict(layers)
    targets: Any = SimpleNamespace(components={"unet": network}, layers={"unet": own_layers(network)})
    return Slots(targets, CPU, limits)


def _placed(slots: Slots, name: str, *, rank: int = RANK) -> Use:
    """A LoRA of both layers, held by a row."""
    sides = {"wide": INPUTS, "narrow": NARROW}
    deltas = {path: Delta(torch.ones(4, side), torch.ones(OUTPUTS, 4), 1.0) for path, side in sides.items()}
    assert slots.place(Adapter(Facts(name, name, 4, 4, {}, rank, False), {"unet": deltas}), kept=set())
    return slots.pin(name, Strength(1.0))


def test_rows_of_their_own_loras_are_counted_by_rank_layers_rows_and_dtype() -> None:
    slots = _slots(Limits())
    a, b, c = (_placed(slots, name) for name in "abc")
    assert slots.call_bytes("unet", [[a], [b]]) == 2 * (2 * WIDE_BYTES + NARROW_BYTES)
    assert slots.call_bytes("unet", [[a, b, c], []]) == 2 * 4 * (2 * WIDE_BYTES + NARROW_BYTES)  # three take four slots
    assert slots.call_bytes("unet", [[a], [a]]) == 0  # where they lie
    d = _placed(slots, "d", rank=2 * RANK)
    assert slots.call_bytes("unet", [[a], [d]]) == 3 * 2 * (2 * WIDE_BYTES + NARROW_BYTES)  # both buckets, both rows


def test_what_stays_gathered_is_part_of_the_models_memory_until_no_row_has_a_lora() -> None:
    slots = _slots(Limits())
    a, b = _placed(slots, "a"), _placed(slots, "b")
    before = slots.size_bytes
    with slots.applied("unet", [[a], [b], [a]]):
        pass
    assert slots.size_bytes - before == 3 * (WIDE_BYTES + NARROW_BYTES)
    slots.unpin("a")
    assert slots.size_bytes > before
    slots.unpin("b")
    assert slots.size_bytes == before


def test_one_lora_for_all_rows_takes_nothing_and_two_take_one_rows() -> None:
    slots = _slots(Limits())
    a, b = _placed(slots, "a"), _placed(slots, "b")
    before = slots.size_bytes
    with slots.applied("unet", [[a], [a], [a]]):
        assert slots.size_bytes == before
    with slots.applied("unet", [[a, b], [a, b], [a, b]]):
        assert slots.size_bytes - before == 2 * (WIDE_BYTES + NARROW_BYTES)


def test_what_is_too_much_to_be_kept_is_gathered_layer_by_layer() -> None:
    slots = _slots(Limits(gathered_bytes=5 * WIDE_BYTES))
    a, b = _placed(slots, "a"), _placed(slots, "b")
    assert slots.call_bytes("unet", [[a], [b]]) == 2 * (2 * WIDE_BYTES + NARROW_BYTES)
    assert slots.call_bytes("unet", [[a], [b], [a]]) == 2 * 3 * WIDE_BYTES
    before = slots.size_bytes
    with slots.applied("unet", [[a], [b], [a]]):
        assert slots.size_bytes == before


def test_the_gathered_leaves_less_for_more_slots() -> None:
    """An idle LoRA makes way where twice the slots and what is gathered are over the limit."""
    held = 2 * (WIDE_BYTES + NARROW_BYTES)  # a bucket's first size: one slot, and the empty one
    for gathers, expected in ((False, 2), (True, 1)):
        slots = _slots(Limits(slots_bytes=2 * held + 1))
        a = _placed(slots, "a")
        if gathers:
            with slots.applied("unet", [[a], []]):
                pass
        slots._pins.clear()  # idle, and what was gathered is still there
        _placed(slots, "b")
        assert len(slots) == expected


def test_short_of_memory_a_bucket_grows_by_what_is_asked_for_alone() -> None:
    def held(limits: Limits) -> int:
        slots = _slots(limits)
        for name in "abcde":
            _placed(slots, name)
        return slots.size_bytes // (WIDE_BYTES + NARROW_BYTES)

    assert held(Limits()) == 9  # twice as many each time, and the empty one
    assert held(Limits(slots_bytes=4 * (WIDE_BYTES + NARROW_BYTES))) == 6


@pytest.mark.parametrize("error", NO_ROOM, ids=["cuda", "cpu"])
@pytest.mark.parametrize("fails", ["grow", "put"])
def test_a_slot_is_not_lost_where_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch, fails: str, error: Exception
) -> None:
    slots = _slots(Limits())
    _placed(slots, "a")
    own, calls = getattr(Stack, fails), itertools.count()

    def second_fails(*given: Any) -> None:
        if next(calls) == 1:
            raise error
        own(*given)

    monkeypatch.setattr(Stack, fails, second_fails)
    with pytest.raises(memory.OUT_OF_MEMORY):
        _placed(slots, "b")
    before = slots.size_bytes
    b = _placed(slots, "b")
    assert (len(slots), b.slot) == (2, 2)
    assert slots.size_bytes == before if fails == "put" else slots.size_bytes > before


@pytest.mark.parametrize("failing", [0, 1])
def test_what_is_drawn_after_memory_ran_out_has_no_lora_of_before(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    slots = _slots(Limits())
    a, b = _placed(slots, "a"), _placed(slots, "b")
    layers = {name: layer.module for name, layer in slots._targets.layers["unet"].items()}
    given = {name: torch.ones(2, layer.in_features) for name, layer in layers.items()}
    before = {name: layer(given[name]) for name, layer in layers.items()}
    gathered, calls = AdaptedLayer.gathered, itertools.count()

    def one_fails(*given: Any) -> Gathered:
        if next(calls) == failing:
            raise torch.OutOfMemoryError("no room")
        return gathered(*given)

    with monkeypatch.context() as patched:
        patched.setattr(AdaptedLayer, "gathered", one_fails)
        with pytest.raises(torch.OutOfMemoryError), slots.applied("unet", [[a], [b]]):
            pass
    with slots.applied("unet", [[], []]):
        assert all(torch.equal(layer(given[name]), before[name]) for name, layer in layers.items())
    with slots.applied("unet", [[a], [b]]):
        assert not any(torch.equal(layer(given[name]), before[name]) for name, layer in layers.items())


@pytest.mark.parametrize("error", NO_ROOM, ids=["cuda", "cpu"])
def test_a_lora_is_not_called_corrupt_where_memory_runs_out(tmp_path: Path, error: Exception) -> None:
    def work() -> None:
        raise error

    failed = Reader(tmp_path, lambda _: None).start("it", work).exception(timeout=HANG_S)
    assert isinstance(failed, CraftError)
    assert failed.reason == "OUT_OF_MEMORY"


def test_rows_that_do_not_fit_take_turns() -> None:
    class Small(FakeRunner):
        def that_fit(self, drawings: Any) -> int:
            return min(2, len(drawings))

    runner = Small()
    Studio({"fake": runner}).run(*(draw(name, steps=2) for name in "abc"))
    assert runner.batches == [["a", "b"], ["c", "a"], ["b", "c"]]


def test_a_model_counts_its_rows(files: Path, tmp_path: Path, sd: ModelManifest, make: Make) -> None:
    """Those with guidance twice; a row alone always fits, and so do rows of one LoRA."""
    loras = [make("sd", f"counted{i}", seed=190 + i) for i in range(3)]
    sent = [submit_with(sd, [(lora, 1.0)], f"job{i}") for i, lora in enumerate(loras)]
    draws = [from_message(Dispatch, frame.dispatch) for frame in sent]
    runner = _loaded(draws, files, tmp_path)
    drawings = [runner.begin(one, one.drawing.seed, {}) for one in draws]
    slots = runner._adapters._slots
    row_bytes = 2 * 2 * slots._bytes_of_slot("unet", RANK).largest
    for room, expected in ((0, 1), (1, 1), (2, 2), (3, 3)):
        slots._limits = Limits(gathered_bytes=room * row_bytes)
        assert runner.that_fit(drawings) == expected
        assert runner.that_fit([drawings[0]] * 3) == 3
    runner.close()


def _loaded(draws: list[Dispatch], files: Path, work_folder: Path) -> Denoiser:
    """With the LoRAs of these."""
    read: queue.Queue[object] = queue.Queue()
    device = Device(CPU, "one of a test", 1 << 40, "fp32")
    loader = Loader(files, work_folder, device, Reader(files, read.put))
    runner = loader.load(draws[0].model, lambda _: None)
    assert isinstance(runner, Denoiser)
    assert not runner.want(draws)
    for _ in draws:
        read.get(timeout=HANG_S)
    assert not runner.want(draws)
    assert all(runner.is_ready(one) for one in draws)
    return runner
