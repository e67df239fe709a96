"""Models added, pulled, named and removed, at a real daemon with a hub of its own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from craft_protos import models_pb2 as pb

from tests.daemon import hub as hubs
from tests.daemon.harness import Daemon, field, reason, running
from tests.daemon.hub import COMMIT, Answer, Hub, Repository
from tests.daemon.safetensors import write_checkpoint
from tests.home import HANG_S, MODEL, Home, write_model
from tests.raw_safetensors import safetensors, tensor

NAME = "some-org/flat-diffusion"
SOURCE = f"{NAME}@{COMMIT}"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def _weights(size: int) -> bytes:
    """safetensors of one tensor."""
    return safetensors({"w": tensor([size], 0, size, "U8")}, bytes(size))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A repository as they are: two precisions, pickles and pictures beside what is needed."""
    folder = write_model(tmp_path_factory.mktemp("repository") / "model")
    (folder / "vae" / WEIGHTS).write_bytes(_weights(2000))
    half = folder / "unet" / WEIGHTS.replace(".safetensors", ".fp16.safetensors")
    shutil.copy(folder / "unet" / WEIGHTS, half)
    for name in ("unet/diffusion_pytorch_model.bin", "unet/model.onnx", "flax_model.msgpack", "README.md", "a.png"):
        (folder / name).write_bytes(b"not needed " * 500)
    return hubs.folder(folder)


@pytest.fixture
def repository(files: dict[str, bytes]) -> Repository:
    return Repository(NAME, dict(files), revisions=("main", "v1"))


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    with hubs.serving(repository) as one:
        yield one


@pytest.fixture
def home(make_home: Callable[..., Home], hub: Hub, tmp_path: Path) -> Home:
    return make_home(**hubs.environment(hub, tmp_path / "hf"))


@pytest.fixture
async def daemon(home: Home) -> AsyncIterator[Daemon]:
    async with running(home) as one:
        yield one


def _pull(name: str = "", *, repository: str = NAME, **more: Any) -> pb.ImportModelRequest:
    source = {"repository": repository, "revision": more.pop("revision", ""), "file": more.pop("file", "")}
    return pb.ImportModelRequest(hub=pb.HubSource(**source), name=name, **more)


async def _import(daemon: Daemon, request: pb.ImportModelRequest) -> list[pb.ImportModelEvent]:
    return [event async for event in daemon.models.ImportModel(request)]


async def _model(daemon: Daemon, request: pb.ImportModelRequest) -> pb.Model:
    return (await _import(daemon, request))[-1].model


