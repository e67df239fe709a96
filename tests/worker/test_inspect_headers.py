"""Strangers' safetensors files: a header that lies is refused; what passes, the library reads as the same tensors."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from craft_protos.reasons import CraftError
from craftd import safetensors as headers
from craftd.worker.inspection import model
from craftd.worker.inspection.tree import single
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raw_safetensors import safetensors, tensor

HEADERS: dict[str, tuple[object, int]] = {
    "tensors that overlap": ({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, 12),
    "one inside another": ({"a": tensor([4], 0, 16), "b": tensor([1], 4, 8)}, 16),
    "the same bytes twice": ({"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, 4),
    "a hole": ({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, 12),
    "a hole before": ({"a": tensor([1], 4, 8)}, 8),
    "beyond the end": ({"a": tensor([4], 0, 16)}, 8),
    "backwards": ({"a": tensor([1], 8, 4)}, 8),
    "a shape of NaN": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', 4),
    "a shape of Infinity": (b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}', 4),
    "a negative side": ({"a": tensor([-1, -1], 0, 4)}, 4),
    "a side of true": ({"a": tensor([True], 0, 4)}, 4),
    "a side of 1.0": ({"a": tensor([1.0], 0, 4)}, 4),
    "a side of text": ({"a": tensor(["1"], 0, 4)}, 4),
    "an offset of true": ({"a": tensor([0], False, False)}, 0),
    "an offset of 2^64": ({"a": tensor([1], 0, 2**64)}, 4),
    "a product that overflows": ({"a": tensor([2**32, 2**32], 0, 0)}, 0),
    "0 and 2^60, said to be 4 bytes": ({"a": tensor([0, 2**60], 0, 4)}, 4),
    "17 dimensions": ({"a": tensor([1] * 17, 0, 4)}, 4),
    "100,000 dimensions": ({"a": tensor([2] * 100_000, 0, 4)}, 4),
    "half a byte": ({"a": tensor([1], 0, 1, "F4")}, 1),
    "an unknown type": ({"a": tensor([1], 0, 4, "F33")}, 4),
    "a type that is no text": ({"a": {"dtype": 1, "shape": [1], "data_offsets": [0, 4]}}, 4),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, 4),
    "a field too many": ({"a": tensor([1], 0, 4) | {"pickle": "x"}}, 4),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, 4),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0),
    "metadata that is a list": ({"__metadata__": ["a"]}, 0),
    "a tensor that is null": ({"a": None}, 0),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, tmp_path: Path) -> None:
    header, data_bytes = HEADERS[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(header, bytes(data_bytes)))
    with pytest.raises(CraftError) as refused:
        model.check(path)
    assert refused.value.reason == "CORRUPT_FILE"
    assert "'x.safetensors': expected" in refused.value.message


ONE = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
AS_THE_LIBRARY_HAS_IT = {
    "metadata that is null": (ONE.replace("{", '{"__metadata__":null,', 1), {}),
    "metadata without a key": (ONE.replace("{", '{"__metadata__":{},', 1), {}),
    "white space before": (f" \t\r\n{ONE}", {}),
    "much of it": (" " * 500 + ONE, {}),
    "white space behind": (f"{ONE}\n   ", {}),
    "an empty tensor": (ONE.replace("{", '{"b":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},', 1), {}),
}


@pytest.mark.parametrize("name", AS_THE_LIBRARY_HAS_IT)
def test_what_the_formats_own_reader_takes_is_taken(name: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    text, metadata = AS_THE_LIBRARY_HAS_IT[name]
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(4))
    model.check(path)
    layout = headers.read(single(path))
    with safe_open(path, "np") as opened:
        assert set(layout.shapes) == set(opened.keys())
    assert layout.metadata == metadata
    assert headers.read(path).shapes == layout.shapes


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_side = st.integers(-2, 6) | st.integers() | _json
_tensors = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "BOOL", "F4", "F64", "X"]) | _json,
        "shape": st.lists(_side, max_size=4) | _json,
        "data_offsets": st.lists(_side, min_size=2, max_size=2) | _json,
    }
)
_headers = st.dictionaries(st.text(max_size=6), _tensors | _json, max_size=4)


@settings(deadline=None)  # a busy machine is no failure
@given(header=_headers, data=st.binary(max_size=64))
def test_malformed_headers_are_refused_or_truly_whole(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "hypothesis.safetensors"
    path.write_bytes(safetensors(header, data))
    _refused_or_read_by_the_library(path)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=200), st.integers(0, 64))
def test_bytes_are_refused_or_truly_whole(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.safetensors"
    path.write_bytes(struct.pack("<Q", length) + content)
    _refused_or_read_by_the_library(path)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=5), st.randoms(use_true_random=False))
def test_well_formed_headers_pass(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], order: Any
) -> None:
    header, reached = [], 0
    for number, shape in enumerate(shapes):
        size = 4
        for side in shape:
            size *= side
        header.append((f"t{number}", tensor(shape, reached, reached + size)))
        reached += size
    order.shuffle(header)
    path = tmp_path_factory.getbasetemp() / "good.safetensors"
    path.write_bytes(safetensors(dict(header), bytes(reached)))
    assert set(headers.read(single(path)).shapes) == {f"t{number}" for number in range(len(shapes))}


def _refused_or_read_by_the_library(path: Path) -> None:
    """What craft lets pass, the library must read as the same tensors."""
    from safetensors import safe_open

    try:
        names = set(headers.read(single(path)).shapes)
    except CraftError as exc:
        assert exc.reason == "CORRUPT_FILE"
        assert exc.message.isprintable()
        return
    with safe_open(path, "np") as opened:
        assert set(opened.keys()) == names
