"""A stranger's LoRA file: refused for what it is, and in time; what it says about itself is data."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd.worker.inspection import finite, lora
from craftd.workers import inspector

from tests import lora_files
from tests.lora_files import POCKETS_WIDTH, kohya, layer, numbers, with_bits, write

ENOUGH_S = 60.0  # of a busy machine
ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def refusal(path: Path) -> CraftError:
    with pytest.raises(CraftError) as caught:
        lora.check(path)
    return caught.value


async def test_what_a_good_file_is(tmp_path: Path) -> None:
    tensors = {
        **layer(ATTENTION, width=768, rank=8),
        **layer("lora_unet_mid_block_resnets_0_conv1", rank=16, kernel=3),
        **layer("lora_te_text_model_encoder_layers_0_mlp_fc1"),
    }
    path = write(tmp_path / "it.safetensors", tensors, {"modelspec.trigger_phrase": "sks apple", "format": "pt"})
    found = await inspector.inspect_lora(path)
    data = path.read_bytes()
    assert (found.format, found.base, found.rank, found.layers) == ("kohya", "sd1", 16, 3)
    assert (found.has_conv, found.adapts_text_encoder, found.is_dora) == (True, True, False)
    assert (found.sha256, found.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert found.ss_hash == hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest()
    assert (found.trigger, found.metadata) == ("sks apple", {"modelspec.trigger_phrase": "sks apple"})


def _attn2(name: str, width: int, down: str = "lora_A.weight", up: str = "lora_B.weight") -> lora_files.Tensors:
    return {
        f"{name}.{down}": ("F32", (4, width), numbers(4 * width)),
        f"{name}.{up}": ("F32", (8, 4), numbers(32)),
    }


PEFT = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
PROCESSOR = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora"


@pytest.mark.parametrize(
    ("tensors", "metadata", "kind", "base"),
    [
        (_attn2(PEFT, 2048), {}, "peft", "sdxl"),
        (_attn2(PEFT, 1024), {}, "peft", "sd2"),
        (_attn2(PEFT, POCKETS_WIDTH), {}, "peft", "pocket"),
        (_attn2(PEFT, 17), {}, "peft", ""),
        (_attn2(PROCESSOR, 768, "down.weight", "up.weight"), {}, "diffusers", "sd1"),
        (
            _attn2(
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, "lora_down.weight", "lora_up.weight"
            ),
            {},
            "kohya",
            "sdxl",
        ),
        (_attn2("transformer.single_transformer_blocks.0.attn.to_q", 24), {}, "peft", "flux"),
        (
            _attn2("lora_unet_joint_blocks_0_x_block_attn_qkv", 24, "lora_down.weight", "lora_up.weight"),
            {},
            "kohya",
            "sd3",
        ),
        (_attn2("transformer.transformer_blocks.0.attn.to_q", 24), {}, "peft", ""),
        (
            _attn2("transformer.transformer_blocks.0.attn.to_q", 24),
            {"modelspec.architecture": "flux-1-dev/lora"},
            "peft",
            "flux",
        ),
        (_attn2("text_encoder.x", 24), {"ss_base_model_version": "sdxl_base_v1-0"}, "peft", "sdxl"),
        (_attn2(PEFT, 768), {"ss_base_model_version": "sdxl_base_v1-0"}, "peft", "sd1"),  # tensors do not err
    ],
)
def test_format_and_base(
    tmp_path: Path, tensors: lora_files.Tensors, metadata: dict[str, str], kind: str, base: str
) -> None:
    found = lora.check(write(tmp_path / "x.safetensors", tensors, metadata)).adapter
    assert (found.format, found.base, found.layers, found.rank) == (kind, base, 1, 4)


def test_a_dora_is_told(tmp_path: Path) -> None:
    dora = {**layer(ATTENTION), f"{ATTENTION}.dora_scale": ("F32", (1, POCKETS_WIDTH), numbers(POCKETS_WIDTH))}
    assert lora.check(write(tmp_path / "x.safetensors", dora)).adapter.is_dora


NOT_FINITE = {
    "F64": (math.nan, 0x7FF8000000000000, 0xFFF0000000000000),
    "F32": (math.nan, 0x7FC00000, 0x7F800000, 0xFF800001),
    "F16": (math.nan, 0x7E00, 0x7C00, 0xFC00),
    "BF16": (math.nan, 0x7FC0, 0x7F80, 0xFF80),
    "F8_E4M3": (math.nan, 0x7F, 0xFF),
    "F8_E5M2": (math.nan, 0x7C, 0x7D, 0xFF),
}
FINITE = {
    "F64": (0x7FEFFFFFFFFFFFFF, 0x7FE0F00000000000),
    "F32": (0x7F7FFFFF, 0xFF7FFFFF, 0x00800000),
    "F16": (0x7BFF, 0xFBFF, 0x00FF),
    "BF16": (0x7F7F, 0xFF7F, 0x0080),
    "F8_E4M3": (0x7E, 0xFE),
    "F8_E5M2": (0x7B, 0xFB),
    "I64": (0x7FF8000000000000,),
}


@pytest.mark.parametrize(("dtype", "bits"), [(kind, bits) for kind, all_ in NOT_FINITE.items() for bits in all_[1:]])
def test_nan_and_infinity_are_named_by_their_tensor(tmp_path: Path, dtype: str, bits: int) -> None:
    """Row 29."""
    path = write(tmp_path / "x.safetensors", {**layer(ATTENTION), "bad.one": with_bits(dtype, int(bits))})
    error = refusal(path)
    assert error.reason == "NOT_FINITE" and "'bad.one'" in error.message and "x.safetensors" in error.message


@pytest.mark.parametrize(("dtype", "bits"), [(kind, bits) for kind, all_ in FINITE.items() for bits in all_])
def test_the_largest_numbers_are_finite(dtype: str, bits: int) -> None:
    assert finite.is_finite(dtype, with_bits(dtype, bits)[2])


def test_a_nan_far_into_a_large_tensor_is_found(tmp_path: Path) -> None:
    data = bytearray(9 << 20)
    data[-2:] = b"\x00\x7e"
    tensors = {**layer(ATTENTION), "large": ("F16", (len(data) // 2,), bytes(data))}
    assert refusal(write(tmp_path / "x.safetensors", tensors)).reason == "NOT_FINITE"


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("oft_R.weight", "OFT"),
        ("ia3_l", "IA3"),
        ("bm.weight", "GLoRA"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path: Path, suffix: str, kind: str) -> None:
    tensors = {**layer(ATTENTION), f"{ATTENTION}.{suffix}": ("F32", (2, 2), numbers(4))}
    error = refusal(write(tmp_path / "x.safetensors", tensors))
    assert error.reason == "UNSUPPORTED_LORA" and kind in error.message


def test_what_the_matcher_applies_is_not_refused(tmp_path: Path) -> None:
    """LoCon in Tucker form; names that a network's own begins with; an adapter that has a name."""
    tucker = {
        "lora_unet_mid_block_resnets_0_conv1.lora_down.weight": ("F32", (4, 8, 1, 1), numbers(32)),
        "lora_unet_mid_block_resnets_0_conv1.lora_mid.weight": ("F32", (4, 4, 3, 3), numbers(144)),
        "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": ("F32", (8, 4, 1, 1), numbers(32)),
        **_attn2("model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k", 2048),
        **_attn2(PEFT, 2048, "lora_A.default_0.weight", "lora_B.default_0.weight"),
        **_attn2("base_model.model.text_model.encoder.layers.0.self_attn.q_proj", 768),
    }
    found = lora.check(write(tmp_path / "x.safetensors", tucker)).adapter
    assert (found.base, found.layers, found.has_conv, found.adapts_text_encoder) == ("sdxl", 4, True, True)


