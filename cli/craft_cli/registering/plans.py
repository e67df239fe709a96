"""A plan of a pull, as lines that somebody can decide by: the download, the disk, the memory, the terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import models_pb2

_USABLE = 0.8  # of a device's memory, as the daemon has it: the rest is for the picture itself
_GATED = {
    "yes": "yes: accept the terms on {page} first, then `hf auth login`, or HF_TOKEN for the daemon",
    "no": "no",
    "": "not known; if it is, the pull says what to do",
}


def headline(plan: models_pb2.PullPlan) -> str:
    """The plan's first line names the source and says how many files and bytes a pull would download."""
    if plan.unasked:
        return f"{plan.source}: about {units.size(plan.download_bytes)} to download; not asked there: {plan.unasked}"
    files = "1 file" if plan.files == 1 else f"{plan.files} files"
    return f"{plan.source}: {files}, {units.size(plan.download_bytes)} to download"


def rows(plan: models_pb2.PullPlan, precision: str = "") -> list[list[str]]:
    """Names and what to know under each; the memory of the precision that is asked for is marked."""
    return [list(row) for row in _rows(plan, precision)]


def _rows(plan: models_pb2.PullPlan, precision: str) -> Iterator[tuple[str, str]]:
    yield "disk", _disk(plan)
    if not plan.HasField("entry"):
        return
    entry = plan.entry
    yield "model", f"{entry.title}, {entry.architecture}"
    yield "license", entry.license
    yield "gated", _GATED[entry.gated].format(page=f"https://huggingface.co/{entry.repository}")
    yield "drawn with", f"{entry.steps} steps, guidance scale {entry.guidance_scale:g}"
    yield from memory_rows(entry, plan.device_bytes, precision)
    yield "this device", _device(plan)
    if entry.note:
        yield "note", entry.note


def memory_rows(entry: models_pb2.CatalogueEntry, device_bytes: int, asked: str = "") -> Iterator[tuple[str, str]]:
    """A row for each precision; the one that is asked for says so."""
    for of in entry.memory:
        needed = f"about {units.size(of.whole_bytes)}, {units.size(of.network_bytes)} without its text encoders"
        mark = " (as asked)" if of.precision == asked.lower() else ""
        yield f"memory in {of.precision}{mark}", needed + _fits(of, device_bytes)


def _fits(of: models_pb2.PrecisionMemory, device_bytes: int) -> str:
    if not device_bytes:
        return ""
    budget = device_bytes * _USABLE
    if of.whole_bytes <= budget:
        return ": fits"
    if of.network_bytes <= budget:
        return ": fits on CUDA while its text encoders wait in main memory, which takes longer for each prompt"
    return ": its network does not fit: on CUDA it goes through the device block by block, which is slow"


def _disk(plan: models_pb2.PullPlan) -> str:
    left = plan.free_bytes - plan.download_bytes
    if left < 0:
        return f"{units.size(plan.free_bytes)} free: {units.size(-left)} too little"
    return f"{units.size(plan.free_bytes)} free, {units.size(left)} left afterwards"


def _device(plan: models_pb2.PullPlan) -> str:
    if not plan.device_bytes:
        return "not known yet: no worker has told of its memory (it does once something was drawn)"
    usable = units.size(int(plan.device_bytes * _USABLE))
    return f"{units.size(plan.device_bytes)} of memory, {usable} of it for weights; it computes in {plan.precision}"


def shape(plan: models_pb2.PullPlan) -> dict[str, Any]:
    """`models pull --plan --json`."""
    told: dict[str, Any] = {
        "plan": plan.source,
        "files": plan.files,
        "download_bytes": plan.download_bytes,
        "free_bytes": plan.free_bytes,
        "unasked": plan.unasked or None,
        "device_bytes": plan.device_bytes or None,
        "precision": plan.precision or None,
    }
    return {**told, "model": entry_shape(plan.entry)} if plan.HasField("entry") else told


def entry_shape(entry: models_pb2.CatalogueEntry) -> dict[str, Any]:
    """`models search --json`, one of them."""
    return {
        "name": entry.name,
        "title": entry.title,
        "repository": entry.repository,
        "file": entry.file or None,
        "architecture": entry.architecture,
        "license": entry.license,
        "gated": {"yes": True, "no": False}.get(entry.gated),
        "download_bytes": entry.download_bytes,
        "steps": entry.steps,
        "guidance_scale": entry.guidance_scale,
        "memory": [
            {"precision": of.precision, "whole_bytes": of.whole_bytes, "network_bytes": of.network_bytes}
            for of in entry.memory
        ],
        "note": entry.note or None,
    }
