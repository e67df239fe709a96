"""Pictures that a model is shown: what is drawn is what diffusers' own pipelines draw of the same, in their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos import jobs_pb2
from craft_protos.generate import TextSpec
from craft_protos.worker_pb2 import File, ModelManifest, ToWorker
from craftd.architectures import registry
from craftd.architectures.rows.flows import FLUX_KONTEXT
from craftd.worker.engine import denoise
from craftd.worker.families import autoencoders
from craftd.worker.families.seeing import Processor
from craftd.worker.training import trainable
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from PIL import Image

from tests import tiny_flows
from tests.matrix import covers
from tests.worker.client import WorkerProcess, pixels, submit
from tests.worker.families import Truth, assert_same
from tests.worker.loras import Make, with_loras
from tests.worker.starts import put, spotted, submit_over
from tests.worker.test_start_batches import assert_each_is_as_alone
from tests.worker.trained import CPU, photo

Models = dict[str, ModelManifest]
Pipelines = Callable[[str], Any]


def shown_to(model: ModelManifest, pictures: list[File], job_id: str = "job", **spec: Any) -> ToWorker:
    references = [jobs_pb2.Reference(sha256=one.sha256) for one in pictures]
    once = list({one.sha256: one for one in pictures}.values())
    return submit(model, job_id, inputs=once, references=references, **spec)


def far(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@covers("references", form="folder", kind="kind")
@pytest.mark.parametrize("kind", ["flux2", "flux2-distilled"])
def test_klein_is_shown_several_in_their_order(
    worker: WorkerProcess, files: Path, models: Models, flow_truth: Truth, kind: str
) -> None:
    """Those whose sides are no multiples are cut on both sides alike."""
    for sizes in ([(64, 64)], [(96, 80), (67, 131)], [(64, 64), (64, 64), (80, 64)]):
        pictures = [photo(number, *size) for number, size in enumerate(sizes)]
        (drawn,) = worker.draw(shown_to(models[kind], [put(files, one) for one in pictures]))
        assert_same(pixels(drawn), flow_truth(kind, image=pictures))


def test_klein_makes_large_ones_smaller(worker: WorkerProcess, files: Path, models: Models, flow_truth: Truth) -> None:
    large = photo(1, 1500, 900)
    (drawn,) = worker.draw(shown_to(models["flux2-distilled"], [put(files, large)], steps=2))
    assert_same(pixels(drawn), flow_truth("flux2-distilled", image=[large], steps=2))


def test_their_order_is_that_of_diffusers(pipelines: Pipelines) -> None:
    """Pixels hardly show it with so small a model: latents do."""
    pipe = pipelines("flux2")
    pictures = [photo(1, 64, 64), photo(2, 80, 64)]
    for shown, others in ((pictures, pictures[::-1]), (pictures[::-1], pictures)):
        ours = drawn_latents(pipe, shown)
        call: dict[str, Any] = {"prompt": "a red cat", "width": 64, "height": 64, "num_inference_steps": 3}
        expected, other = (
            pipe(image=one, generator=torch.Generator("cpu").manual_seed(7), output_type="latent", **call).images
            for one in (shown, others)
        )
        assert torch.allclose(ours, expected, atol=1e-4)
        assert not torch.allclose(expected, other, atol=1e-3)


def drawn_latents(pipe: Any, pictures: list[Image.Image]) -> torch.Tensor:
    """In the autoencoder's scale."""
    family = trainable.family_of(pipe, CPU.place)
    with torch.inference_mode():
        text = family.encode(TextSpec("a red cat", guidance_scale=4.0))
        values = [torch.from_numpy(np.asarray(one) / np.float32(127.5) - 1).permute(2, 0, 1)[None] for one in pictures]
        shown = [family.encode_image(one) for one in values]
        schedule = family.schedule("", 3, 64, 64)
        row = denoise.begin(family, text, schedule, size=(64, 64), steps=3, seed=7, references=shown)
        while not row.is_done:
            (error,) = denoise.advance(family, [row], lambda _: nullcontext(), with_preview=[False])
            assert error is None
        return autoencoders.of(pipe.vae).own(row.latents)


