"""A folder that only diffusers' modular pipelines draw with is refused by name, before any of it is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.worker.inspection import model


def test_a_modular_pipeline_s_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "modular_model_index.json").write_text('{"_class_name": "AnimaModularPipeline"}')
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CraftError, match="modular pipeline") as caught:
        model.check(tmp_path)
    assert caught.value.reason == "UNSUPPORTED_MODEL" and caught.value.hint