def test_what_its_reader_should_know_is_noted(tmp_path: Path) -> None:
    bundled = {**layer(ATTENTION), "bundle_emb.sks.string_to_param.*": ("F32", (2,), numbers(2))}
    assert lora.check(write(tmp_path / "x.safetensors", bundled)).adapter.notes == [
        "it also holds the embedding 'sks', which works where a prompt has that word"
    ]
    of_peft = write(tmp_path / "y.safetensors", _attn2(PEFT.replace("unet", "base_model.model"), 768))
    (note,) = lora.check(of_peft).adapter.notes
    assert "adapter_config.json" in note and "alpha is taken to be its rank" in note
    wrong = write(tmp_path / "z.safetensors", _attn2(PEFT, 768), {"lora_adapter_metadata": '{"lora_alpha": "8"}'})
    (note,) = lora.check(wrong).adapter.notes
    assert "'8' as its lora_alpha" in note


@pytest.mark.parametrize(
    ("name", "says"),
    [("model.diffusion_model.out.weight", "whole model"), ("x.vera_lambda_b", "VeRA"), ("x.weight", "no LoRA layers")],
)
def test_what_is_no_lora_is_said(tmp_path: Path, name: str, says: str) -> None:
    error = refusal(write(tmp_path / "x.safetensors", {name: ("F32", (2, 2), numbers(4))}))
    assert error.reason == "UNSUPPORTED_LORA" and says in error.message


def _good(path: Path) -> None:
    kohya(path)


