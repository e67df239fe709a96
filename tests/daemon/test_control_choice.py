"""Which control model a request takes, and what one that reads several kinds of pictures is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from craft_protos.generate import Control, GenerateRequest
from craft_protos.reasons import CraftError
from craftd.architectures import registry
from craftd.jobs import controls
from craftd.models.part import Part

FLUX: Any = SimpleNamespace(name="flux", architecture=next(row for row in registry.ROWS if row.id == "flux"))
SD1: Any = SimpleNamespace(name="sd", architecture=next(row for row in registry.ROWS if row.id == "sd1"))


def part(name: str, kind: str) -> Part:
    return Part(name, Path(f"/models/{name}.safetensors"), kind, name.ljust(64, "0"), "somewhere")


UNION, CANNY = part("everything", "control-flux:union"), part("flux-canny", "control-flux")
NET, ADAPTER = part("sd-depth", "control-sd1"), part("sd-canny", "control-sd1:t2i-adapter")
KNOWN = (UNION, CANNY, NET, ADAPTER)


def taken(model: Any, kind: str, name: str = "") -> str:
    wanted = GenerateRequest(prompt="x", controls=(Control("a" * 64, kind, name),))
    return controls.completed(wanted, model, KNOWN).controls[0].model


@pytest.mark.parametrize(
    ("model", "kind", "name", "expected"),
    [
        (FLUX, "depth-map", "", "everything"),
        (FLUX, "canny", "", "flux-canny"),
        (FLUX, "tile", "everything", "everything"),
        (SD1, "depth-map", "", "sd-depth"),
        (SD1, "canny", "", "sd-canny"),
        (SD1, "none", "sd-canny", "sd-canny"),
    ],
)
def test_the_one_that_fits_is_taken(model: Any, kind: str, name: str, expected: str) -> None:
    assert taken(model, kind, name) == expected


@pytest.mark.parametrize("kind", ["none", "edges", "scribble", "invert"])
def test_one_that_reads_several_kinds_is_told_which(kind: str) -> None:
    with pytest.raises(CraftError, match=f"not told by {kind} which") as refused:
        taken(FLUX, kind, "everything")
    assert refused.value.field == "controls.kind"
    assert "depth-map" in refused.value.hint


@pytest.mark.parametrize(("model", "name"), [(FLUX, "sd-canny"), (SD1, "everything")])
def test_anothers_is_refused(model: Any, name: str) -> None:
    with pytest.raises(CraftError, match="and the model") as refused:
        taken(model, "canny", name)
    assert refused.value.field == "controls.model"


def test_where_none_reads_the_kind_it_is_said_what_each_reads() -> None:
    with pytest.raises(CraftError, match="none here reads scribble for sd") as refused:
        controls.completed(GenerateRequest(prompt="x", controls=(Control("a" * 64, "scribble"),)), SD1, (NET,))
    assert refused.value.hint.startswith("sd-depth reads depth: name it to use it all the same")
