"""Strangers' model folders: a zoo of hostile ones, each refused for what it is, and in time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import craftd
import pytest
from craft_protos.reasons import CraftError
from craftd.worker.inspection import model, tree

from tests import tiny_models
from tests.raw_safetensors import safetensors, tensor

Spoil = Callable[[Path], None]
UNET = "unet/diffusion_pytorch_model.safetensors"
ENOUGH_S = 60.0  # of a busy machine


def inspect(path: Path) -> dict[str, str]:
    """As the daemon has it done, within a time that would show a hang."""
    command = [sys.executable, "-m", "craftd.worker", "--inspect", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=ENOUGH_S, check=True)
    verdict: dict[str, str] = json.loads(done.stdout)
    return verdict


def judge(path: Path) -> dict[str, str]:
    """The same verdict, from within the test."""
    try:
        model.check(path)
    except CraftError as exc:
        return {"reason": exc.reason, "message": exc.message, "hint": exc.hint}
    return {"reason": "", "message": "", "hint": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models.cached("sd"), tmp_path / "stranger"))


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_good_models_pass(kind: str) -> None:
    assert inspect(tiny_models.cached(kind))["reason"] == ""


def test_the_built_in_model_would_pass() -> None:
    pocket = Path(craftd.__file__).parent / "pocket"
    if not pocket.is_dir():
        pytest.skip("this craft comes without its built-in model")
    assert judge(pocket)["reason"] == ""


def put(name: str, content: bytes | str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def exchange(name: str, make: Callable[[Path], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def config(name: str, **keys: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return spoil


def shard_index(shard: Any) -> Spoil:
    return put("unet/diffusion_pytorch_model.safetensors.index.json", json.dumps({"weight_map": {"w": shard}}))


def cut(name: str, by: int) -> Spoil:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - by)


def pickle_only(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / UNET).unlink()
        (folder / "unet" / name).write_bytes(b"\x80\x02}q\x00.")

    return spoil


def bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


ZOO: dict[str, tuple[str, str, Spoil]] = {
    # row 25
    "a .bin alone": ("UNSAFE_FORMAT", "diffusion_pytorch_model.bin", pickle_only("diffusion_pytorch_model.bin")),
    "a .ckpt alone": ("UNSAFE_FORMAT", "model.ckpt", pickle_only("model.ckpt")),
    "a .PT alone": ("UNSAFE_FORMAT", "model.PT", pickle_only("model.PT")),
    "a pickle named safetensors": ("UNSAFE_FORMAT", UNET, put(UNET, b"\x80\x02}q\x00." + b"x" * 99)),
    "a torch file named safetensors": ("UNSAFE_FORMAT", UNET, put(UNET, b"PK\x03\x04" + b"x" * 99)),
    # row 26
    "cut short": ("CORRUPT_FILE", "1036288 bytes, as its header says, found 1036188", cut(UNET, 100)),
    "cut to 5 bytes": ("CORRUPT_FILE", "only 5 bytes", put(UNET, b"12345")),
    "empty": ("CORRUPT_FILE", "only 0 bytes", put(UNET, b"")),
    "a page of HTML": ("CORRUPT_FILE", "found an HTML page", put(UNET, "<!DOCTYPE html><title>Sign in</title>")),
    "a config of HTML": ("CORRUPT_FILE", "found an HTML page", put("unet/config.json", "<html>404</html>")),
    "an LFS pointer": ("CORRUPT_FILE", "Git LFS", put(UNET, "version https://git-lfs.github.com/spec/v1\noid ...")),
    "bytes at its end": ("CORRUPT_FILE", "found", put(UNET, safetensors({"w": tensor([1], 0, 4)}, bytes(5)))),
    "no index": ("CORRUPT_FILE", "model_index.json", lambda folder: (folder / "model_index.json").unlink()),
    "no index, and a link out": ("CORRUPT_FILE", "model_index.json", lambda folder: (
        (folder / "model_index.json").unlink(), (folder / "x").symlink_to("/usr"))),
    "a part that is missing": ("CORRUPT_FILE", "'unet'", lambda folder: shutil.rmtree(folder / "unet")),
    # row 27
    "a shard above": ("UNSAFE_PATH", "'../x.safetensors'", shard_index("../x.safetensors")),
    "an absolute shard": ("UNSAFE_PATH", "'/etc/passwd'", shard_index("/etc/passwd")),
    "a shard of Windows'": ("UNSAFE_PATH", "C:", shard_index("C:\\x.safetensors")),
    "a shard named ..": ("UNSAFE_PATH", "'..'", shard_index("..")),
    "a shard that is a number": ("CORRUPT_FILE", "names of files", shard_index(1)),
    "a shard that is missing": ("CORRUPT_FILE", "beside it", put(
        "unet/diffusion_pytorch_model.safetensors.index.json",
        json.dumps({"weight_map": {"v": "no.safetensors", "w": "diffusion_pytorch_model.safetensors"}}))),
    "a tensor that is missing": ("CORRUPT_FILE", "'w'", shard_index("diffusion_pytorch_model.safetensors")),
    "a shard of a pickle above": ("UNSAFE_PATH", "'../x.bin'", put(
        "unet/pytorch_model.bin.index.json", json.dumps({"weight_map": {"w": "../x.bin"}}))),
    "a link out": ("UNSAFE_PATH", "link out", exchange(UNET, lambda path: path.symlink_to("/etc/passwd"))),
    "a link out, in passing": ("UNSAFE_PATH", "notes", exchange("notes", lambda path: path.symlink_to("../"))),
    "a folder that is a link out": ("UNSAFE_PATH", "more", exchange("more", lambda path: path.symlink_to("/usr"))),
    "a link to itself": ("UNSAFE_PATH", "circle", exchange(UNET, lambda path: path.symlink_to(path.name))),
    "a link to nothing": ("CORRUPT_FILE", "nothing", exchange(UNET, lambda path: path.symlink_to("nowhere"))),
    "a pipe": ("UNSAFE_PATH", "a named pipe", exchange(UNET, os.mkfifo)),
    "a pipe as the index": ("UNSAFE_PATH", "a named pipe", exchange("model_index.json", os.mkfifo)),
    "a pipe in passing": ("UNSAFE_PATH", "a named pipe", exchange("unet/.x", os.mkfifo)),
    "a socket": ("UNSAFE_PATH", "a socket", exchange("unet/x", bind)),
    "a name with a newline": ("UNSAFE_PATH", r"'a\nb'", put("a\nb", "")),
    "a name that colours": ("UNSAFE_PATH", r"\x1b[31m", put("\x1b[31m", "")),
    "a part above": ("UNSAFE_PATH", "'../unet'", config("model_index.json", **{"../unet": ["diffusers", "X"]})),
    "a vocabulary elsewhere": ("UNSAFE_PATH", "vocab_file", config(
        "tokenizer/tokenizer_config.json", vocab_file="/etc/passwd")),
    # JSON
    "100,000 deep": ("CORRUPT_FILE", "deep", put("unet/config.json", '{"a":' * 100_000 + "1" + "}" * 100_000)),
    "100 deep": ("CORRUPT_FILE", "deep", put("unet/config.json", '{"a":' * 100 + "1" + "}" * 100)),
    "100,000 deep, a list": ("CORRUPT_FILE", "deep", put("model_index.json", "[" * 100_000 + "]" * 100_000)),
    "a key twice": ("CORRUPT_FILE", "'a' twice", put("unet/config.json", '{"a": 1, "a": 2}')),
    "a config of 5 MB": ("CORRUPT_FILE", "at most", put("unet/config.json", json.dumps({"a": "x" * 5_000_000}))),
    "a config that is a list": ("CORRUPT_FILE", "a JSON object", put("vae/config.json", "[1]")),
    "a config of no JSON": ("CORRUPT_FILE", "expected JSON", put("vae/config.json", b"\xff\xfe\x00")),
    "a number of 10,000 digits": ("CORRUPT_FILE", "JSON", put("vae/config.json", '{"a": ' + "9" * 10_000 + "}")),
    "14 million lists": ("CORRUPT_FILE", "lists and objects", put(
        "tokenizer/vocab.json", b'{"a":[' + b"[]," * 14_000_000 + b"1]}")),
    # keys that reach imports, kernels, the hub
    "auto_map": ("UNSAFE_CONFIG", "auto_map", config("unet/config.json", auto_map={"AutoModel": "evil.Evil"})),
    "trust_remote_code": ("UNSAFE_CONFIG", "trust", config("text_encoder/config.json", trust_remote_code=True)),
    "custom_pipeline": ("UNSAFE_CONFIG", "custom", config("model_index.json", custom_pipeline="a/b")),
    "a kernel": ("UNSAFE_CONFIG", "attn", config("text_encoder/config.json", attn_implementation="a/kernel")),
    "a kernel, below": ("UNSAFE_CONFIG", "attn", config(
        "text_encoder/config.json", text_config=[{"_attn_implementation": "a/kernel"}])),
    "kernels by part": ("UNSAFE_CONFIG", "attn", config("text_encoder/config.json", attn_implementation={"": "a/k"})),
    "experts": ("UNSAFE_CONFIG", "experts", config("text_encoder/config.json", _experts_implementation="a/b")),
    "a quantized part": ("UNSUPPORTED_MODEL", "quant", config("unet/config.json", quantization_config={"load": 1})),
    "an adapter": ("UNSAFE_CONFIG", "adapter", put("unet/adapter_config.json", '{"base_model_name_or_path": "a/b"}')),
    # the index
    "a part of os": ("UNSAFE_CONFIG", "'os'", config("model_index.json", unet=["os", "System"])),
    "a part of its own": ("UNSAFE_CONFIG", "'my_unet'", config("model_index.json", unet=["my_unet", "UNet"])),
    "a dotted library": ("UNSAFE_CONFIG", "diffusers.x", config("model_index.json", unet=["diffusers.x", "UNet"])),
    "a function as a part": ("UNSAFE_CONFIG", "'exec'", config("model_index.json", unet=["diffusers", "exec"])),
    "a dotted class": ("UNSAFE_CONFIG", "A.b", config("model_index.json", unet=["diffusers", "A.b"])),
    "a part of three": ("UNSAFE_CONFIG", "no library", config("model_index.json", unet=["diffusers", "A", "B"])),
    "a part of objects": ("UNSAFE_CONFIG", "no library", config("model_index.json", unet=[{"a": 1}, "B"])),
    "a pipeline of its own": ("UNSAFE_CONFIG", "class", config("model_index.json", _class_name=["pipeline", "My"])),
    "no pipeline": ("UNSUPPORTED_MODEL", "no pipeline", config("model_index.json", _class_name="UNet")),
    # headers
    "a header of 2^63 bytes": ("CORRUPT_FILE", "header", put(UNET, struct.pack("<Q", 1 << 63) + b'{"a":1}')),
    "a header of 1 GB": ("CORRUPT_FILE", "header", exchange(
        UNET, lambda path: (path.write_bytes(struct.pack("<Q", 1 << 30) + b"{"), os.truncate(path, 2 << 30)))),
    "a header beyond its file": ("CORRUPT_FILE", "header", put(UNET, struct.pack("<Q", 999) + b"{}")),
    "a header that is a list": ("CORRUPT_FILE", "header", put(UNET, safetensors([1]))),
    "a header 100,000 deep": ("CORRUPT_FILE", "deep", put(UNET, safetensors(b'{"a":' * 10**5 + b"}" * 10**5))),
    "a tensor twice": ("CORRUPT_FILE", "twice", put(
        UNET, safetensors(b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{}}'))),
}  # fmt: skip

# Where a checker without limits would hang or eat the machine: in a process, as the daemon has it.
CONFINED = {"a pipe", "a pipe as the index", "a shard above", "100,000 deep", "a header of 1 GB", "14 million lists"}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo(name: str, folder: Path) -> None:
    reason, says, spoil = ZOO[name]
    spoil(folder)
    begun = time.monotonic()
    verdict = (inspect if name in CONFINED else judge)(folder)
    assert verdict["reason"] == reason
    assert says in verdict["message"]
    assert verdict["hint"]
    assert verdict["message"].isprintable() and len(verdict["message"]) < 500
    assert time.monotonic() - begun < ENOUGH_S


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device(folder: Path) -> None:
    try:
        os.mknod(folder / "unet" / "x", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("not even root makes devices here")
    assert inspect(folder)["reason"] == "UNSAFE_PATH"


def test_the_conversion_of_a_pickle_is_a_command(folder: Path) -> None:
    pickle_only("diffusion_pytorch_model.bin")(folder)
    hint = judge(folder)["hint"]
    assert "python -c" in hint and "save_pretrained" in hint and str(folder) in hint


def test_pickles_beside_safetensors_are_left_alone(folder: Path) -> None:
    put("unet/diffusion_pytorch_model.bin", b"\x80\x02}q\x00.")(folder)
    assert judge(folder)["reason"] == ""


def test_parts_that_craft_leaves_out_need_not_be_there(folder: Path) -> None:
    config("model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])(folder)
    assert judge(folder)["reason"] == ""


def test_harmless_values_of_dangerous_keys_pass(folder: Path) -> None:
    config("text_encoder/config.json", _attn_implementation="sdpa", auto_map=None, trust_remote_code=False)(folder)
    config("tokenizer/tokenizer_config.json", special_tokens_map_file="/home/maker/special_tokens_map.json")(folder)
    config("scheduler/scheduler_config.json", lambda_min_clipped=float("-inf"))(folder)
    assert judge(folder)["reason"] == ""


def test_links_inside_and_a_linked_folder_pass(folder: Path, tmp_path: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "real")
    (folder / UNET).symlink_to("real")
    (folder / "vae").rename(folder / "other")
    (folder / "vae").symlink_to("other")
    (tmp_path / "entry").symlink_to(folder)
    assert judge(tmp_path / "entry")["reason"] == ""
    os.truncate(folder / "other" / "diffusion_pytorch_model.safetensors", 1000)
    assert judge(tmp_path / "entry")["reason"] == "CORRUPT_FILE"


def _as_hub_cache(folder: Path, cache: Path) -> Path:
    """The layout of huggingface_hub: names in a snapshot, contents among the blobs."""
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "abc", cache / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def test_a_snapshot_of_the_hubs_cache_passes(folder: Path, tmp_path: Path) -> None:
    snapshot = _as_hub_cache(folder, tmp_path / "hub")
    assert judge(snapshot)["reason"] == ""


def test_a_snapshot_may_not_link_to_another_repository(folder: Path, tmp_path: Path) -> None:
    snapshot = _as_hub_cache(folder, tmp_path / "hub")
    other = tmp_path / "hub" / "models--c--d" / "blobs"
    other.mkdir(parents=True)
    (other / "1").write_text("{}")
    (snapshot / "unet" / "more.json").symlink_to(other / "1")
    assert judge(snapshot)["reason"] == "UNSAFE_PATH"


def test_a_sharded_part_passes(folder: Path) -> None:
    (folder / UNET).unlink()
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for name in names:
        put(f"unet/{name}", safetensors({name: tensor([2, 1], 0, 8)}, bytes(8)))(folder)
    index = {"metadata": {"total_size": 16}, "weight_map": {name: name for name in names}}
    put("unet/diffusion_pytorch_model.safetensors.index.json", json.dumps(index))(folder)
    assert judge(folder)["reason"] == ""


def test_too_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MOST_ENTRIES", 50)
    for number in range(50):
        (folder / "vae" / f"{number}").touch()
    assert "at most 50 files" in judge(folder)["message"]


def test_no_library_is_imported_and_nothing_can_be_written(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from craftd.worker.inspection import process;"
        f"process.run(Path({str(folder)!r}));"
        "print([name for name in ('torch', 'safetensors', 'google.protobuf', 'socket') if name in sys.modules]);"
        f"os.write(os.open({str(folder / 'x')!r}, os.O_CREAT | os.O_WRONLY), b'x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=ENOUGH_S, check=False, text=True)
    assert done.stdout.splitlines()[1] == "[]"
    assert "File too large" in done.stderr and (folder / "x").stat().st_size == 0
