"""Learning rates step by step: schedules by their formulas, the text encoder's own; and optimizers that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from craft_protos.train import SCHEDULES
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tests.worker.trained import Desk, ask, refusal

STEPS, WARMUP, RATE, CYCLES, POWER = 10, 2, 1e-3, 2, 3.0
_LAST = 1e-7  # of a polynomial
# Of a share of the steps after the warm-up -> of the learning rate.
FORMULAS: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "cosine_with_restarts": lambda done: (1 + math.cos(math.pi * (CYCLES * done % 1))) / 2,
    "polynomial": lambda done: (_LAST + (RATE - _LAST) * (1 - done) ** POWER) / RATE,
}


def _rates(pipe: Any, folder: Path, **how: Any) -> list[list[float]]:
    """Those of the optimizer's groups, at each step."""
    return [[group["lr"] for group in groups] for groups in _groups(pipe, folder, **how)]


def _groups(pipe: Any, folder: Path, **how: Any) -> list[list[dict[str, Any]]]:
    """The optimizer's groups without their parameters, at each step."""
    found: list[list[dict[str, Any]]] = []

    def note(optimizer: Any, *_: Any) -> None:
        found.append(
            [{name: value for name, value in one.items() if name != "params"} for one in optimizer.param_groups]
        )

    handle = register_optimizer_step_pre_hook(note)
    try:
        Desk(folder, folder).train(ask(folder, steps=STEPS, learning_rate=RATE, **how), pipe)
    finally:
        handle.remove()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_schedule_follows_its_formula(pipelines: Callable[[str], Any], tmp_path: Path, schedule: str) -> None:
    how: dict[str, Any] = {
        "cosine_with_restarts": {"schedule_restarts": CYCLES},
        "polynomial": {"schedule_power": POWER},
    }
    chosen = {"learning_rate_schedule": schedule, "warmup_steps": WARMUP} | how.get(schedule, {})
    found = _rates(pipelines("sd"), tmp_path, **chosen)
    warming = [step / WARMUP for step in range(WARMUP)]
    after = [FORMULAS[schedule](step / (STEPS - WARMUP)) for step in range(STEPS - WARMUP)]
    assert [rate for (rate,) in found] == pytest.approx([RATE * share for share in (*warming, *after)])


def test_the_text_encoder_learns_at_its_own_rate(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    how = {"train_text_encoder": True, "text_encoder_rate": RATE / 4, "learning_rate_schedule": "linear"}
    found = _rates(pipelines("sd"), tmp_path, **how)
    assert all(text == pytest.approx(own / 4) for own, text in found) and found[0][0] == pytest.approx(RATE)


def test_what_needs_a_gpu_is_refused_elsewhere(pipelines: Callable[[str], Any], tmp_path: Path) -> None:
    error = refusal(Desk(tmp_path, tmp_path), ask(tmp_path, optimizer="adamw8bit"), pipelines("sd"))
    assert (error.reason, error.field) == ("INVALID_FIELD", "optimizer") and "CUDA" in error.message


@pytest.mark.parametrize(
    ("optimizer", "given", "meant"),
    [
        (
            "adamw",
            ("betas=0.8,0.9", "weight_decay=0.3", "eps=1e-6"),
            {"betas": (0.8, 0.9), "weight_decay": 0.3, "eps": 1e-6},
        ),
        ("prodigy", ("d_coef=2", "use_bias_correction=true"), {"d_coef": 2.0, "use_bias_correction": True}),
        ("lion", ("betas=0.8,0.9",), {"betas": (0.8, 0.9)}),
        ("came", ("betas=0.8,0.9,0.95",), {"betas": (0.8, 0.9, 0.95)}),
        ("adafactor", ("clip_threshold=0.5",), {"clip_threshold": 0.5}),
        ("schedule-free", ("r=1",), {"r": 1.0}),
    ],
)
def test_what_is_given_reaches_the_librarys_optimizer(
    pipelines: Callable[[str], Any], tmp_path: Path, optimizer: str, given: tuple[str, ...], meant: dict[str, Any]
) -> None:
    groups = _groups(pipelines("sd"), tmp_path, optimizer=optimizer, optimizer_args=given)
    assert len(groups) == STEPS and all(meant.items() <= one.items() for one in groups[0])