@covers("references", form="folder", kind="flux-kontext")
@pytest.mark.parametrize("size", [(64, 64), (300, 170)])
def test_kontext_is_shown_one(
    worker: WorkerProcess, files: Path, models: Models, truth: Truth, size: tuple[int, int]
) -> None:
    picture = photo(1, *size)
    (drawn,) = worker.draw(shown_to(models["flux-kontext"], [put(files, picture)], steps=2))
    assert_same(pixels(drawn), truth("flux-kontext", "", image=picture, steps=2, max_area=64 * 64))


@covers("draw", form="folder", kind="flux-kontext")
def test_kontext_draws_without_one(worker: WorkerProcess, models: Models, truth: Truth) -> None:
    (drawn,) = worker.draw(submit(models["flux-kontext"]))
    assert_same(pixels(drawn), truth("flux-kontext", "", max_area=64 * 64))


def test_kontexts_shapes_are_those_of_its_training() -> None:
    assert list(FLUX_KONTEXT.shapes) == PREFERRED_KONTEXT_RESOLUTIONS
    for size in ((64, 64), (300, 170), (1000, 33), (33, 1000), (960, 1088), (1, 1)):
        shape = size[0] / size[1]
        _, *nearest = min((abs(shape - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        assert FLUX_KONTEXT.nearest_in_shape(*size) == tuple(nearest)


@covers("batch", "LoRA", form="folder", kind="kind")
@pytest.mark.parametrize("kind", ["flux2", "flux-kontext"])
def test_rows_of_all_kinds_share_calls_with_those_that_are_shown_the_same_sizes(
    worker: WorkerProcess, files: Path, models: Models, make: Make, kind: str
) -> None:
    a, b = make(kind, "ref-a", seed=301), make(kind, "ref-b", seed=302, rank=20)
    one, other = put(files, photo(1, 64, 64)), put(files, photo(2, 64, 64))
    model = models[kind]
    worker.draw(with_loras(shown_to(model, [one], "warm"), (a, 1.0), (b, 1.0)))
    assert_each_is_as_alone(
        worker,
        [
            with_loras(shown_to(model, [one], "a", steps=5), (a, 0.8)),
            shown_to(model, [one], "b", seed=9),
            with_loras(shown_to(model, [other], "c", guidance_scale=1.0), (b, 0.9), (a, -0.5)),
        ],
    )


def test_rows_that_are_shown_others_are_drawn_beside_them(worker: WorkerProcess, files: Path, models: Models) -> None:
    """Of other numbers and sizes: each as alone."""
    small, wide = put(files, photo(1, 64, 64)), put(files, photo(2, 96, 64))
    jobs = [
        shown_to(models["flux2"], pictures, job_id)
        for job_id, pictures in (("a", [small]), ("b", [wide]), ("c", [small, wide]), ("d", []), ("e", [wide, small]))
    ]
    alone = [pixels(worker.draw(job)[0]) for job in jobs]
    for image, expected in zip(worker.draw(*jobs), alone, strict=True):
        assert far(pixels(image), expected) <= 1


def test_tiny_ones_are_drawn_out(worker: WorkerProcess, files: Path, models: Models) -> None:
    for size in ((1, 1), (5, 40)):
        (drawn,) = worker.draw(shown_to(models["flux2"], [put(files, Image.new("RGB", size, "red"))]))
        assert pixels(drawn).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", ["sd", "flux", "pixart"])
def test_others_are_shown_none(worker: WorkerProcess, files: Path, models: Models, kind: str) -> None:
    """The front knows; this is for whoever speaks to a worker alone."""
    failed = worker.fail(shown_to(models[kind], [put(files, photo(1, 64, 64))]))
    assert (failed.error.reason, failed.error.message.partition(":")[0]) == ("INVALID_FIELD", "references")


@covers("draw", "references", form="folder", kind="qwen-image-edit")
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_qwen_edits_one(worker: WorkerProcess, files: Path, models: Models, flow_truth: Truth, guidance: float) -> None:
    picture, asked = photo(1, 120, 90), {"steps": 2, "guidance_scale": guidance}
    (drawn,) = worker.draw(shown_to(models["qwen-image-edit"], [put(files, picture)], **asked))
    assert_same(pixels(drawn), flow_truth("qwen-image-edit", image=picture, **asked))


@covers("draw", "references", form="folder", kind="qwen-image-edit-plus")
def test_qwen_edit_plus_is_shown_several(worker: WorkerProcess, files: Path, models: Models, flow_truth: Truth) -> None:
    pictures, asked = [photo(1, 120, 90), photo(2, 60, 90)], {"steps": 2, "guidance_scale": 3.0}
    asked["negative_prompt"] = "a grey dog"
    (drawn,) = worker.draw(shown_to(models["qwen-image-edit-plus"], [put(files, one) for one in pictures], **asked))
    assert_same(pixels(drawn), flow_truth("qwen-image-edit-plus", image=pictures, **asked))


@covers("batch", "LoRA", form="folder", kind="kind")
@pytest.mark.parametrize("kind", ["qwen-image-edit", "qwen-image-edit-plus"])
def test_rows_of_edits_share_calls_with_those_of_pictures_of_the_same_shape(
    worker: WorkerProcess, files: Path, models: Models, make: Make, kind: str
) -> None:
    """Texts of other lengths too."""
    a, one, other = make(kind, "edit-a", seed=303), put(files, photo(1, 64, 64)), put(files, photo(2, 90, 90))
    model, asked = models[kind], {"steps": 2, "guidance_scale": 1.0}
    worker.draw(with_loras(shown_to(model, [one], "warm", **asked), (a, 1.0)))
    assert_each_is_as_alone(
        worker,
        [
            with_loras(shown_to(model, [one], "a", **asked), (a, 0.8)),
            shown_to(model, [other], "b", **(asked | {"prompt": "a blue bird on a tall tree"})),
        ],
    )


@pytest.mark.parametrize("kind", ["qwen-image-edit", "qwen-image-edit-plus"])
def test_what_qwen_cannot_edit(worker: WorkerProcess, files: Path, models: Models, kind: str) -> None:
    thin, picture = put(files, photo(1, 8, 1000)), put(files, photo(1, 64, 64))
    for shown, more, field, why in (
        ([], {}, "references", "edits what it is shown"),
        ([thin], {}, "references", "too narrow"),
        ([picture], {"prompt": "a <|image_pad|>"}, "prompt", "stands for a picture"),
    ):
        failed = worker.fail(shown_to(models[kind], shown, **more))
        assert failed.error.reason == "INVALID_FIELD" and failed.error.message.startswith(f"{field}: ")
        assert why in failed.error.message


@pytest.mark.parametrize(
    "settings", [{"min_pixels": 1 << 40}, {"patch_size": 0}, {"merge_size": 1 << 20}, {"temporal_patch_size": 1e9}]
)
def test_a_processors_settings_that_would_take_all_memory_are_refused(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(tiny_flows.PROCESSOR | settings))
    with pytest.raises(ValueError, match="settings are none of"):
        Processor.of(tmp_path, None)


@pytest.mark.parametrize("kind", ["flux2", "flux-kontext"])
def test_outside_a_mask_the_start_comes_back_beside_what_is_shown(
    worker: WorkerProcess, files: Path, models: Models, kind: str
) -> None:
    start, mask = photo(1, 64, 64), spotted()
    given, white = put(files, start), put(files, mask)
    references = [jobs_pb2.Reference(sha256=given.sha256)]
    shown, plain = worker.draw(
        submit_over(models[kind], given, "a", mask=white, strength=1.0, references=references),
        submit_over(models[kind], given, "b", mask=white, strength=1.0),
    )
    kept = np.asarray(mask) == 0
    assert np.array_equal(pixels(shown)[kept], np.asarray(start)[kept])
    assert far(pixels(shown)[~kept], pixels(plain)[~kept]) > 0


@pytest.mark.parametrize("kind", ["flux-kontext", "qwen-image-edit", "qwen-image-edit-plus"])
@pytest.mark.parametrize("own", [(64, 64), (1920, 1080), (333, 1000), (3024, 4032)])
def test_what_is_drawn_unasked_has_the_size_of_what_is_shown(
    pipelines: Pipelines, kind: str, own: tuple[int, int]
) -> None:
    """So that nothing moves, or grows, that the words leave as it is."""
    family = trainable.family_of(pipelines(kind), CPU.place)
    row = next(row for row in registry.ROWS if row.id == kind)
    assert family.lay(own).encoded.size == row.beside(*own)
