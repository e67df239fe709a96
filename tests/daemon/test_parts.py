"""Networks alone, text encoders and VAEs in files of their own, at a real daemon: found, shared, refused, removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from craft_protos import models_pb2 as pb
from craft_protos import reasons
from craftd import safetensors
from craftd.architectures import detect, parts
from craftd.models import checkpoint
from craftd.models.part import Given, Part

from tests.daemon.harness import Daemon, reason, running
from tests.daemon.safetensors import KINDS, PARTS, write_checkpoint
from tests.home import Home, write_model

Z_IMAGE = "z_image_turbo_bf16.safetensors"


@pytest.fixture
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    async with running(home) as one:
        yield one


@pytest.fixture
def comfy(tmp_path: Path) -> Path:
    """ComfyUI's folders, as people have them."""
    root = tmp_path / "ComfyUI" / "models"
    for name in ("diffusion_models", "text_encoders", "clip", "vae", "loras", "checkpoints", "unet"):
        (root / name).mkdir(parents=True)
    write_checkpoint(root / "diffusion_models" / Z_IMAGE, "z-image")
    write_checkpoint(root / "unet" / "flux1-dev.safetensors", "flux-dev-bare")
    write_checkpoint(root / "text_encoders" / "qwen_3_4b.safetensors", "qwen3-4b")
    _tokenizer(root / "text_encoders" / "tokenizer")
    write_checkpoint(root / "clip" / "clip_l.safetensors", "clip-l")
    write_checkpoint(root / "clip" / "t5xxl_fp16.safetensors", "t5-xxl")
    write_checkpoint(root / "vae" / "ae.safetensors", "vae-16")
    write_checkpoint(root / "checkpoints" / "dream.safetensors", "sd1")
    return root


def _tokenizer(folder: Path) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')


async def _add(daemon: Daemon, path: Path, **more: object) -> pb.ImportModelEvent:
    request = pb.ImportModelRequest(path=str(path), **more)  # type: ignore[arg-type]
    return [event async for event in daemon.models.ImportModel(request)][-1]


