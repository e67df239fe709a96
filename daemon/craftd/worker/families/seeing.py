"""What Qwen2-VL's processor makes of a text and the pictures in it: transformers' own wants torchvision, for videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BatchFeature
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

CLASS = "Qwen2VLProcessor"
_MOST = 64, 8, 4, 1 << 20  # of a patch's side, of patches merged, of frames, and of the fewest pixels
PLACE = "<|image_pad|>"  # of a picture, in a text


class Processor:
    """Called as the one of transformers. Each mark of a picture in the text becomes as many as it has tokens."""

    def __init__(self, pictures: Any, tokenizer: Any) -> None:
        self._pictures = pictures
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, folder: Path, tokenizer: Any) -> Processor:
        """By the folder's own settings. Raises OSError and ValueError for what is none, or would take much memory."""
        made: Any = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
        sides = made.patch_size, made.merge_size, made.temporal_patch_size, made.size.shortest_edge
        for side, most in zip(sides, _MOST, strict=True):
            if not isinstance(side, int) or not 1 <= side <= most:
                raise ValueError(f"the processor's settings are none of {CLASS}'s")
        return cls(made, tokenizer)

    def __call__(self, *, text: Sequence[str], images: Any, **how: Any) -> BatchFeature:
        seen = self._pictures(images=images, return_tensors="pt")
        counts = [math.prod(grid) // self._pictures.merge_size**2 for grid in seen["image_grid_thw"].tolist()]
        tokens = self._tokenizer(_spread(text, counts), **how)
        return BatchFeature({**tokens, **seen})


def _spread(texts: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Raises ValueError where the marks are not as many as the pictures."""
    left = iter(counts)
    spread = []
    for text in texts:
        first, *rest = text.split(PLACE)
        spread.append(first + "".join(PLACE * count + piece for piece, count in zip(rest, left, strict=False)))
    if sum(text.count(PLACE) for text in texts) != len(counts):
        raise ValueError(f"{len(counts)} pictures, and another number of places for them")
    return spread
