"""Jobs with control pictures, and what diffusers' own pipelines draw of the same."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos import jobs_pb2
from craft_protos.worker_pb2 import ModelManifest, ToWorker
from craftd.worker.families.samplers import is_flow_matching
from PIL import Image

from tests.worker import flows
from tests.worker.client import WorkerProcess, pixels, put_model
from tests.worker.starts import put, scheduler_of

SIDE = 64
Models = dict[str, ModelManifest]
Pipelines = Callable[[str], Any]


@dataclass(frozen=True)
class Studio:
    """A worker, its models, control models in its store, and diffusers' own of both."""

    worker: WorkerProcess
    files: Path
    models: Models
    controls: Models
    networks: dict[str, Any]
    pipelines: Pipelines

    def controlled(self, sent: ToWorker, *asked: tuple[str, Image.Image, dict[str, Any]]) -> ToWorker:
        """The same job with control pictures: each with its control model, and what else there is to say of it."""
        for name, picture, more in asked:
            file = put(self.files, picture)
            sent.dispatch.inputs.append(file)
            if name not in {model.name for model in sent.dispatch.controls}:
                sent.dispatch.controls.append(self.controls[name])
            told: dict[str, Any] = {"kind": "none", "scale": 1.0, "start": 0.0, "end": 1.0} | more
            control = jobs_pb2.Control(sha256=file.sha256, model=name, fit=jobs_pb2.FIT_CROP, **told)
            sent.dispatch.generate.controls.append(control)
        return sent

    def draw(self, *jobs: ToWorker) -> list[np.ndarray]:
        return [pixels(image) for image in self.worker.draw(*jobs)]

    def diffusers_draws(self, kind: str, names: str | list[str], over: str = "", **call: Any) -> np.ndarray:
        network = self.networks[names] if isinstance(names, str) else [self.networks[name] for name in names]
        return diffusers_draws(self.pipelines(kind), network, over, **call)

    def diffusers_adapts(self, kind: str, names: str | list[str], **call: Any) -> np.ndarray:
        """The same of T2I-adapters."""
        from diffusers import MultiAdapter

        several = None if isinstance(names, str) else MultiAdapter([self.networks[name] for name in names])
        return diffusers_draws(self.pipelines(kind), several or self.networks[str(names)], "", "Adapter", **call)


@pytest.fixture(scope="module")
def controls(networks: dict[str, Any], files: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The module's `networks` in the store."""
    return stored(networks, files, tmp_path_factory.mktemp("controls"))


@pytest.fixture
def studio(  # noqa: PLR0917 - fixtures
    worker: WorkerProcess,
    files: Path,
    models: Models,
    controls: Models,
    networks: dict[str, Any],
    pipelines: Pipelines,
) -> Studio:
    return Studio(worker, files, models, controls, networks, pipelines)


def stored(networks: Mapping[str, Any], files: Path, folder: Path) -> Models:
    """Control models in the store, by their names."""
    made = {}
    for name, network in networks.items():
        network.save_pretrained(folder / name / "controlnet")
        made[name] = put_model(folder / name, files, name, family="controlnet", pipeline=type(network).__name__)
    return made


def map_picture(seed: int = 5, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Lines, white on black."""
    rng = np.random.default_rng(seed)
    return Image.fromarray((rng.random((size[1], size[0], 1)) > 0.7).repeat(3, 2).astype(np.uint8) * 255)


def diffusers_draws(
    pipe: Any, network: Any, over: str = "", what: str = "ControlNet", sampler: str = "Euler", **call: Any
) -> np.ndarray:
    """`over`: "", "Img2Img" or "Inpaint"; `what`: "ControlNet" or "Adapter"."""
    import diffusers

    name = type(pipe).__name__.replace("Pipeline", f"{what}{over}Pipeline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = copy.copy(getattr(diffusers, name).from_pipe(pipe, **{what.lower(): network}))
        theirs.__dict__["scheduler"] = scheduler_of(pipe, sampler)
        theirs.set_progress_bar_config(disable=True)
        asked = {"prompt": "a red cat", "guidance_scale": 5.0, "width": SIDE, "height": SIDE} | call
        asked = {"num_inference_steps": 4, "generator": torch.Generator("cpu").manual_seed(7)} | asked
        if is_flow_matching(pipe.scheduler):
            asked = flows.arguments(pipe, asked)
        if "strength" in asked and "Flux" not in name:  # the others' size is the start's
            del asked["width"], asked["height"]
        drawn: np.ndarray = (theirs(**asked, output_type="np").images[0] * 255).round().astype(int)
        return drawn
