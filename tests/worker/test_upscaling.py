"""Enlarging: what Spandrel's own call makes, without seams, of every size; and which files are read."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craftd.worker.upscaling import reading
from craftd.worker.upscaling.enlarging import Enlarging, passes, resized
from craftd.worker.upscaling.network import Network
from craftd.worker.upscaling.tiles import OVERLAP, Grid
from craftd.worker.upscaling.upscaler import Upscaler
from PIL import Image

from tests.worker.upscalers import CPU, compact, network, noisy, saved


class Means:
    """Of so many pixels a tile."""

    def __init__(self, found: Network | None, side: int = 256) -> None:
        self.network = found
        self.side = side


def enlarged(means: Means, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    one = Enlarging(means, pixels, size)
    while not one.is_done:
        one.advance()
    assert one.step == one.of
    return one.pixels


def difference(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize(("scale", "channels"), [(4, 3), (2, 3), (4, 1)])
def test_it_is_what_spandrels_own_call_makes(tmp_path: Path, scale: int, channels: int) -> None:
    path, pixels = saved(tmp_path / "x", compact(scale, channels=channels)), noisy(40, 30)
    call = reading.read(path, "x")
    given = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)
    with torch.inference_mode():
        made = call(given[:, None])[:, 0] if channels == 1 else call(given[None])[0]
    expected = (made.permute(1, 2, 0).clamp(0, 1) * 255).round().numpy()
    found = enlarged(Means(Network(reading.read(path, "x"), CPU)), pixels, (40 * scale, 30 * scale))
    assert np.ptp(found) > 100, "a flat picture proves nothing"
    assert difference(found, expected) <= 1


@pytest.mark.parametrize("side", [130, 160, 256])
@pytest.mark.parametrize("size", [(300, 270), (257, 90), (64, 400)], ids=str)
def test_tiles_leave_no_seams(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    """Sixteen convolutions look 18 pixels far, less than tiles share."""
    found, pixels = network(tmp_path / "x", scale=2, convolutions=16), noisy(*size)
    twice = (2 * size[0], 2 * size[1])
    assert Grid(*size, side).count > 1
    assert difference(enlarged(Means(found, side), pixels, twice), enlarged(Means(found, 1000), pixels, twice)) <= 1


@pytest.mark.parametrize(("length", "side"), [(300, 130), (1000, 256), (257, 256), (131, 130)])
def test_tiles_lie_within_the_picture_and_overlap(length: int, side: int) -> None:
    tiles = next(iter(Grid(length, 10, side).rows()))
    assert (tiles[0].left, tiles[-1].right) == (0, length)
    assert all(before.right - after.left >= OVERLAP for before, after in itertools.pairwise(tiles))


def test_tiles_that_disagree_go_over_into_each_other() -> None:
    """A network that says of each tile something else leaves no step between two."""

    class Counting:
        scale, is_whole = 1, False

        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            self.calls += 1
            return np.full(pixels.shape, 40.0 * self.calls, np.float32)

    made = enlarged(Means(Counting(), 128), noisy(192, 192), (192, 192)).astype(int)  # type: ignore[arg-type]
    assert {made[0, 0, 0], made[0, -1, 0], made[-1, 0, 0], made[-1, -1, 0]} == {40, 80, 120, 160}
    assert np.abs(np.diff(made, axis=0)).max() <= 6 and np.abs(np.diff(made, axis=1)).max() <= 6


def test_half_of_what_the_network_makes_is_reduced_from_it(tmp_path: Path) -> None:
    means, pixels = Means(network(tmp_path / "x")), noisy(40, 30)
    whole = enlarged(means, pixels, (160, 120))
    assert np.array_equal(enlarged(means, pixels, (80, 60)), resized(whole, (80, 60)))


@pytest.mark.parametrize(
    ("size", "given"),
    [((80, 60), [(40, 30)]), ((160, 120), [(40, 30)]), ((200, 150), [(40, 30), (50, 38)]), ((40, 30), [(40, 30)])],
)
def test_it_goes_through_the_network_as_often_as_needed(size: tuple[int, int], given: list[tuple[int, int]]) -> None:
    assert passes((40, 30), size, 4) == given


def test_transparency_is_enlarged_by_itself(tmp_path: Path) -> None:
    means, clear = Means(network(tmp_path / "x")), noisy(40, 30, 4)
    made = enlarged(means, clear, (160, 120))
    assert np.array_equal(made[..., :3], enlarged(means, np.ascontiguousarray(clear[..., :3]), (160, 120)))
    grey = np.repeat(clear[..., 3:], 3, axis=2)
    assert np.array_equal(made[..., 3], enlarged(means, grey, (160, 120))[..., 0])


def test_lanczos_needs_no_network() -> None:
    pixels = noisy(40, 30, 4)
    expected = Image.fromarray(pixels).resize((100, 75), Image.Resampling.LANCZOS)
    assert np.array_equal(enlarged(Means(None), pixels, (100, 75)), np.asarray(expected))


def test_short_of_memory_it_takes_smaller_tiles(tmp_path: Path) -> None:
    found, pixels = network(tmp_path / "x", scale=2), noisy(300, 200)
    upscaler, asked = Upscaler(found, None), list[int]()  # type: ignore[arg-type]

    class Small:
        """Of a device without room for tiles of more than 200 pixels."""

        scale, is_whole = found.scale, False

        def __call__(self, tile: np.ndarray) -> np.ndarray:
            asked.append(max(tile.shape))
            if max(tile.shape) > 200:
                raise MemoryError
            return found(tile)

    upscaler.network = Small()  # type: ignore[assignment]
    one = Enlarging(upscaler, pixels, (600, 400))
    with pytest.raises(MemoryError):
        one.advance()
    assert upscaler.offload()
    while not one.is_done:
        one.advance()
    assert (asked[0], max(asked[1:]), one.step) == (256, 128, one.of)
    assert difference(one.pixels, enlarged(Means(found, 1000), pixels, (600, 400))) <= 1
    assert not upscaler.offload(), "no smaller ones are of use"


def _bad(change: Callable[[dict[str, torch.Tensor]], object]) -> dict[str, torch.Tensor]:
    tensors = compact()
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"anything.weight": torch.zeros(4, 4)}, "no upscaler"),
        (_bad(lambda one: one.pop("body.4.weight")), "no upscaler"),
        (_bad(lambda one: one.update({"body.0.weight": torch.zeros(8, 5, 3, 3)})), "channels"),
    ],
)
def test_what_is_no_upscaler_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], told: str) -> None:
    with pytest.raises(CraftError, match=told) as refused:
        reading.read(saved(tmp_path / "x", tensors), "x.safetensors")
    assert refused.value.reason == "UNSUPPORTED_MODEL"


def test_numbers_that_are_not_finite_are_seen(tmp_path: Path) -> None:
    broken = _bad(lambda one: one["body.0.weight"][0, 0].fill_(torch.nan))
    assert reading.is_finite(reading.read(saved(tmp_path / "good", compact()), "x"))
    assert not reading.is_finite(reading.read(saved(tmp_path / "bad", broken), "x"))