def _spoil(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        kohya(path)
        change(path)

    return make


DAMAGED: dict[str, tuple[str, str, str, Callable[[Path], object]]] = {
    "a pickle": ("x.pt", "UNSAFE_FORMAT", "x.pt", _good),
    "a pickle in disguise": (
        "x.safetensors", "UNSAFE_FORMAT", "pickle", lambda path: path.write_bytes(b"\x80\x02}q\x00." + b"x" * 99)
    ),
    "a torch file in disguise": (
        "x.safetensors", "UNSAFE_FORMAT", "pickle", lambda path: path.write_bytes(b"PK\x03\x04" + b"x" * 99)
    ),
    "a page": ("x.safetensors", "CORRUPT_FILE", "HTML", lambda path: path.write_text("<!DOCTYPE html>")),
    "cut short": ("x.safetensors", "CORRUPT_FILE", "bytes", _spoil(lambda path: os.truncate(path, 900))),
    "with bytes at its end": (
        "x.safetensors", "CORRUPT_FILE", "found", _spoil(lambda path: path.open("ab").write(b"12"))
    ),
    "a folder": ("x.safetensors", "UNSAFE_PATH", "a folder", lambda path: path.mkdir()),
    "a pipe": ("x.safetensors", "UNSAFE_PATH", "named pipe", os.mkfifo),
    "nothing": ("x.safetensors", "CORRUPT_FILE", "nothing", lambda path: None),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_and_unsafe_files(tmp_path: Path, kind: str) -> None:
    name, reason, says, make = DAMAGED[kind]
    make(tmp_path / name)
    error = refusal(tmp_path / name)
    assert error.reason == reason and says in error.message


@pytest.mark.parametrize("name", ["it's old.pt", "it's old.safetensors"])
def test_the_command_that_converts_a_pickle_is_whole(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04" + b"x" * 99)
    assert shlex.split(refusal(path).hint.removeprefix("convert it: ")) == ["craft", "convert", str(path)]


HOSTILE = {
    "a pattern that backtracks": {"lora_adapter_metadata": json.dumps({"target_modules": "(a+)+$" * 50})},
    "a huge value": {"ss_note": "x" * (8 << 20)},
    "very many keys": {f"ss_{number}": "x" * 50 for number in range(100_000)},
    "tags nested deep": {"ss_tag_frequency": "[" * 200_000},
    "tags of another kind": {"ss_tag_frequency": '{"a": [1], "b": {"c": "d"}, "e": {"f": -1}}'},
    "tags that are endless": {"ss_tag_frequency": json.dumps({"x": {str(tag): 1 for tag in range(300_000)}})},
    "control characters": {"modelspec.title": "\x1b]0;owned\x07\r\n\ud800", "ss_\x1b[31m": "red"},
    "a trigger of a megabyte": {"modelspec.trigger_phrase": "sks " * 250_000},
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_hostile_metadata_is_data_within_limits(tmp_path: Path, kind: str) -> None:
    """Row 30: listed keys only, short ones, in bounded time."""
    path = kohya(tmp_path / "x.safetensors", metadata=HOSTILE[kind])
    begun = time.monotonic()
    found = await inspector.inspect_lora(path)
    assert time.monotonic() - begun < ENOUGH_S
    text = json.dumps(found.metadata, ensure_ascii=False)
    assert len(text.encode()) < 40_000 and len(found.metadata) <= 64
    assert all(key.startswith(("ss_", "modelspec.")) and key.isprintable() for key in found.metadata)
    assert all(value.isprintable() and len(value) <= 500 for value in found.metadata.values())
    assert len(found.trigger) <= 200


@pytest.mark.parametrize("kind", ["deep header", "too many tensors", "a header without end"])
def test_hostile_headers(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "deep header":
        text = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
        path.write_bytes(struct.pack("<Q", len(text)) + text)
    elif kind == "too many tensors":
        write(path, {f"t{number}": ("F32", (0,), b"") for number in range(20_001)})
    else:
        path.write_bytes(struct.pack("<Q", 1 << 62) + b"{")
    assert refusal(path).reason == "CORRUPT_FILE"


def test_tags_tell_what_is_frequent(tmp_path: Path) -> None:
    tags = json.dumps({"10_a": {"apple": 4, "red": 9}, "1_b": {"apple": 8}})
    found = lora.check(kohya(tmp_path / "x.safetensors", metadata={"ss_tag_frequency": tags}))
    assert (found.metadata["ss_tag_frequency"], found.trigger) == ("apple, red", "")


async def test_a_check_that_dies_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\necho \'{"reason": "", "lora": {"sha256": 1}}\'\n')
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(CraftError) as caught:
        await inspector.inspect_lora(tmp_path)
    assert caught.value.reason == "CORRUPT_FILE" and "cannot be read" in caught.value.message