async def _refused(daemon: Daemon, request: pb.ImportModelRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _import(daemon, request)
    return caught.value


async def _names(daemon: Daemon) -> list[str]:
    listed = await daemon.models.ListModels(pb.ListModelsRequest())
    return [model.name for model in listed.models]


async def test_a_pulled_model_draws_and_is_pinned(daemon: Daemon, hub: Hub) -> None:
    events = await _import(daemon, _pull())
    model = events[-1].model
    assert (model.name, model.source, model.refused) == ("flat-diffusion", SOURCE, "")
    needed = {"model_index.json", "scheduler/scheduler_config.json"}
    needed |= {f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", WEIGHTS)}
    assert set(hub.downloads()) == needed
    assert any(event.progress.doing.startswith("downloading unet/") for event in events)
    job = await daemon.finish((await daemon.create(model="flat-diffusion")).id)
    assert job.images
    assert (await _model(daemon, _pull(revision="v1"))).name == "flat-diffusion"  # the same commit
    assert set(hub.downloads()) == needed


async def test_a_plan_downloads_nothing_but_the_index(daemon: Daemon, hub: Hub) -> None:
    (*_, planned) = await _import(daemon, _pull(plan_only=True))
    assert (planned.plan.source, planned.plan.files) == (SOURCE, 6)
    assert 0 < planned.plan.download_bytes < planned.plan.free_bytes
    assert hub.downloads() == ["model_index.json"]
    assert "flat-diffusion" not in await _names(daemon)


async def test_half_precision_is_pulled_where_the_device_computes_in_it(
    make_home: Callable[..., Home], hub: Hub, tmp_path: Path
) -> None:
    home = make_home(**hubs.environment(hub, tmp_path), CRAFT_WORKER_PRECISION="fp16")
    async with running(home) as daemon:
        await _import(daemon, _pull())
    assert {name for name in hub.downloads() if name.startswith("unet/diffusion")} == {
        f"unet/{WEIGHTS.replace('.safetensors', '.fp16.safetensors')}"
    }


async def test_removing_deletes_what_craft_downloaded_and_nothing_else(daemon: Daemon, tmp_path: Path) -> None:
    await _import(daemon, _pull())
    cache = tmp_path / "hf" / "hub" / "models--some-org--flat-diffusion"
    other = cache / "blobs" / "another-programs"
    other.write_text("mine")
    size = (await daemon.models.GetModel(pb.GetModelRequest(name="flat-diffusion"))).size_bytes
    freed = (await daemon.models.DeleteModel(pb.DeleteModelRequest(name="flat-diffusion"))).freed_bytes
    assert 0 < freed <= size  # equal files are one blob
    assert [path.name for path in (cache / "blobs").iterdir()] == ["another-programs"]
    assert "flat-diffusion" not in await _names(daemon)


async def test_what_was_in_the_cache_before_stays(daemon: Daemon, hub: Hub, tmp_path: Path) -> None:
    """Another program had downloaded one of the files."""
    from craftd.hub.cache import Cache
    from huggingface_hub import constants

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        (config,) = [s for s in hub.repositories[NAME].listing()["siblings"] if s["rfilename"] == "unet/config.json"]
        blob = Cache(NAME).folder / "blobs" / config["blobId"]
        blob.parent.mkdir(parents=True)
        blob.write_bytes(hub.repositories[NAME].files["unet/config.json"])
    await _import(daemon, _pull())
    await daemon.models.DeleteModel(pb.DeleteModelRequest(name="flat-diffusion"))
    assert list(blob.parent.iterdir()) == [blob]


async def test_what_cannot_be_imported(daemon: Daemon) -> None:
    wrong = [
        (_pull(repository="nobody/nothing"), "UNKNOWN_REPOSITORY"),
        (_pull(revision="v9"), "UNKNOWN_REPOSITORY"),
        (_pull(file="other.safetensors"), "UNKNOWN_REPOSITORY"),
        (_pull(file="unet/diffusion_pytorch_model.bin"), "UNSAFE_FORMAT"),
        (_pull(repository="../../etc"), "INVALID_FIELD"),
        (_pull(name="../x"), "INVALID_FIELD"),
        (_pull(name=MODEL), "NAME_TAKEN"),
        (pb.ImportModelRequest(), "INVALID_FIELD"),
        (pb.ImportModelRequest(path="relative"), "INVALID_FIELD"),
        (pb.ImportModelRequest(path="/not/there"), "NO_INPUT"),
    ]
    for asked, expected in wrong:
        assert reason(await _refused(daemon, asked)) == expected, asked


Spoil = Callable[[Repository], object]


def _pickled(repository: Repository) -> None:
    repository.files = {name: body for name, body in repository.files.items() if not name.startswith("unet/diffusion")}
    repository.files["unet/diffusion_pytorch_model.bin"] = b"PK\3\4"


def _evil_config(repository: Repository) -> None:
    repository.files["unet/config.json"] = json.dumps({"auto_map": {"AutoModel": "evil.Evil"}}).encode()


def _page(repository: Repository) -> None:
    repository.files[f"unet/{WEIGHTS}"] = b"<!DOCTYPE html><html>sign in</html>" * 50


def _shard_above(repository: Repository) -> None:
    index = {"weight_map": {"w": "../../../x.safetensors"}}
    repository.files[f"unet/{WEIGHTS.replace('.', '-00001-of-00001.')}"] = repository.files[f"unet/{WEIGHTS}"]
    repository.files[f"unet/{WEIGHTS}.index.json"] = json.dumps(index).encode()


def _foreign_part(repository: Repository) -> None:
    index = json.loads(repository.files["model_index.json"])
    repository.files["model_index.json"] = json.dumps({**index, "../up": ["diffusers", "UNet2DModel"]}).encode()


def _no_index(repository: Repository) -> None:
    del repository.files["model_index.json"]


def _torn(repository: Repository) -> None:
    repository.answers[f"unet/{WEIGHTS}"] = Answer(body=b"torn")


_HOSTILE: list[tuple[Spoil, str]] = [
    (_pickled, "UNSAFE_FORMAT"),
    (_evil_config, "UNSAFE_CONFIG"),
    (_page, "CORRUPT_FILE"),
    (_shard_above, "UNSAFE_PATH"),
    (_foreign_part, "UNSAFE_PATH"),
    (_no_index, "UNSUPPORTED_MODEL"),
    (_torn, "CORRUPT_FILE"),
]


async def test_a_hostile_repository_leaves_nothing(
    daemon: Daemon, hub: Hub, files: dict[str, bytes], tmp_path: Path
) -> None:
    before = await _names(daemon)
    for spoil, expected in _HOSTILE:
        name = f"hostile/{spoil.__name__.strip('_')}"
        hub.repositories[name] = Repository(name, dict(files))
        spoil(hub.repositories[name])
        assert reason(await _refused(daemon, _pull(repository=name))) == expected, name
    assert await _names(daemon) == before
    assert (await daemon.finish((await daemon.create()).id)).images  # the next request is served
    whole = tmp_path / "hf/hub/models--hostile--evil_config/snapshots"  # it had come before it could be checked
    assert [path for path in whole.rglob("*") if path.is_file()] == []


async def test_a_killed_daemon_leaves_no_torn_model_and_the_next_goes_on(
    home: Home, hub: Hub, repository: Repository
) -> None:
    big = _weights(200_000)
    repository.files[f"unet/{WEIGHTS}"] = big
    repository.most_bytes = 120_000
    loop, asked_again, killed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold_the_second(path: str) -> None:
        if hub.downloads().count(f"unet/{WEIGHTS}") == 2:
            loop.call_soon_threadsafe(asked_again.set)
            killed.wait(HANG_S)

    hub.on_request = hold_the_second
    async with running(home) as first:
        importing = asyncio.create_task(_import(first, _pull()))
        await asked_again.wait()
        first.process.send_signal(signal.SIGKILL)
        await asyncio.wait([importing])
    killed.set()
    hub.on_request = lambda path: None
    repository.most_bytes = None
    hub.asked.clear()
    async with running(home) as second:
        assert "flat-diffusion" not in await _names(second)
        model = await _model(second, _pull())
        assert model.refused == ""
        ranges = [headers.get("range") for path, headers in hub.asked if path.endswith(f"unet/{WEIGHTS}")]
        assert ranges == ["bytes=120000-"]
        freed = (await second.models.DeleteModel(pb.DeleteModelRequest(name=model.name))).freed_bytes
        assert freed > len(big)  # what came before the kill is craft's to delete too


async def test_a_caller_who_goes_away_ends_the_download(daemon: Daemon, hub: Hub, repository: Repository) -> None:
    repository.answers[f"unet/{WEIGHTS}"] = Answer(is_endless=True, length=1 << 40)
    repository.edit = lambda listing: [
        one["lfs"].update(size=1 << 33) if "lfs" in one else one.update(size=1 << 33)
        for one in listing["siblings"]
        if one["rfilename"] == f"unet/{WEIGHTS}"
    ]
    call = daemon.models.ImportModel(_pull())
    async for event in call:
        if event.progress.doing.startswith("downloading unet/diffusion"):
            break
    call.cancel()
    job = await daemon.finish((await daemon.create()).id)  # the front is as quick as ever
    assert job.images
    await daemon.stop(signal.SIGTERM)


async def test_names_and_aliases_outlive_the_daemon(home: Home) -> None:
    async with running(home) as first:
        await _import(first, _pull("flatter"))
        await first.models.SetAlias(pb.SetAliasRequest(alias="f", model="flatter"))
        job = await first.finish((await first.create(model="f")).id)
        assert job.generate.model == "flatter"
    async with running(home) as second:
        model = await second.models.GetModel(pb.GetModelRequest(name="f"))
        assert (model.name, list(model.aliases), model.source) == ("flatter", ["f"], SOURCE)
        moved = await second.models.SetAlias(pb.SetAliasRequest(alias="f", model=MODEL))
        assert (moved.name, list(moved.aliases)) == (MODEL, ["f"])
        await second.models.DeleteAlias(pb.DeleteAliasRequest(alias="f"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.models.GetModel(pb.GetModelRequest(name="f"))
        assert reason(caught.value) == "UNKNOWN_MODEL"


async def test_names_are_unique_and_safe(daemon: Daemon) -> None:
    await daemon.models.SetAlias(pb.SetAliasRequest(alias="f", model=MODEL))
    assert reason(await _refused(daemon, _pull("f"))) == "NAME_TAKEN"
    bad = {("../f", MODEL): "INVALID_FIELD", ("g", "nothing"): "UNKNOWN_MODEL", (MODEL, MODEL): "NAME_TAKEN"}
    for (alias, model), expected in bad.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await daemon.models.SetAlias(pb.SetAliasRequest(alias=alias, model=model))
        assert reason(caught.value) == expected
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await daemon.models.DeleteAlias(pb.DeleteAliasRequest(alias="none"))
    assert field(caught.value) == "alias"


async def test_what_craft_came_with_and_what_lies_in_its_folder_stays(daemon: Daemon) -> None:
    for name in await _names(daemon):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await daemon.models.DeleteModel(pb.DeleteModelRequest(name=name))
        assert reason(caught.value) == "INVALID_FIELD"


async def test_a_model_that_jobs_need_is_not_removed(daemon: Daemon, home: Home) -> None:
    await _import(daemon, _pull())
    job = await daemon.create("[held]", model="flat-diffusion")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await daemon.models.DeleteModel(pb.DeleteModelRequest(name="flat-diffusion"))
    assert reason(caught.value) == "IN_USE"
    home.release()
    assert (await daemon.finish(job.id)).images
    await daemon.models.DeleteModel(pb.DeleteModelRequest(name="flat-diffusion"))
    assert "flat-diffusion" not in await _names(daemon)


async def test_a_folder_is_linked_where_it_lies(daemon: Daemon, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "my model!")
    model = await _model(daemon, pb.ImportModelRequest(path=str(folder)))
    assert (model.name, model.source, model.pipeline) == ("my-model", str(folder), "StableDiffusionPipeline")
    assert (await _model(daemon, pb.ImportModelRequest(path=str(folder)))).name == "my-model"
    assert (await daemon.finish((await daemon.create(model="my-model")).id)).images
    assert (await daemon.models.DeleteModel(pb.DeleteModelRequest(name="my-model"))).freed_bytes == 0
    assert (folder / "unet" / WEIGHTS).is_file()


async def test_a_checkpoint_of_one_file_is_linked_where_it_lies(daemon: Daemon, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "dream.safetensors", "sd1")
    (*_, planned) = await _import(daemon, pb.ImportModelRequest(path=str(path), plan_only=True))
    assert "nothing to download; StableDiffusionPipeline" in planned.progress.doing
    model = await _model(daemon, pb.ImportModelRequest(path=str(path)))
    assert (model.name, model.family, model.precision) == ("dream", "sd", "fp16")
    assert (model.defaults.width, model.defaults.sampler) == (512, "PNDM")
    assert (await daemon.finish((await daemon.create(model="dream", width=64, height=64)).id)).images
    await daemon.models.DeleteModel(pb.DeleteModelRequest(name="dream"))
    assert path.is_file()


async def test_a_checkpoint_is_pulled_by_its_name(daemon: Daemon, repository: Repository, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "xl.safetensors", "sdxl")
    repository.files = {"xl.safetensors": path.read_bytes()}
    error = await _refused(daemon, _pull())
    assert reason(error) == "UNSUPPORTED_MODEL"
    model = await _model(daemon, _pull(file="xl.safetensors"))
    assert (model.name, model.family, model.source) == ("xl", "sdxl", f"{SOURCE}:xl.safetensors")
    assert (await daemon.models.DeleteModel(pb.DeleteModelRequest(name="xl"))).freed_bytes == path.stat().st_size


async def test_bad_checkpoints_are_refused(daemon: Daemon, tmp_path: Path) -> None:
    """Rows 25 to 27 of the bad inputs, for one file."""
    import os

    cut = write_checkpoint(tmp_path / "cut.safetensors", "sd1")
    os.truncate(cut, cut.stat().st_size - 1)
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    (tmp_path / "old.ckpt").write_bytes(b"PK\3\4")
    (tmp_path / "sly.safetensors").write_bytes(b"PK\3\4" + b"\0" * 100)
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    write_checkpoint(tmp_path / "headless.safetensors", "sd1", without=("first_stage_model.", "cond_stage_model."))
    expected = {
        "cut.safetensors": "CORRUPT_FILE",
        "page.safetensors": "CORRUPT_FILE",
        "old.ckpt": "UNSAFE_FORMAT",
        "sly.safetensors": "UNSAFE_FORMAT",
        "pipe.safetensors": "UNSAFE_PATH",
        "nowhere.safetensors": "NO_INPUT",
        "headless.safetensors": "UNSUPPORTED_MODEL",
    }
    before = await _names(daemon)
    said = {}
    for name in expected:
        error = await _refused(daemon, pb.ImportModelRequest(path=str(tmp_path / name)))
        said[name] = reason(error)
        if name == "headless.safetensors":
            assert "sd1 without the VAE and the text encoder" in (error.details() or "")
    assert said == expected
    assert await _names(daemon) == before


@pytest.fixture
def control(tmp_path: Path, hub: Hub) -> Repository:
    """A ControlNet's, as they are: a configuration and its weights, and pickles of the same."""
    weights = write_checkpoint(tmp_path / WEIGHTS, "control-sd1").read_bytes()
    files = {
        "config.json": b'{"_class_name": "ControlNetModel"}',
        WEIGHTS: weights,
        "diffusion_pytorch_model.bin": b"x",
    }
    hub.repositories["some-org/sd-controlnet-canny"] = Repository("some-org/sd-controlnet-canny", files)
    return hub.repositories["some-org/sd-controlnet-canny"]


async def test_a_control_model_is_pulled_as_a_part_and_goes_with_its_files(
    daemon: Daemon, hub: Hub, control: Repository
) -> None:
    part = (await _import(daemon, _pull(repository=control.name)))[-1].part
    assert (part.name, part.kind) == ("sd-controlnet-canny", "control-sd1")
    assert part.description == "a ControlNet of Stable Diffusion 1, for canny"
    assert set(hub.downloads()) == {"config.json", WEIGHTS}
    deleted = await daemon.models.DeleteModel(pb.DeleteModelRequest(name=part.name))
    assert deleted.freed_bytes >= len(control.files[WEIGHTS])


@pytest.mark.parametrize(
    ("kind", "words"),
    [("CosmosControlNetModel", "craft draws with ControlNets of"), ("AutoencoderKL", "it is no diffusers folder")],
)
async def test_other_components_are_refused_before_they_come(
    daemon: Daemon, hub: Hub, control: Repository, kind: str, words: str
) -> None:
    control.files["config.json"] = json.dumps({"_class_name": kind}).encode()
    error = await _refused(daemon, _pull(repository=control.name))
    assert reason(error) == "UNSUPPORTED_MODEL" and words in str(error.details())
    assert set(hub.downloads()) == {"config.json"}