async def _refused(daemon: Daemon, path: Path, **more: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _add(daemon, path, **more)
    return caught.value


async def _parts(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    listed = await daemon.models.ListParts(pb.ListPartsRequest())
    return {part.name: tuple(part.used_by) for part in listed.parts if part.source != "built in"}


async def _folder(daemon: Daemon, root: Path, *, plan_only: bool = False) -> dict[str, pb.FolderEntry]:
    request = pb.ImportFolderRequest(path=str(root), plan_only=plan_only)
    events = [event async for event in daemon.models.ImportFolder(request)]
    return {event.entry.path: event.entry for event in events if event.HasField("entry")}


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_what_part_it_is(tmp_path: Path, kind: str) -> None:
    found = detect.of_part(safetensors.read(write_checkpoint(tmp_path / "it.safetensors", kind)))
    assert found is not None and found.kind.id == kind


@pytest.mark.parametrize("kind", sorted(set(KINDS) - set(PARTS) - {"vae"}))
def test_what_is_no_part_alone(tmp_path: Path, kind: str) -> None:
    assert detect.of_part(safetensors.read(write_checkpoint(tmp_path / "it.safetensors", kind))) is None


@pytest.mark.parametrize(
    ("kind", "name", "folder", "missing"),
    [
        ("z-image", Z_IMAGE, "z-image-turbo", ["vae", "text_encoder"]),
        ("z-image-bare", "zit-mix.safetensors", "z-image-turbo", ["vae", "text_encoder"]),
        ("z-image-prefixed", "z_image_bf16.safetensors", "z-image", ["vae", "text_encoder"]),
        ("flux2-klein-9b", "flux-2-klein-9b.safetensors", "flux2-klein-9b", ["vae", "text_encoder"]),
        ("flux2-klein-9b", "flux-2-klein-base-9b.safetensors", "flux2-klein-base-9b", ["vae", "text_encoder"]),
        ("qwen-image-alone", "qwen_image_2512_fp8_e4m3fn.safetensors", "qwen-image", ["vae", "text_encoder"]),
        ("krea2-alone", "krea2_raw_bf16.safetensors", "krea2", ["vae", "text_encoder"]),
        ("krea2-alone", "krea2_turbo_bf16.safetensors", "krea2-turbo", ["vae", "text_encoder"]),
        ("flux-dev-bare", "flux1-dev.safetensors", "flux-dev", ["vae", "text_encoder", "text_encoder_2"]),
        ("flux-diffusers-alone", "flux.safetensors", "flux-schnell", ["vae", "text_encoder", "text_encoder_2"]),
        ("sd3.5-medium-bare", "sd3.5.safetensors", "sd3.5-medium", ["vae", "text_encoder", "text_encoder_2"]),
        ("sdxl-alone", "xl.safetensors", "sdxl", ["vae", "text_encoder", "text_encoder_2"]),
    ],
)
def test_a_network_alone(tmp_path: Path, kind: str, name: str, folder: str, missing: list[str]) -> None:
    header = safetensors.read(write_checkpoint(tmp_path / name, kind))
    found = detect.of_file(header, name)
    assert found.checkpoint.configurations_for(found.architecture.predicts, name) == folder
    assert [part.component for part in found.missing] == missing
    assert found.is_alone(header)
    with pytest.raises(detect.LacksParts) as caught:
        detect.of_checkpoint(header, name)
    for part in found.missing:
        assert part.kind is not None
        assert part.kind.published in caught.value.message
    assert checkpoint.read(tmp_path / name, name="it").refused == "UNSUPPORTED_MODEL"


def test_its_files_are_those_of_a_folder(tmp_path: Path) -> None:
    """Each part in its place of the pipeline, with configurations and vocabularies that come with craft."""
    path = write_checkpoint(tmp_path / "flux1-schnell.safetensors", "flux-diffusers-alone")
    kinds = {"text_encoder": "clip-l", "text_encoder_2": "t5-xxl", "vae": "vae-16"}
    given = [
        Given(component, Part(kind, write_checkpoint(tmp_path / f"{kind}.safetensors", kind), kind, "", ""))
        for component, kind in kinds.items()
    ]
    model = checkpoint.read(path, name="it", given=given)
    assert (model.refused, model.pipeline, model.precision) == ("", "FluxPipeline", "fp16")
    names = {file.path: file.source for file in model.files}
    for component in ("transformer", *kinds):
        assert f"{component}/config.json" in names
        assert f"{component}/component.safetensors" in names
    assert names["vae/component.safetensors"] == tmp_path / "vae-16.safetensors"
    assert {"tokenizer/vocab.json", "tokenizer_2/tokenizer.json", "scheduler/scheduler_config.json"} <= set(names)
    assert dict(model.parts) == kinds


async def test_parts_in_comfyuis_folders_are_found_and_shared(daemon: Daemon, comfy: Path) -> None:
    z_image = (await _add(daemon, comfy / "diffusion_models" / Z_IMAGE)).model
    assert (z_image.name, z_image.architecture, z_image.pipeline) == ("z_image_turbo_bf16", "z-image", "ZImagePipeline")
    assert (z_image.defaults.steps, z_image.defaults.guidance_scale) == (8, 0)
    assert {used.component: used.part for used in z_image.parts} == {"text_encoder": "qwen_3_4b", "vae": "ae"}
    flux = (await _add(daemon, comfy / "unet" / "flux1-dev.safetensors")).model
    assert {used.part for used in flux.parts} == {"clip_l", "t5xxl_fp16", "ae"}
    assert await _parts(daemon) == {
        "ae": ("flux1-dev", "z_image_turbo_bf16"),
        "clip_l": ("flux1-dev",),
        "qwen_3_4b": ("z_image_turbo_bf16",),
        "t5xxl_fp16": ("flux1-dev",),
    }
    assert (await daemon.finish((await daemon.create(model="flux1-dev", width=64, height=64)).id)).images


async def test_a_part_that_models_use_stays(daemon: Daemon, comfy: Path) -> None:
    await _add(daemon, comfy / "diffusion_models" / Z_IMAGE)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await daemon.models.DeleteModel(pb.DeleteModelRequest(name="qwen_3_4b"))
    assert reason(caught.value) == "IN_USE"
    assert "z_image_turbo_bf16 uses it" in (caught.value.details() or "")
    await daemon.models.DeleteModel(pb.DeleteModelRequest(name="z_image_turbo_bf16"))
    await daemon.models.DeleteModel(pb.DeleteModelRequest(name="qwen_3_4b"))
    assert await _parts(daemon) == {"ae": ()}
    assert (comfy / "text_encoders" / "qwen_3_4b.safetensors").is_file()


async def test_what_is_missing_is_said_with_where_it_is_published(daemon: Daemon, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / Z_IMAGE, "z-image")
    error = await _refused(daemon, path)
    assert reason(error) == "UNSUPPORTED_MODEL"
    said = error.details() or ""
    for words in ("qwen_3_4b.safetensors", parts.QWEN3_4B.published, "ae.safetensors", parts.FLUX_VAE.published):
        assert words in said
    assert await _parts(daemon) == {}


async def test_a_text_encoder_whose_vocabulary_is_nowhere(daemon: Daemon, comfy: Path) -> None:
    shutil.rmtree(comfy / "text_encoders" / "tokenizer")
    error = await _refused(daemon, comfy / "diffusion_models" / Z_IMAGE)
    assert reason(error) == "UNSUPPORTED_MODEL"
    assert "tokenizer" in (error.details() or "")
    assert await _parts(daemon) == {}


async def test_parts_are_named(daemon: Daemon, tmp_path: Path) -> None:
    """By path, and by the name of one that is registered; of another name than the usual."""
    path = write_checkpoint(tmp_path / "one" / "flux.safetensors", "flux-diffusers-alone")
    files = {kind: write_checkpoint(tmp_path / "elsewhere" / f"my-{kind}.safetensors", kind) for kind in PARTS}
    assert (await _add(daemon, files["clip-l"])).part.description == "the text encoder CLIP-L"
    asked = {"text_encoders": ["my-clip-l", str(files["t5-xxl"])], "vae": str(files["vae-16"])}
    model = (await _add(daemon, path, **asked)).model
    assert [used.part for used in model.parts] == ["my-clip-l", "my-t5-xxl", "my-vae-16"]
    for wrong, said in (
        ({"vae": str(files["vae-4"])}, "4 channels"),
        ({"text_encoders": [str(files["clip-g"])]}, "CLIP-G"),
    ):
        other = write_checkpoint(tmp_path / "two" / "other.safetensors", "flux-diffusers-alone")
        error = await _refused(daemon, other, **wrong)
        assert (reason(error), said in (error.details() or "")) == ("INVALID_FIELD", True)


async def test_equal_files_are_one_part(daemon: Daemon, tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "a" / "clip_l.safetensors", "clip-l")
    (tmp_path / "b").mkdir()
    shutil.copy(first, tmp_path / "b" / "text_encoder.safetensors")
    assert (await _add(daemon, first)).part.name == "clip_l"
    assert (await _add(daemon, tmp_path / "b" / "text_encoder.safetensors")).part.name == "clip_l"
    assert list(await _parts(daemon)) == ["clip_l"]


async def test_any_model_takes_another_vae(daemon: Daemon, tmp_path: Path) -> None:
    """A checkpoint and a folder, at first and later; and its own again."""
    vae = write_checkpoint(tmp_path / "vae-ft-mse.safetensors", "vae-4")
    path = write_checkpoint(tmp_path / "dream.safetensors", "sd1")
    model = (await _add(daemon, path, vae=str(vae))).model
    before = model.sha256
    assert [(used.component, used.part) for used in model.parts] == [("vae", "vae-ft-mse")]
    own = await daemon.models.UpdateModel(pb.UpdateModelRequest(name="dream", vae="own"))
    assert not own.parts
    assert (await daemon.finish((await daemon.create(model="dream", width=64, height=64)).id)).images
    again = await daemon.models.UpdateModel(pb.UpdateModelRequest(name="dream", vae="vae-ft-mse"))
    assert [used.part for used in again.parts] == ["vae-ft-mse"]
    assert (await daemon.models.GetModel(pb.GetModelRequest(name="dream"))).sha256 != before or before == ""
    headless = write_checkpoint(tmp_path / "headless.safetensors", "sd1", without=("first_stage_model.",))
    assert [used.part for used in (await _add(daemon, headless, vae="vae-ft-mse")).model.parts] == ["vae-ft-mse"]
    folder = (await _add(daemon, write_model(tmp_path / "even"), vae="vae-ft-mse")).model
    assert [used.part for used in folder.parts] == ["vae-ft-mse"]


async def test_they_outlive_the_daemon(home: Home, comfy: Path) -> None:
    async with running(home) as daemon:
        await _add(daemon, comfy / "diffusion_models" / Z_IMAGE)
    async with running(home) as daemon:
        assert await _parts(daemon) == {"ae": ("z_image_turbo_bf16",), "qwen_3_4b": ("z_image_turbo_bf16",)}
        (comfy / "vae" / "ae.safetensors").unlink()
        listed = await daemon.models.ListModels(pb.ListModelsRequest())
        (refused,) = [model.refused for model in listed.models if model.name == "z_image_turbo_bf16"]
        assert "ae.safetensors" in refused


async def test_a_folder_of_comfyuis_is_taken_in_with_one_yes(daemon: Daemon, comfy: Path) -> None:
    planned = await _folder(daemon, comfy, plan_only=True)
    assert await _parts(daemon) == {}
    done = await _folder(daemon, comfy)
    expected = {
        f"diffusion_models/{Z_IMAGE}": ("network", "Z-Image"),
        "unet/flux1-dev.safetensors": ("network", "FLUX.1"),
        "text_encoders/qwen_3_4b.safetensors": ("part", "the text encoder Qwen3-4B"),
        "clip/clip_l.safetensors": ("part", "the text encoder CLIP-L"),
        "clip/t5xxl_fp16.safetensors": ("part", "the text encoder T5-XXL"),
        "vae/ae.safetensors": ("part", "a VAE of 16 channels"),
        "checkpoints/dream.safetensors": ("checkpoint", "Stable Diffusion 1"),
    }
    for entries, state in ((planned, "new"), (done, "added")):
        assert {path: (one.what, one.description) for path, one in entries.items()} == expected
        assert {one.state for one in entries.values()} == {state}
    assert list(done[f"diffusion_models/{Z_IMAGE}"].uses) == ["qwen_3_4b", "ae"]
    assert {one.state for one in (await _folder(daemon, comfy)).values()} == {"here"}


async def test_a_folder_full_of_traps(daemon: Daemon, tmp_path: Path) -> None:
    """Pickles, pickles by another name, loops, pipes, names that cannot be shown, cut files: told, and nothing kept."""
    root = tmp_path / "models"
    (root / "vae").mkdir(parents=True)
    (root / "loop").symlink_to(root)
    (root / "round").symlink_to(root / "round")
    (root / "old.ckpt").write_bytes(b"PK\3\4")
    (root / "vae" / "sly.safetensors").write_bytes(b"PK\3\4" + b"\0" * 100)
    (root / "vae" / "page.safetensors").write_text("<!DOCTYPE html>")
    os.mkfifo(root / "pipe.safetensors")
    write_checkpoint(root / "bell\a\nname.safetensors", "vae-16")
    write_checkpoint(root / "good.safetensors", "sd1")
    (root / "gone.safetensors").symlink_to(tmp_path / "gone")
    found = await _folder(daemon, root)
    assert {path: one.state for path, one in found.items()} == {
        "bell\\x07\\nname.safetensors": "unknown",
        "gone.safetensors": "unknown",
        "good.safetensors": "added",
        "old.ckpt": "unknown",
        "pipe.safetensors": "unknown",
        "vae/page.safetensors": "unknown",
        "vae/sly.safetensors": "unknown",
    }
    assert all(one.description for one in found.values())
    assert await _parts(daemon) == {}


async def test_a_folder_without_end(daemon: Daemon, tmp_path: Path) -> None:
    for number in range(20_001):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _folder(daemon, tmp_path)
    assert reason(caught.value) == "CORRUPT_FILE"


@pytest.mark.parametrize("content", [b"PK\3\4" + b"\0" * 64, b"\x80\x04\x95", b"<!DOCTYPE html>"])
async def test_a_part_that_is_none(daemon: Daemon, tmp_path: Path, content: bytes) -> None:
    path = write_checkpoint(tmp_path / "flux.safetensors", "flux-diffusers-alone")
    evil = tmp_path / "elsewhere" / "clip_l.safetensors"
    evil.parent.mkdir()
    evil.write_bytes(content)
    assert reason(await _refused(daemon, path, text_encoders=[str(evil)])) in ("UNSAFE_FORMAT", "CORRUPT_FILE")
    assert reason(await _refused(daemon, evil)) in reasons.REASONS
    assert await _parts(daemon) == {}
