"""A long computation shows that it gets on, block by block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from craft_protos.worker_pb2 import FromWorker
from craftd.worker.engine.progress_hooks import ProgressHooks
from craftd.worker.process.heartbeat import Heartbeat
from craftd.worker.process.reporter import Reporter
from torch import nn


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


def _watched() -> tuple[ProgressHooks, Network]:
    hooks, network = ProgressHooks(), Network()
    hooks.watch(SimpleNamespace(components={"unet": network, "scheduler": object(), "vae": None}))
    return hooks, network


def test_blocks_in_lists_and_the_whole_are_counted_and_change_nothing() -> None:
    hooks, network = _watched()
    x = torch.ones(1, 2)
    plain = network.layers[1].forward(network.layers[0].forward(network.first.forward(x)))
    assert torch.equal(network(x), plain)
    assert hooks.blocks == 3


def test_a_long_call_sends_a_rising_count_every_second() -> None:
    hooks, network = _watched()
    told: list[FromWorker.Stats] = []
    now = [0.0]
    engine = SimpleNamespace(doing="step", predict_calls=1, rows=1, progress=7)
    device = SimpleNamespace(used_bytes=lambda: 0)
    reporter = SimpleNamespace(stats=told.append)
    heartbeat = Heartbeat(cast(Any, engine), cast(Any, device), cast(Reporter, reporter), hooks, lambda: now[0])
    heartbeat.beat()
    for now[0] in (0.4, 0.8, 1.2, 1.6, 2.4):
        network(torch.ones(1, 2))
    assert [stats.progress for stats in told] == [7, 7 + 7, 7 + 13]
