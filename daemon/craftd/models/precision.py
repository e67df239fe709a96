"""What a model is kept in while it is loaded, where its user says so: numbers to compute with, or packed."""

from __future__ import annotations

from craft_protos.reasons import invalid

PRECISIONS = ("fp32", "bf16", "fp16", "fp8", "int8")
AUTO = "auto"  # as the worker computes
_HALVES = ("bf16", "fp16", "fp8", "int8")


def check(said: str) -> str:
    """ "" for `auto`. Raises INVALID_FIELD."""
    if said in ("", AUTO):
        return ""
    if said not in PRECISIONS:
        raise invalid("precision", f"must be one of {', '.join((AUTO, *PRECISIONS))}, not {said[:32]!r}")
    return said


def suffices_half(said: str) -> bool | None:
    """Whether half of a download holds all that is kept; None where the device decides."""
    return said in _HALVES if said else None
