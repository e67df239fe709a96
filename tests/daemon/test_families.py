"""What the front reads from a model's folder: its family, its defaults, and the files that a worker needs."""

from __future__ import annotations

import json

import pytest
from craftd.models import folder
from craftd.models.model import Defaults

from tests import tiny_models


@pytest.mark.parametrize(
    ("kind", "family", "granularity", "defaults"),
    [
        ("sd", "sd", 8, Defaults(64, 64, 25, 7.5, "PNDM")),
        ("sdxl", "sdxl", 8, Defaults(64, 64, 30, 5.0, "Euler")),
        ("sd3", "sd3", 16, Defaults(64, 64, 28, 7.0, "Euler")),
        ("sd3-no-t5", "sd3", 16, Defaults(64, 64, 28, 7.0, "Euler")),
        ("flux", "flux", 16, Defaults(1024, 1024, 28, 3.5, "Euler")),
        ("sd-tiny-vae", "sd", 8, Defaults(64, 64, 25, 7.5, "PNDM")),
        ("flux-schnell", "flux", 16, Defaults(1024, 1024, 4, 0.0, "Euler")),
        ("z-image", "z-image", 16, Defaults(512, 512, 50, 4.0, "Euler")),
        ("z-image-turbo", "z-image", 16, Defaults(512, 512, 8, 0.0, "Euler")),
        ("flux2", "flux2", 16, Defaults(1024, 1024, 50, 4.0, "Euler")),
        ("flux2-distilled", "flux2", 16, Defaults(1024, 1024, 4, 1.0, "Euler")),
        ("flux2-dev", "flux2-dev", 16, Defaults(1024, 1024, 50, 4.0, "Euler")),
        ("qwen-image", "qwen-image", 16, Defaults(1024, 1024, 50, 4.0, "Euler")),
        ("krea2", "krea2", 16, Defaults(1024, 1024, 28, 4.5, "Euler")),
        ("krea2-distilled", "krea2", 16, Defaults(1024, 1024, 8, 0.0, "Euler")),
        ("pixart", "generic", 16, Defaults(256, 256, 20, 4.5, "DPM++ 2M")),
    ],
)
def test_family_and_defaults(kind: str, family: str, granularity: int, defaults: Defaults) -> None:
    model = folder.read(tiny_models.cached(kind), name=kind)
    assert (model.architecture.family, model.sizes.granularity, model.defaults, model.refused) == (
        family,
        granularity,
        defaults,
        "",
    )


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "sd3-no-t5", "flux"])
def test_every_part_with_weights_or_words_is_in_the_manifest(kind: str) -> None:
    place = tiny_models.cached(kind)
    index = json.loads((place / "model_index.json").read_text())
    parts = [part for part, value in index.items() if isinstance(value, list) and value[1] is not None]
    paths = {file.path for file in folder.read(place, name=kind).files}
    on_disk = {str(path.relative_to(place)) for part in parts for path in (place / part).iterdir()}
    assert paths == on_disk | {"model_index.json"}
    assert len([part for part in parts if f"{part}/model.safetensors" in paths]) == len(
        [part for part in parts if part.startswith("text_encoder")]
    )
