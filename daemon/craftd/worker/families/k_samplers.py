"""Samplers that diffusers lacks, as k-diffusion, AUTOMATIC1111 and ComfyUI have them: each asks for model calls.

Each is a generator: it yields (latents, noise level), is sent what the model says there, and returns the last
latents. Latents are clean ones plus noise times its level (Karras et al. 2022). The first yield's latents are None:
the row has them. Levels are given from the highest down, and end in nought.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from craft_protos.reasons import CraftError

Latents = Any  # a tensor; a number where a plan is made without a model
Noise = Callable[[], Latents]  # of deviation one, from the row's own generator

_MOST_ADAPTIVE_CALLS = 600
_NEAR_ENOUGH = 0.81  # of what the error allows, for a step to be taken
_LOW_RESTART, _HIGH_RESTART = 0.1, 2.0  # noise levels
_RESTARTS_FROM, _TWO_RESTARTS_FROM, _RESTART_STEPS = 20, 36, 9  # steps
CFG_PP_SHARE = 1 / 12.5  # of the guidance scale: AUTOMATIC1111's, so that the usual ones can stay as they are


class Seen(NamedTuple):
    """What a model call was given and what it said."""

    latents: Latents
    clean: Latents
    unguided: Latents = None  # clean latents by the negative prompt alone, for those that ask for them


Sampling = Generator[tuple[Latents, float], Seen, Latents]
Sampler = Callable[[Sequence[float], Noise], Sampling]


def dpmpp_2s_ancestral(levels: Sequence[float], noise: Noise) -> Sampling:
    """DPM-Solver++(2S) to a level below the next one, then noise up to that."""
    x = None
    for level, following in pairwise(levels):
        x, clean, _ = yield x, level
        down, up = _ancestral(level, following)
        if down == 0:
            x = clean
        else:
            middle = math.sqrt(level * down)
            seen = yield _towards(clean, x, middle / level), middle
            x = _towards(seen.clean, x, down / level)
        if following > 0:
            x = x + noise() * up
    return x


def dpmpp_sde(levels: Sequence[float], noise: Noise) -> Sampling:
    """DPM-Solver++ with noise, by a call halfway: both parts of a step follow one Brownian path over the levels."""
    x = None
    for level, following in pairwise(levels):
        x, clean, _ = yield x, level
        if following == 0:
            x = clean
            continue
        middle = math.sqrt(level * following)
        first = noise()
        down, up = _ancestral(level, middle)
        seen = yield _towards(clean, x, down / level) + first * up, middle
        path = first * math.sqrt(level - middle) + noise() * math.sqrt(middle - following)
        down, up = _ancestral(level, following)
        x = _towards(seen.clean, x, down / level) + path * (up / math.sqrt(level - following))
    return x


def dpmpp_3m_sde(levels: Sequence[float], noise: Noise) -> Sampling:
    """DPM-Solver++(3M) with noise: third-order exponential steps over the last three calls, as k-diffusion has it."""
    x = None
    before: list[tuple[Latents, float]] = []  # clean latents and the width of the step from there, the last one first
    for level, following in pairwise(levels):
        x, clean, _ = yield x, level
        if following == 0:
            return clean
        width = math.log(level / following)
        linear = 1 - (1 - math.exp(-2 * width)) / (2 * width)
        x = _towards(clean, x, math.exp(-2 * width))
        if before:
            one, ratio = before[0][0], before[0][1] / width
            slope = (clean - one) / ratio
            if len(before) == 2:
                other = before[1][1] / width
                bend = (slope - (one - before[1][0]) / other) / (ratio + other)
                x = x + linear * ratio * bend - (linear / (2 * width) - 0.5) * bend
            x = x + linear * slope
        x = x + noise() * following * math.sqrt(1 - math.exp(-2 * width))
        before = [(clean, width), *before[:1]]
    return x


def res_multistep(levels: Sequence[float], _noise: Noise) -> Sampling:
    """Second-order exponential steps over the last two calls (Zhang et al. 2023), as ComfyUI's res_multistep."""
    x, before, last = None, None, 0.0
    for level, following in pairwise(levels):
        x, clean, _ = yield x, level
        if following == 0 or before is None:
            x = _towards(clean, x, following / level)
        else:
            width = math.log(level / following)
            ratio = math.log(level / last) / width
            first = -math.expm1(-width) / width
            second = (1 - first) / width
            x = following / level * x + width * ((first - second / ratio) * clean + second / ratio * before)
        before, last = clean, level
    return x


def ddim_cfg_pp(levels: Sequence[float], _noise: Noise) -> Sampling:
    """DDIM whose noise is predicted without guidance (Chung et al. 2024, algorithm 2)."""
    x = None
    for level, following in pairwise(levels):
        x, guided, unguided = yield x, level
        clean = unguided + CFG_PP_SHARE * (guided - unguided)
        x = clean + following / level * (x - unguided)
    return x


def lcm(levels: Sequence[float], noise: Noise) -> Sampling:
    """What the model makes of it, with noise of the next level (Luo et al. 2023), as ComfyUI's lcm."""
    x = None
    for level, following in pairwise(levels):
        _, clean, _ = yield x, level
        x = clean + noise() * following if following > 0 else clean
    return x


def restart(levels: Sequence[float], noise: Noise) -> Sampling:
    """Heun's steps that go back up between two levels once or twice (Xu et al. 2023), by AUTOMATIC1111's choices."""
    x, last = None, math.inf
    for level, following in restart_steps(levels):
        if level > last:
            x = x + noise() * math.sqrt(level**2 - last**2)
        x, clean, _ = yield x, level
        slope = (x - clean) / level
        if following > 0:
            ahead = x + slope * (following - level)
            seen = yield ahead, following
            slope = (slope + (seen.latents - seen.clean) / following) / 2
        x = x + slope * (following - level)
        last = following
    return x


