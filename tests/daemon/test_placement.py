"""Where jobs go, and which workers there are. Numbers in, numbers out: no process runs here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from craft_protos.settings import WorkerSettings
from craftd.scheduler.placement import Choice, Place, Times, choose
from craftd.workers.devices import seats

IDLE = Place(starts_in_s=0, has_model=False, lacking_loras=0, rows=0, is_training=False, evicts=False, last_used=0)
HOLDER = replace(IDLE, has_model=True)
TIMES = Times(load_s=20, image_s=2)


@pytest.mark.parametrize(
    ("places", "index", "why"),
    [
        ([IDLE, HOLDER], 1, "all that it needs is there"),
        ([replace(HOLDER, lacking_loras=1), HOLDER], 1, "all that it needs is there"),
        ([replace(HOLDER, lacking_loras=2), replace(HOLDER, rows=4)], 0, "its model is there"),
        ([replace(HOLDER, rows=4), replace(HOLDER, rows=3)], 1, "all that it needs is there"),
        ([IDLE, replace(HOLDER, rows=9)], 1, "all that it needs is there"),  # 18 s there, 20 s to load
        (
            [IDLE, replace(HOLDER, rows=12)],
            0,
            "where its model is, it would wait 24 s: loading it anew is quicker",
        ),
        ([replace(IDLE, starts_in_s=10), replace(HOLDER, rows=12)], 1, "all that it needs is there"),
        ([replace(IDLE, evicts=True), IDLE], 1, "its model is nowhere yet"),
        ([replace(IDLE, evicts=True)], 0, "its model is nowhere, and another goes for it here"),
        (
            [replace(HOLDER, is_training=True), IDLE],
            1,
            "where its model is, it would wait 30 s: loading it anew is quicker",
        ),
        ([replace(IDLE, last_used=5), replace(IDLE, last_used=3)], 1, "its model is nowhere yet"),
        ([replace(IDLE, starts_in_s=float("inf")), replace(HOLDER, rows=500)], 1, "all that it needs is there"),
    ],
)
def test_a_job_goes_where_it_is_done_soonest(places: list[Place], index: int, why: str) -> None:
    assert choose(places, TIMES) == Choice(index, why)


@pytest.mark.parametrize(
    ("devices", "device", "gpus", "names"),
    [
        ("auto", "auto", 0, [""]),
        ("auto", "auto", 1, [""]),
        ("auto", "auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("auto", "cuda:1", 3, [""]),
        ("cpu*2", "auto", 4, ["cpu-1", "cpu-2"]),
        ("cuda:0,cuda:1, cpu", "auto", 0, ["cuda:0", "cuda:1", "cpu"]),
        ("cuda:0*2,cuda:1", "auto", 0, ["cuda:0-1", "cuda:0-2", "cuda:1"]),
    ],
)
def test_the_devices_that_are_asked_for(devices: str, device: str, gpus: int, names: list[str]) -> None:
    made = seats(WorkerSettings(device=device, devices=devices), lambda: gpus)
    assert [seat.name for seat in made] == names
    assert all(seat.settings.device == (seat.name.split("-")[0] or device) for seat in made)


def test_workers_that_share_a_device_share_its_memory_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    shared = seats(WorkerSettings(devices="cpu*3"))
    assert [(seat.sharing, seat.settings.threads) for seat in shared] == [(3, 2)] * 3
    assert seats(WorkerSettings(devices="cpu*3", threads=5))[0].settings.threads == 5
    assert seats(WorkerSettings(devices="cpu"))[0].settings.threads == 0


@pytest.mark.parametrize("visible", ["", "0", "0,2", "-1"])
def test_gpus_that_are_hidden_are_not_counted(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    count = len([one for one in visible.split(",") if one and one != "-1"])
    assert len(seats(WorkerSettings())) == max(1, count)
