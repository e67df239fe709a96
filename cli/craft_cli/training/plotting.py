"""A loss curve: in the terminal as Braille dots, and as a PNG. Each step a dot, their running mean a line."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from craft_protos import training_pb2

Points = Sequence[tuple[int, float]]

_COLUMNS, _ROWS = 72, 16  # of characters; each has 2 by 4 dots
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row, by column
_SIZE = (900, 480)
_MARGIN = (84, 36, 24, 56)  # left, top, right, bottom
_INK, _GRID, _DOT, _LINE = "#333333", "#dddddd", "#a9c4e8", "#1f5fae"
_SMOOTHING = 0.05  # of the number of steps


def in_terminal(points: Points) -> list[str]:
    """Lines of text. Raises BAD_DATA where there is nothing to draw."""
    frame = _Frame(points)
    width, height = _COLUMNS * 2, _ROWS * 4
    cells = [[0] * _COLUMNS for _ in range(_ROWS)]
    curve = [(frame.x(step) * (width - 1), (1 - frame.y(loss)) * (height - 1)) for step, loss in smoothed(points)]
    for x, y in _line(curve):
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    lines = []
    for row, line in enumerate(cells):
        label = {0: frame.high, _ROWS - 1: frame.low}.get(row)
        edge = f"{label:8.4f}" if label is not None else " " * 8
        lines.append(f"{edge} │{''.join(chr(_BRAILLE + dots) for dots in line)}")
    ends = f"{frame.first}{f'step {frame.last}':>{_COLUMNS - len(str(frame.first))}}"
    return [*lines, f"{' ' * 9}└{'─' * _COLUMNS}", f"{' ' * 10}{ends}"]


def of_validation(steps: Iterable[training_pb2.TrainingStep]) -> list[str]:
    """The losses of pictures that were not learned from, the least of them marked."""
    taken = [(one.step, one.validation_loss) for one in steps if one.HasField("validation_loss")]
    least = min((loss for _, loss in taken), default=0.0)
    return [f"validation, step {step}: {loss:.4f}{' (least)' if loss == least else ''}" for step, loss in taken]


def as_png(points: Points, title: str) -> bytes:
    """A picture file. Raises BAD_DATA where there is nothing to draw."""
    from PIL import Image, ImageDraw, ImageFont

    frame, (width, height) = _Frame(points), _SIZE
    left, top, right, bottom = _MARGIN
    picture = Image.new("RGB", _SIZE, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)

    def place(step: int, loss: float) -> tuple[float, float]:
        x = left + frame.x(step) * (width - left - right)
        return x, top + (1 - frame.y(loss)) * (height - top - bottom)

    for tick in range(5):
        loss = frame.low + (frame.high - frame.low) * tick / 4
        step = round(frame.first + (frame.last - frame.first) * tick / 4)
        draw.line([place(frame.first, loss), place(frame.last, loss)], fill=_GRID)
        draw.text((left - 8, place(frame.first, loss)[1]), f"{loss:.4f}", fill=_INK, font=font, anchor="rm")
        draw.text((place(step, frame.low)[0], height - bottom + 8), str(step), fill=_INK, font=font, anchor="ma")
    for step, loss in points:
        x, y = place(step, min(max(loss, frame.low), frame.high))
        draw.ellipse([x - 1.5, y - 1.5, x + 1.5, y + 1.5], fill=_DOT)
    draw.line([place(*point) for point in smoothed(points)], fill=_LINE, width=3, joint="curve")
    draw.text((left, 10), title, fill=_INK, font=font)
    draw.text((width - right, height - 24), "step", fill=_INK, font=font, anchor="ra")
    stream = io.BytesIO()
    picture.quantize(64).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def smoothed(points: Points) -> list[tuple[int, float]]:
    """Each step with the mean of those around it."""
    reach = max(1, round(len(points) * _SMOOTHING))
    losses = [loss for _, loss in points]
    means = []
    for place, (step, _) in enumerate(points):
        near = losses[max(0, place - reach) : place + reach + 1]
        means.append((step, sum(near) / len(near)))
    return means


def _line(curve: Sequence[tuple[float, float]]) -> set[tuple[int, int]]:
    """The dots from each point to the next."""
    dots = {(round(x), round(y)) for x, y in curve}
    for (x, y), (next_x, next_y) in pairwise(curve):
        count = max(1, math.ceil(max(abs(next_x - x), abs(next_y - y))))
        parts = [part / count for part in range(count)]
        dots |= {(round(x + (next_x - x) * part), round(y + (next_y - y) * part)) for part in parts}
    return dots


class _Frame:
    """What of the plane is shown: nearly all dots; a few wild ones are cut off."""

    def __init__(self, points: Points) -> None:
        losses = sorted(loss for _, loss in points if math.isfinite(loss))
        if not losses:
            raise CraftError("BAD_DATA", "there is no loss to show yet", "wait for its first steps: craft jobs watch")
        means = [loss for _, loss in smoothed(points)]
        self.first, self.last = points[0][0], points[-1][0]
        self.low = min(losses[0], *means)
        self.high = max(losses[int((len(losses) - 1) * 0.98)], *means)
        if self.high <= self.low:
            self.high = self.low + max(abs(self.low), 1e-6) * 0.1

    def x(self, step: int) -> float:
        return (step - self.first) / max(1, self.last - self.first)

    def y(self, loss: float) -> float:
        return (loss - self.low) / (self.high - self.low)