def restart_steps(levels: Sequence[float]) -> list[tuple[float, float]]:
    """From which level to which; as many as there would be without restarts."""
    steps = len(levels) - 1
    if steps < _RESTARTS_FROM:
        return list(pairwise(levels))
    times, back = (2, steps // 4) if steps >= _TWO_RESTARTS_FROM else (1, _RESTART_STEPS)
    levels = [*karras(steps - back * times, levels[0], levels[-2]), 0.0]
    low = min(range(len(levels)), key=lambda place: abs(levels[place] - _LOW_RESTART))
    high = min(range(len(levels)), key=lambda place: abs(levels[place] - _HIGH_RESTART))
    if low == 0 or high >= low:  # a schedule that has no room for them
        return list(pairwise(levels))
    again = list(pairwise(karras(back + 1, levels[high], levels[low])))
    return [*pairwise(levels[: low + 1]), *again * times, *pairwise(levels[low:])]


def karras(count: int, most: float, least: float) -> list[float]:
    """Levels by Karras et al. (2022), equation 5, with rho 7."""
    ends = most ** (1 / 7), least ** (1 / 7)
    return [(ends[0] + place / max(count - 1, 1) * (ends[1] - ends[0])) ** 7 for place in range(count)]


def dpm_fast(levels: Sequence[float], noise: Noise) -> Sampling:
    """DPM-Solver-fast (Lu et al. 2022) from the first level to the last, in as many calls as there are steps."""
    calls, start, end = len(levels) - 1, levels[0], levels[-1]
    segments = calls // 3 + 1
    orders = [3] * (segments - 2) + [2, 1] if calls % 3 == 0 else [3] * (segments - 1) + [calls % 3]
    x = None
    for place, order in enumerate(orders):
        level, following = (start * (end / start) ** (at / segments) for at in (place, place + 1))
        down, up = _no_lower(end, level, following)
        x, clean, _ = yield x, level
        _, x = yield from _solve(x, (x - clean) / level, level, down, order)
        x = x + noise() * up
    return x


def dpm_adaptive(levels: Sequence[float], noise: Noise) -> Sampling:
    """DPM-Solver-23 (Lu et al. 2022) from the first level to the last: its steps are as long as its error allows.

    Raises JOB_FAILED where it does not come to an end.
    """
    level, end, width = levels[0], levels[-1], 0.05
    x: Latents = None
    before = slope = None
    for _ in range(_MOST_ADAPTIVE_CALLS // 3):
        following = max(end, level * math.exp(-width))
        down, up = _no_lower(end, level, following)
        if slope is None:
            x, clean, _ = yield x, level
            slope = (x - clean) / level
        rough, fine = yield from _solve(x, slope, level, down, 3)
        factor = 1 + math.atan(1 / (_error(rough, fine, x if before is None else before) + 1e-8) ** (2 / 3) - 1)
        width *= factor
        if not factor < _NEAR_ENOUGH:  # one that is no number, too: whoever decodes it says so
            before, x, level, slope = rough, fine + noise() * up, following, None
        if level <= end * (1 + 1e-5):
            return x
    hint = "take less guidance, or a sampler of a fixed number of steps, such as DPM++ 2M"
    raise CraftError("JOB_FAILED", f"DPM adaptive needs more than {_MOST_ADAPTIVE_CALLS} model calls here", hint)


def _error(rough: torch.Tensor, fine: torch.Tensor, before: torch.Tensor) -> float:
    allowed = (0.05 * torch.maximum(rough.abs(), before.abs())).clamp(min=0.0078)
    return float(torch.linalg.vector_norm((rough - fine) / allowed)) / math.sqrt(rough.numel())


def _solve(
    x: Latents, slope: Latents, level: float, following: float, order: int
) -> Generator[tuple[Latents, float], Seen, tuple[Latents, Latents]]:
    """A step of DPM-Solver-1, 2 or 3 along predictions of the noise, after that of one order less."""
    width = math.log(level / following)
    whole = following * math.expm1(width)
    plain = x - whole * slope
    if order == 1:
        return x, plain
    share = 1 / order
    at = level * math.exp(-share * width)
    seen = yield x - at * math.expm1(share * width) * slope, at
    bend = (seen.latents - seen.clean) / at - slope
    second = plain - whole / (2 * share) * bend
    if order == 2:
        return plain, second
    part = 2 / 3 * width
    at = level * math.exp(-part)
    ahead = x - at * (math.expm1(part) * slope + 2 * (math.expm1(part) / part - 1) * bend)
    seen = yield ahead, at
    bend = (seen.latents - seen.clean) / at - slope
    return second, plain - following * 3 / 2 * (math.expm1(width) / width - 1) * bend


def _towards(clean: Latents, x: Latents, share: float) -> Latents:
    """A share of the noise is left."""
    return share * x + (1 - share) * clean


def _ancestral(level: float, following: float) -> tuple[float, float]:
    """The level to step down to, and the noise that makes it the following one."""
    up = min(following, following * math.sqrt(max(level**2 - following**2, 0)) / level)
    return math.sqrt(following**2 - up**2), up


def _no_lower(end: float, level: float, following: float) -> tuple[float, float]:
    """The same of those that never step below their last level."""
    down = max(end, _ancestral(level, following)[0])
    return down, math.sqrt(max(following**2 - down**2, 0))
