"""The architecture registry: every row holds for everything that reads it, and nothing else keeps such facts."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import craft_cli
import craft_protos
import craftd
import diffusers
import pytest
import torch
from craftd.architectures import detect, registry
from craftd.architectures.architecture import GENERIC, Architecture
from craftd.architectures.rows.flows import FLUX2_DEV
from craftd.models import checkpoint, folder
from craftd.models.choosing import INDEX
from craftd.safetensors import Header, Tensor
from craftd.worker.families import FAMILIES

from tests import tried
from tests.matrix import covers
from tests.worker import families
from tests.worker.client import WorkerProcess, put_model

NAMED = [row for row in registry.ROWS if row.id]
SHIPPED = checkpoint._CARRIED
# Elsewhere a class may be named where layers have other names in the original programs, and in a hint's command;
# kohya's program has an argument that is called as an architecture is.
_MAY_NAME_CLASSES = {"originals.py", "fit.py", "fakeworker.py", "inspection/model.py", "training/kohya.py"}

by_id = pytest.mark.parametrize("row", NAMED, ids=lambda row: row.id)


@by_id
def test_its_classes_are_diffusers_own(row: Architecture) -> None:
    assert [name for name in (*row.pipelines, row.network) if name and not hasattr(diffusers, name)] == []


@by_id
def test_it_is_found_by_its_pipelines_and_its_network(row: Architecture) -> None:
    assert all(detect.of_pipeline(pipeline, row.text_width) is row for pipeline in row.pipelines)
    assert not row.network or detect.of_network(row.network, row.text_width) is row


@by_id
def test_what_a_lora_says_of_it_is_understood(row: Architecture) -> None:
    assert bool(row.kohya) == bool(row.modelspec) == bool(row.training)
    told = {"ss_base_model_version": row.kohya, "modelspec.architecture": f"{row.modelspec}/lora"}
    assert not row.training or {detect.of_lora({}, {key: value}).id for key, value in told.items()} == {row.id}


@by_id
def test_its_configurations_are_read_as_it(row: Architecture) -> None:
    for layout in row.checkpoints:
        for name in filter(None, (layout.configurations, layout.velocity_configurations)):
            index = json.loads((SHIPPED / name / INDEX).read_text())
            assert folder.architecture_of(SHIPPED / name, index) is row
            assert {part.component for part in layout.optional} <= set(row.optional_parts) & set(index)


@by_id
def test_what_is_trained_is_there(row: Architecture) -> None:
    for layout in row.checkpoints if row.training else ():
        place = SHIPPED / layout.configurations
        part = next(name for name in ("unet", "transformer") if (place / name).is_dir())
        with torch.device("meta"):
            kind = getattr(diffusers, row.network)
            network = kind.from_config(json.loads((place / part / "config.json").read_text()))
        layers = [name for name, _ in network.named_modules()]
        missing = [one for one in row.training.targets if not any(name.endswith(f".{one}") for name in layers)]
        assert missing == [], layout.configurations
        assert all((place / encoder / "config.json").is_file() for encoder in row.training.text_encoders)


@pytest.mark.parametrize("carried", [path.parent.name for path in sorted(SHIPPED.glob("*/transformer"))])
def test_a_transformer_of_the_configuration_that_is_carried_is_told_by_its_tensors(carried: str) -> None:
    """Of the real widths, without any weights."""
    config = json.loads((SHIPPED / carried / "transformer" / "config.json").read_text())
    with torch.device("meta"):
        network = getattr(diffusers, config["_class_name"]).from_config(config)
    shapes = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    header = Header(tuple(Tensor(name, "BF16", shape, 0, 0) for name, shape in sorted(shapes.items())), 0, {})
    found = detect.of_file(header, f"{carried}.safetensors")
    assert found.checkpoint.configurations_for(found.architecture.predicts, f"{carried}.safetensors") == carried
    if "joint_attention_dim" in config and carried.startswith("flux2"):
        encoder = json.loads((SHIPPED / carried / "text_encoder" / "config.json").read_text())
        assert config["joint_attention_dim"] == 3 * encoder["hidden_size"]


@covers("draw", form="folder", kind="row")
@pytest.mark.parametrize("row", [row for row in NAMED if row.family == GENERIC], ids=lambda row: row.id)
def test_the_generic_family_draws_what_its_pipeline_draws(
    worker: WorkerProcess, files: Path, tmp_path: Path, row: Architecture
) -> None:
    torch.manual_seed(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = tried.MAKERS[row.id]()
        tried.save(pipe, tmp_path / row.id)
        expected = tried.truth(pipe)
    model = folder.read(tmp_path / row.id, name=row.id)
    assert (model.architecture, model.refused) == (row, "")
    assert (model.defaults.steps, model.defaults.guidance_scale) == (row.steps, row.guidance_scale)
    asked = {"sampler": "", "steps": tried.STEPS, "seed": tried.SEED, "width": tried.SIDE, "height": tried.SIDE}
    families.assert_same(families.draw(worker, put_model(tmp_path / row.id, files, row.id), **asked), expected)


def test_every_family_is_some_rows() -> None:
    assert {row.family for row in registry.ROWS} == {*FAMILIES, GENERIC}


def test_no_two_rows_go_by_one_name() -> None:
    for names in (
        [row.id for row in NAMED if "mask" not in row.needs and row is not FLUX2_DEV],  # which go by another's
        [name for row in registry.ROWS for name in row.visioncraft],
        [(pipeline, row.text_width) for row in registry.ROWS for pipeline in row.pipelines],
    ):
        assert len(names) == len(set(names))


def test_the_built_in_model_is_the_row_of_its_name() -> None:
    place = Path(craftd.__file__).parent / "pocket"
    assert folder.architecture_of(place, json.loads((place / INDEX).read_text())) is registry.POCKET


def test_nothing_else_keeps_facts_of_architectures() -> None:
    classes = {name for row in registry.ROWS for name in (*row.pipelines, row.network) if name}
    ids = {row.id for row in NAMED} - {"flux", "pocket"}  # words of their own too
    pattern = re.compile("|".join(f'"{name}"' for name in sorted(classes | ids)))
    roots = [Path(str(package.__file__)).parent for package in (craft_cli, craftd, craft_protos)]
    tables = [
        f"{path.relative_to(root)}: {found.group()}"
        for root in roots
        for path in root.rglob("*.py")
        if "architectures" not in path.parts and "families" not in path.parts
        if not any(str(path).endswith(f"/{name}") for name in _MAY_NAME_CLASSES)
        for found in pattern.finditer(path.read_text())
    ]
    assert tables == []
