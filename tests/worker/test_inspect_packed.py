"""Strangers' quantized files: GGUF headers and scales that lie are refused; what passes, the libraries read alike."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craftd import gguf as headers
from craftd.architectures import detect
from craftd.worker.inspection import model
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import packed_files
from tests.raw_gguf import ARRAY, I32, TEXT, U32, U64, Gguf, array, entry, info, text

F32, Q8_0 = 0, 8
ONE = info("a", [4], F32)
DATA = bytes(16)
_NESTED = array(ARRAY, 1, array(ARRAY, 1, array(ARRAY, 1, array(U32, 1, bytes(4)))))

HEADERS: dict[str, Gguf] = {
    "another magic": Gguf([ONE], data=DATA, magic=b"GGML"),
    "version 1": Gguf([ONE], data=DATA, version=1),
    "version 2 of the other byte order": Gguf([ONE], data=DATA, version=2 << 24),
    "2^63 tensors": Gguf([ONE], data=DATA, tensor_count=1 << 63),
    "2^63 metadata entries": Gguf([ONE], data=DATA, entry_count=1 << 63),
    "a tensor fewer than it says": Gguf([ONE], data=b"", tensor_count=2),
    "an entry fewer than it says": Gguf([], data=b"", entry_count=1),
    "a key beyond the end": Gguf(entries=[text("general.name", 1 << 40)]),
    "a key of megabytes": Gguf(entries=[entry("k" * 4096, U32, bytes(4))]),
    "an empty key": Gguf(entries=[entry("", U32, bytes(4))]),
    "a key twice": Gguf(entries=[entry("k", U32, bytes(4)), entry("k", U32, bytes(4))]),
    "a key with control characters": Gguf(entries=[entry("k\x1b[2J", U32, bytes(4))]),
    "a key that is no UTF-8": Gguf(entries=[entry(b"\xff\xfe", U32, bytes(4))]),
    "a text beyond the end": Gguf(entries=[entry("k", TEXT, text("x", 1 << 60))]),
    "a text that is no UTF-8": Gguf(entries=[entry("k", TEXT, text(b"\xff"))]),
    "an unknown kind of metadata": Gguf(entries=[entry("k", 77, bytes(4))]),
    "an array of 2^62": Gguf(entries=[entry("k", ARRAY, array(U64, 1 << 62, b""))]),
    "an array of 2^62 texts": Gguf(entries=[entry("k", ARRAY, array(TEXT, 1 << 62, b""))]),
    "an array in an array": Gguf(entries=[entry("k", ARRAY, _NESTED)]),
    "arrays in arrays without an end": Gguf(entries=[entry("k", ARRAY, array(ARRAY, 1, b"") * 10_000)]),
    "an alignment of nought": Gguf([ONE], [entry("general.alignment", U32, bytes(4))], DATA),
    "an alignment of 24": Gguf([ONE], [entry("general.alignment", U32, struct.pack("<I", 24))], DATA, alignment=24),
    "an alignment of 2^31": Gguf([ONE], [entry("general.alignment", U32, struct.pack("<I", 1 << 31))], DATA),
    "an alignment that is a text": Gguf([ONE], [entry("general.alignment", TEXT, text("32"))], DATA),
    "bytes beyond the end": Gguf([info("a", [8], F32)], data=DATA),
    "a start beyond the end": Gguf([info("a", [4], F32, 1 << 40)], data=DATA),
    "a start that wraps around": Gguf([info("a", [4], F32, (1 << 64) - 32)], data=DATA),
    "a start between alignments": Gguf([info("a", [1], F32, 4)], data=DATA),
    "tensors that overlap": Gguf([info("a", [16], F32), info("b", [8], F32, 32)], data=bytes(64)),
    "the same bytes twice": Gguf([ONE, info("b", [4], F32)], data=DATA),
    "a tensor twice": Gguf([ONE, info("a", [4], F32, 32)], data=bytes(48)),
    "a side of nought": Gguf([info("a", [0, 4], F32)], data=DATA),
    "a product that overflows": Gguf([info("a", [1 << 32, 1 << 32], F32)], data=DATA),
    "no dimension": Gguf([info("a", [], F32)], data=DATA),
    "five dimensions": Gguf([info("a", [1] * 5, F32)], data=DATA),
    "2^31 dimensions": Gguf([info("a", [4], F32, dimensions=1 << 31)], data=DATA),
    "an unknown type": Gguf([info("a", [4], 31)], data=DATA),
    "a type of 2^32 - 1": Gguf([info("a", [4], (1 << 32) - 1)], data=DATA),
    "half a block": Gguf([info("a", [16], Q8_0)], data=bytes(34)),
    "blocks that reach over rows": Gguf([info("a", [16, 2], Q8_0)], data=bytes(34)),
    "a name with control characters": Gguf([info("a\r\x07", [4], F32)], data=DATA),
    "a name that turns round": Gguf([info("a\u202egpj", [4], F32)], data=DATA),
    "an empty name": Gguf([info("", [4], F32)], data=DATA),
    "a name without an end": Gguf([text("a", 1 << 50)], data=DATA),
    "an original shape of other numbers": Gguf(
        [ONE], [entry(f"{headers.ORIGINAL_SHAPE}a", ARRAY, array(I32, 2, struct.pack("<2i", 2, 3)))], DATA
    ),
    "a negative original shape": Gguf(
        [ONE], [entry(f"{headers.ORIGINAL_SHAPE}a", ARRAY, array(I32, 2, struct.pack("<2i", -2, -2)))], DATA
    ),
}


def _refused(path: Path) -> CraftError:
    with pytest.raises(CraftError) as refused:
        model.check(path)
    return refused.value


@pytest.mark.parametrize("name", HEADERS)
def test_gguf_headers(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(HEADERS[name].bytes())
    error = _refused(path)
    assert error.reason == "CORRUPT_FILE"
    assert "'x.gguf': expected" in error.message and error.message.isprintable()


def test_only_the_beginning_of_a_gguf_file(tmp_path: Path) -> None:
    whole = HEADERS["a side of nought"].bytes()
    for length in range(4, len(whole) - 20, 7):
        (tmp_path / "x.gguf").write_bytes(whole[:length])
        assert _refused(tmp_path / "x.gguf").reason == "CORRUPT_FILE"


def test_a_gguf_file_by_another_name_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(Gguf([ONE], data=DATA).bytes())
    model.check(path)
    path.write_bytes(HEADERS["2^63 tensors"].bytes())
    assert _refused(path).reason == "CORRUPT_FILE"


def test_an_original_shape_is_the_tensors(tmp_path: Path) -> None:
    told = [entry(f"{headers.ORIGINAL_SHAPE}a", ARRAY, array(I32, 3, struct.pack("<3i", 2, 1, 2)))]
    (tmp_path / "x.gguf").write_bytes(Gguf([ONE], told, DATA).bytes())
    assert headers.read(tmp_path / "x.gguf").shapes == {"a": (2, 1, 2)}


def _written(folder: Path) -> Path:
    torch.manual_seed(3)
    tensors = {"blk.0.attn.weight": torch.randn(4, 64), "norm.weight": torch.randn(5), "emb": torch.randn(3, 7)}
    packed_files.write_gguf(tensors, folder / "it.gguf", "Q8_0")
    return folder / "it.gguf"


def test_it_is_read_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    import gguf

    path = _written(tmp_path)
    header, read = headers.read(path), gguf.GGUFReader(path)
    ours = {
        tensor.name: (tensor.dtype, tensor.shape, header.offset + tensor.start, tensor.end - tensor.start)
        for tensor in header.tensors
    }
    theirs = {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(int(side) for side in reversed(tensor.shape)),
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in read.tensors
    }
    assert ours == theirs
    assert header.metadata["general.architecture"] == "flux"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_what_is_changed_is_refused_or_read_alike(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """By the gguf package, where that gives an answer at all."""
    import gguf

    folder = tmp_path_factory.mktemp("changed")
    content = bytearray(_written(folder).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    path = folder / "changed.gguf"
    path.write_bytes(bytes(content))
    try:
        header = headers.read(path)
    except CraftError as error:
        assert error.reason == "CORRUPT_FILE"
        return
    read = gguf.GGUFReader(path)
    assert {tensor.name: header.offset + tensor.start for tensor in header.tensors} == {
        tensor.name: int(tensor.data_offset) for tensor in read.tensors
    }


def _scaled(**changed: torch.Tensor | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    tensors = packed_files.scaled({"a.weight": torch.randn(4, 8), "a.bias": torch.randn(4)}, "weight_scale")
    named = {name.replace("__", "."): one for name, one in changed.items()}
    return {name: one for name, one in {**tensors, **named}.items() if one is not None}


def _said(said: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


SCALES: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "no scale": (_scaled(a__weight_scale=None), "CORRUPT_FILE"),
    "no weight": (_scaled(a__weight=None), "CORRUPT_FILE"),
    "a scale of NaN": (_scaled(a__weight_scale=torch.tensor(float("nan"))), "NOT_FINITE"),
    "a scale of infinity": (_scaled(a__weight_scale=torch.tensor(float("inf"))), "NOT_FINITE"),
    "infinity among many": (_scaled(a__weight_scale=torch.tensor([1, 2, float("-inf"), 3])), "NOT_FINITE"),
    "an input's scale of NaN": (_scaled(a__input_scale=torch.tensor(float("nan"))), "NOT_FINITE"),
    "scales of blocks": (_scaled(a__weight_scale=torch.ones(4, 2)), "UNSUPPORTED_MODEL"),
    "too few scales": (_scaled(a__weight_scale=torch.ones(3)), "UNSUPPORTED_MODEL"),
    "no number of scales": (_scaled(a__weight_scale=torch.ones(0)), "UNSUPPORTED_MODEL"),
    "a scale that is no number": (_scaled(a__weight_scale=torch.tensor(1)), "UNSUPPORTED_MODEL"),
    "four bits": (_scaled(a__comfy_quant=_said({"format": "nvfp4"})), "UNSUPPORTED_MODEL"),
    "a form with a rotation": (
        _scaled(a__comfy_quant=_said({"format": "int8_tensorwise", "convrot": True})),
        "UNSUPPORTED_MODEL",
    ),
    "a second scale": (_scaled(a__weight_scale_2=torch.tensor(1.0)), "UNSUPPORTED_MODEL"),
    "bitsandbytes": (_scaled(a__weight__absmax=torch.zeros(4)), "UNSUPPORTED_MODEL"),
    "SVDQuant": (_scaled(a__wscales=torch.zeros(4)), "UNSUPPORTED_MODEL"),
    "no format": (_scaled(a__comfy_quant=_said({})), "UNSUPPORTED_MODEL"),
    "a format that is a list": (_scaled(a__comfy_quant=_said({"format": [["x"]]})), "UNSUPPORTED_MODEL"),
    "a note that is no JSON": (_scaled(a__comfy_quant=torch.zeros(9, dtype=torch.uint8)), "CORRUPT_FILE"),
    "a deep note": (_scaled(a__comfy_quant=torch.tensor(list(b"[" * 3000), dtype=torch.uint8)), "CORRUPT_FILE"),
    "a note of megabytes": (_scaled(a__comfy_quant=torch.zeros(1 << 20, dtype=torch.uint8)), "CORRUPT_FILE"),
    "a note of floats": (_scaled(a__comfy_quant=torch.zeros(9)), "CORRUPT_FILE"),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales(name: str, tmp_path: Path) -> None:
    tensors, reason = SCALES[name]
    error = _refused(packed_files.save(tensors, tmp_path / "x.safetensors"))
    assert error.reason == reason, error.message


def test_a_note_about_layers_in_the_header(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for said, is_good in (({"format": "float8_e4m3fn"}, True), ({"format": "int8_blockwise"}, False)):
        notes = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {"a": said}})}
        save_file(_scaled(), tmp_path / "x.safetensors", metadata=notes)
        if is_good:
            model.check(tmp_path / "x.safetensors")
        else:
            assert _refused(tmp_path / "x.safetensors").reason == "UNSUPPORTED_MODEL"


def test_good_scales_pass(tmp_path: Path) -> None:
    for style in ("scale_weight", "weight_scale"):
        tensors = packed_files.scaled({"a.weight": torch.randn(4, 8)}, style, "model.diffusion_model.")
        model.check(packed_files.save(tensors, tmp_path / "x.safetensors"))
    by_output = _scaled(a__weight_scale=torch.tensor(np.linspace(1, 2, 4).reshape(4, 1), dtype=torch.float32))
    model.check(packed_files.save(by_output, tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    ("architecture", "width", "block", "kind"),
    [("t5encoder", 4096, "enc.blk.23.attn_q", "t5-xxl"), ("qwen3", 2560, "blk.35.attn_q_norm", "qwen3-4b")],
)
def test_text_encoders_are_known_by_llama_cpps_names(
    architecture: str, width: int, block: str, kind: str, tmp_path: Path
) -> None:
    tensors = [info("token_embd.weight", [width, 1], F32), info(f"{block}.weight", [1], F32, 4 * width)]
    told = [entry("general.architecture", TEXT, text(architecture))]
    (tmp_path / "x.gguf").write_bytes(Gguf(tensors, told, bytes(4 * width + 4)).bytes())
    found = detect.of_part(headers.read(tmp_path / "x.gguf"))
    assert found is not None and found.kind.id == kind


def test_one_tensor_by_two_names_is_refused(tmp_path: Path) -> None:
    tensors = [info("token_embd.weight", [4, 1], F32), info("shared.weight", [4, 1], F32, 32)]
    told = [entry("general.architecture", TEXT, text("t5encoder"))]
    (tmp_path / "x.gguf").write_bytes(Gguf(tensors, told, bytes(48)).bytes())
    assert _refused(tmp_path / "x.gguf").reason == "CORRUPT_FILE"
