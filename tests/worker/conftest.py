"""One worker and one store of tiny models for all of this folder's tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from craft_protos.worker_pb2 import ModelManifest

from tests import tiny_loras, tiny_models
from tests.worker import client, loras
from tests.worker.controlled import controls, studio
from tests.worker.flows import flow_truth, processor
from tests.worker.starts import alike

__all__ = ["alike", "controls", "flow_truth", "studio"]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store: files/<sha256>."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def models(files: Path) -> dict[str, ModelManifest]:
    """Every tiny model, by kind."""
    return {kind: client.put_model(tiny_models.cached(kind), files, kind) for kind in tiny_models.KINDS}


@pytest.fixture(scope="session")
def running(files: Path, models: dict[str, ModelManifest]) -> Iterator[client.WorkerProcess]:
    with client.worker(files) as started:
        yield started


@pytest.fixture
def worker(running: client.WorkerProcess) -> client.WorkerProcess:
    """The session's worker, with nothing seen yet."""
    running.seen.clear()
    return running


@pytest.fixture(scope="session")
def sd(models: dict[str, ModelManifest]) -> ModelManifest:
    return models["sd"]


@pytest.fixture(scope="session")
def pipelines() -> Callable[[str], Any]:
    """diffusers' own pipeline for a kind of tiny model: the truth."""
    import diffusers
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    loaded: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in loaded:
            with warnings.catch_warnings(), torch.inference_mode(False):  # whoever asks first may draw, others train
                warnings.simplefilter("ignore")
                loaded[kind] = diffusers.DiffusionPipeline.from_pretrained(
                    tiny_models.cached(kind), use_safetensors=True, local_files_only=True, **tiny_models.without(kind)
                )
            loaded[kind].set_progress_bar_config(disable=True)
            if kind == "flux2-dev":
                tokenizer = AutoTokenizer.from_pretrained(tiny_models.cached(kind) / "tokenizer")
                loaded[kind].register_modules(tokenizer=tokenizer)
            if kind.startswith("qwen-image-edit"):
                folder = tiny_models.cached(kind) / "processor"
                loaded[kind].__dict__["processor"] = processor(folder, loaded[kind].tokenizer)
        return loaded[kind]

    return get


@pytest.fixture(scope="session")
def truth(pipelines: Callable[[str], Any]) -> Callable[..., np.ndarray]:
    """The pixels that diffusers' pipeline gives, in the terms of a job."""
    import diffusers
    import torch
    from craftd.worker.families.samplers import FLOW_RECIPES, RECIPES, is_flow_matching

    def draw(
        kind: str = "sd",
        sampler: str = "Euler",
        seed: int = 7,
        steps: int = 4,
        scheduled: Callable[[Any], Any] | None = None,
        **call: Any,
    ) -> np.ndarray:
        """`scheduled`: the scheduler to take, made from the model's own, in place of a sampler's."""
        pipe = pipelines(kind)
        own = pipe.scheduler
        arguments: dict[str, Any] = {"prompt": "a red cat", "width": 64, "height": 64, "guidance_scale": 5.0} | call
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if scheduled is not None:
                pipe.scheduler = scheduled(own)
            elif sampler:
                name, overrides = (FLOW_RECIPES if is_flow_matching(own) else RECIPES)[sampler]
                if is_flow_matching(own):
                    overrides = {**overrides, "flow_shift": own.config.shift}  # diffusers names it in two ways
                pipe.scheduler = getattr(diffusers, name).from_config(own.config, **overrides)
            try:
                image = pipe(
                    **arguments, num_inference_steps=steps, generator=torch.Generator("cpu").manual_seed(seed)
                ).images[0]
            finally:
                pipe.scheduler = own
        return np.asarray(image.convert("RGB")).astype(int)

    return draw


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory, files: Path, pipelines: Callable[[str], Any]) -> loras.Make:
    """A random LoRA of a kind of model, in the store."""
    folder = tmp_path_factory.mktemp("loras")

    def made(kind: str, name: str, form: Callable[..., Any] = tiny_loras.peft, **random: Any) -> loras.Stored:
        adapter = tiny_loras.random(pipelines(kind), **random)
        return loras.put_lora(tiny_loras.save(form(adapter), folder / f"{kind}-{name}.safetensors"), files)

    return made


@pytest.fixture
def quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process draw their samples in three steps."""
    from craftd.architectures import registry

    rows = [replace(row, training=row.training and replace(row.training, sample_steps=3)) for row in registry.ROWS]
    monkeypatch.setattr(registry, "ROWS", tuple(rows))
