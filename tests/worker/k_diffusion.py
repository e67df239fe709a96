"""Karras-style samplers in the terms of their papers, as plain loops over a denoiser: what ours are compared to.

They are written with the half log signal-to-noise ratio, t = -log(level), from the formulas alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

Denoiser = Callable[[torch.Tensor, float], torch.Tensor]
Noise = Callable[[], torch.Tensor]
Loop = Callable[[Denoiser, torch.Tensor, Sequence[float], Noise], torch.Tensor]


def _t(level: float) -> float:
    return -math.log(level)


def _sigma(t: float) -> float:
    return math.exp(-t)


def _split(level: float, following: float) -> tuple[float, float]:
    """Ancestral: down, up."""
    up = following * math.sqrt(1 - (following / level) ** 2)
    return following**2 / level, up


def dpmpp_2s_a(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    for level, following in pairwise(levels):
        first = model(x, level)
        down, up = _split(level, following)
        if following == 0:
            return first
        h = _t(down) - _t(level)
        middle = _sigma(_t(level) + h / 2)
        second = model(middle / level * x - math.expm1(-h / 2) * first, middle)
        x = down / level * x - math.expm1(-h) * second + up * noise()
    return x


def dpmpp_sde(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    for level, following in pairwise(levels):
        first = model(x, level)
        if following == 0:
            return first
        middle = _sigma((_t(level) + _t(following)) / 2)
        way = [noise() * math.sqrt(level - middle), noise() * math.sqrt(middle - following)]  # of a Brownian path
        down, up = _split(level, middle)
        halfway = down / level * x - math.expm1(_t(level) - _t(down)) * first + up * way[0] / math.sqrt(level - middle)
        second = model(halfway, middle)
        down, up = _split(level, following)
        moved = up * sum(way) / math.sqrt(level - following)
        x = down / level * x - math.expm1(_t(level) - _t(down)) * second + moved
    return x


def dpmpp_3m_sde(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    said: list[torch.Tensor] = []
    widths: list[float] = []
    for level, following in pairwise(levels):
        said.append(model(x, level))
        if following == 0:
            return said[-1]
        h = _t(following) - _t(level)
        x = math.exp(-2 * h) * x - math.expm1(-2 * h) * said[-1]
        phi_2 = math.expm1(-2 * h) / (2 * h) + 1
        phi_3 = phi_2 / (2 * h) - 0.5
        if len(said) == 2:
            x = x + phi_2 * (said[-1] - said[-2]) * h / widths[-1]
        if len(said) > 2:
            r0, r1 = widths[-1] / h, widths[-2] / h
            newer, older = (said[-1] - said[-2]) / r0, (said[-2] - said[-3]) / r1
            x = x + phi_2 * (newer + (newer - older) * r0 / (r0 + r1)) - phi_3 * (newer - older) / (r0 + r1)
        x = x + noise() * following * math.sqrt(-math.expm1(-2 * h))
        widths.append(h)
    return x


def res_multistep(model: Denoiser, x: torch.Tensor, levels: Sequence[float], _noise: Noise) -> torch.Tensor:
    before = None
    for place, (level, following) in enumerate(pairwise(levels)):
        clean = model(x, level)
        if following == 0:
            return clean
        if before is None:
            x = clean + (x - clean) * following / level
        else:
            h = _t(following) - _t(level)
            c2 = (_t(levels[place - 1]) - _t(level)) / h
            phi_1 = math.expm1(-h) / -h
            phi_2 = (phi_1 - 1) / -h
            x = math.exp(-h) * x + h * ((phi_1 - phi_2 / c2) * clean + phi_2 / c2 * before)
        before = clean
    return x


def lcm(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    for level, following in pairwise(levels):
        x = model(x, level)
        if following > 0:
            x = x + following * noise()
    return x


def restart(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    """Restarts from the level nearest to 0.1 back to that nearest to 2: of 20 steps 9, of 36 a quarter twice."""
    steps = len(levels) - 1
    times, back = (0, 0) if steps < 20 else (1, 9) if steps < 36 else (2, steps // 4)
    if times:
        levels = [*_karras(steps - times * back, levels[-2], levels[0]), 0.0]
    nearest = [min(levels, key=lambda level: abs(level - wanted)) for wanted in (0.1, 2)]
    for level, following in pairwise(levels):
        x = _heun(model, x, level, following)
        if times and following == nearest[0]:
            for _ in range(times):
                x = x + noise() * math.sqrt(nearest[1] ** 2 - nearest[0] ** 2)
                for higher, lower in pairwise(_karras(back + 1, *nearest)):
                    x = _heun(model, x, higher, lower)
    return x


def _karras(count: int, least: float, most: float) -> list[float]:
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    return [float(one) for one in (most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))) ** 7]


def _heun(model: Denoiser, x: torch.Tensor, level: float, following: float) -> torch.Tensor:
    slope = (x - model(x, level)) / level
    there = x + (following - level) * slope
    if following == 0:
        return there
    return x + (following - level) * (slope + (there - model(there, following)) / following) / 2


class DpmSolver:
    """Lu et al. 2022, algorithms 1 to 3, over predictions of the noise."""

    def __init__(self, model: Denoiser) -> None:
        self._model = model

    def _eps(self, x: torch.Tensor, t: float) -> torch.Tensor:
        return (x - self._model(x, _sigma(t))) / _sigma(t)

    def first(self, x: torch.Tensor, t: float, to: float) -> torch.Tensor:
        return x - _sigma(to) * math.expm1(to - t) * self._eps(x, t)

    def second(self, x: torch.Tensor, t: float, to: float, r: float) -> torch.Tensor:
        at, h, eps = t + r * (to - t), to - t, self._eps(x, t)
        bend = self._eps(x - _sigma(at) * math.expm1(r * h) * eps, at) - eps
        return x - _sigma(to) * math.expm1(h) * eps - _sigma(to) / (2 * r) * math.expm1(h) * bend

    def third(self, x: torch.Tensor, t: float, to: float) -> torch.Tensor:
        h, eps, r1, r2 = to - t, self._eps(x, t), 1 / 3, 2 / 3
        s1, s2 = t + r1 * h, t + r2 * h
        bend = self._eps(x - _sigma(s1) * math.expm1(r1 * h) * eps, s1) - eps
        ahead = x - _sigma(s2) * math.expm1(r2 * h) * eps
        ahead = ahead - _sigma(s2) * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1) * bend
        other = self._eps(ahead, s2) - eps
        return x - _sigma(to) * math.expm1(h) * eps - _sigma(to) / r2 * (math.expm1(h) / h - 1) * other


def dpm_fast(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    """`levels` end in the least one."""
    solver, calls = DpmSolver(model), len(levels) - 1
    segments = calls // 3 + 1
    orders = [3] * (segments - 2) + [2, 1] if calls % 3 == 0 else [3] * (segments - 1) + [calls % 3]
    ts = [float(one) for one in torch.linspace(_t(levels[0]), _t(levels[-1]), segments + 1, dtype=torch.float64)]
    for order, (t, to) in zip(orders, pairwise(ts), strict=True):
        down, up = _noisy(t, to, ts[-1])
        if order == 1:
            x = solver.first(x, t, down)
        else:
            x = solver.second(x, t, down, 1 / 2) if order == 2 else solver.third(x, t, down)
        x = x + up * noise()
    return x


def dpm_adaptive(model: Denoiser, x: torch.Tensor, levels: Sequence[float], noise: Noise) -> torch.Tensor:
    """Order 3, relative tolerance 0.05, absolute 0.0078, an integral controller."""
    solver, t, end, h = DpmSolver(model), _t(levels[0]), _t(levels[-1]), 0.05
    before = x
    while t < end - 1e-5:
        to = min(end, t + h)
        down, up = _noisy(t, to, end)
        low, high = solver.second(x, t, down, 1 / 3), solver.third(x, t, down)
        allowed = torch.maximum(0.05 * torch.maximum(low.abs(), before.abs()), torch.tensor(0.0078))
        error = float(((low - high) / allowed).pow(2).mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / 1.5) - 1)
        h *= factor
        if factor >= 0.81:
            before, x, t = low, high + up * noise(), to
    return x


def _noisy(t: float, to: float, end: float) -> tuple[float, float]:
    """Where to step to, and how much noise there is added."""
    down = min(end, _t(_split(_sigma(t), _sigma(to))[0]))
    return down, math.sqrt(max(_sigma(to) ** 2 - _sigma(down) ** 2, 0))


LOOPS: dict[str, Loop] = {
    "DPM++ 2S a": dpmpp_2s_a,
    "K DPM++ SDE": dpmpp_sde,
    "K DPM++ 3M SDE": dpmpp_3m_sde,
    "RES multistep": res_multistep,
    "Restart": restart,
    "LCM": lcm,
    "DPM fast": dpm_fast,
    "DPM adaptive": dpm_adaptive,
}


def kl_optimal(count: int, least: float, most: float) -> Any:
    return torch.linspace(math.atan(most), math.atan(least), count, dtype=torch.float64).tan().numpy()
