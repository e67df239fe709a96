"""What an inspection found in a LoRA's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LoraFindings:
    """A LoRA that nothing is wrong with."""

    sha256: str
    ss_hash: str
    size_bytes: int
    format: str
    base: str  # architecture, "" where unknown
    rank: int
    layers: int
    adapts_text_encoder: bool
    has_conv: bool
    is_dora: bool
    trigger: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, answer: dict[str, Any]) -> LoraFindings:
        """From an inspecting process's answer. Raises KeyError, TypeError for what is none."""
        found = answer["adapter"]
        return cls(
            sha256=str(answer["sha256"]),
            ss_hash=str(answer["ss_hash"]),
            size_bytes=int(answer["size_bytes"]),
            format=str(found["format"]),
            base=str(found["base"]),
            rank=int(found["rank"]),
            layers=int(found["layers"]),
            adapts_text_encoder=bool(found["adapts_text_encoder"]),
            has_conv=bool(found["has_conv"]),
            is_dora=bool(found["is_dora"]),
            trigger=str(answer["trigger"]),
            metadata={str(key): str(value) for key, value in answer["metadata"].items()},
        )
