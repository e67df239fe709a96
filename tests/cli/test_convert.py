"""craft convert: tensors of pickled files come out as they are; whatever asks for more is refused, and runs nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.home import Home

TENSORS = {"body.0.weight": torch.arange(12.0).reshape(3, 4), "step": torch.tensor([7])}
VECTORS = torch.ones(2, 768)


class Evil:
    """Its reading writes a file."""

    def __reduce__(self) -> Any:
        return Path.write_text, (Path("pwned"), "it ran")


@pytest.mark.parametrize(
    ("pickled", "expected"),
    [
        (TENSORS, TENSORS),
        ({"params_ema": TENSORS, "params": {}}, TENSORS),
        ({"state_dict": {**TENSORS, "note": "text"}, "epoch": 3}, TENSORS),
        ({"string_to_param": {"*": VECTORS}, "string_to_token": {"*": 265}, "name": "it"}, {"emb_params": VECTORS}),
        ({"a": VECTORS.half()[:, ::2], "b": torch.ones(3, dtype=torch.bfloat16)}, None),
    ],
    ids=["plain", "esrgan", "checkpoint", "embedding", "dtypes"],
)
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_tensors_come_out_as_they_are(home: Home, pickled: Any, expected: Any, is_zip: bool) -> None:
    torch.save(pickled, home.work / "it.pth", _use_new_zipfile_serialization=is_zip)
    done = home.craft("convert", "it.pth")
    assert (done.returncode, done.stdout) == (0, "it.safetensors\n"), done.stderr
    found = load_file(home.work / "it.safetensors")
    assert found.keys() == (expected or pickled).keys()
    assert all(
        torch.equal(found[name], one) and found[name].dtype == one.dtype for name, one in (expected or pickled).items()
    )
    assert home.craft("convert", "it.pth").returncode == 73, "nothing is overwritten unasked"


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_one_that_would_run_code_is_refused(home: Home, name: str, is_zip: bool) -> None:
    torch.save({**TENSORS, "evil": Evil()}, home.work / name, _use_new_zipfile_serialization=is_zip)
    done = home.craft("convert", name)
    assert done.returncode == 65 and "could run code" in done.stderr
    assert [path.name for path in home.work.iterdir()] == [name]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is no pickled file"),
        (b"no pickle", "is no pickled file"),
        (pickle.dumps({"a": 1}), ""),
        (pickle.dumps([1] * 9), ""),
        (b"PK\x03\x04" + bytes(99), "cannot read"),
    ],
)
def test_what_is_none_is_refused(home: Home, data: bytes, told: str) -> None:
    (home.work / "it.pt").write_bytes(data)
    done = home.craft("convert", "it.pt")
    assert done.returncode == 65 and told in done.stderr and len(done.stderr.splitlines()) == 2
    assert [path.name for path in home.work.iterdir()] == ["it.pt"]


def test_a_safetensors_file_is_said_to_be_one(home: Home) -> None:
    save_file({"it": torch.ones(2)}, home.work / "it.safetensors")
    done = home.craft("convert", "it.safetensors")
    assert done.returncode == 65 and "is a safetensors file already" in done.stderr


def test_one_bad_file_leaves_the_others(home: Home) -> None:
    (home.work / "bad.pt").write_bytes(b"no pickle")
    torch.save({"it": torch.ones(2)}, home.work / "good.pt")
    done = home.craft("convert", "bad.pt", "none.pt", "good.pt")
    assert done.stdout == "good.safetensors\n"
    assert done.returncode == 65 and "bad.pt" in done.stderr and "none.pt" in done.stderr


def test_tensors_larger_than_their_file_are_refused(home: Home) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 30)}, home.work / "it.pt")
    done = home.craft("convert", "it.pt")
    assert done.returncode == 65 and "many times as large" in done.stderr


def test_what_is_refused_elsewhere_names_the_command(home: Home) -> None:
    torch.save(TENSORS, home.work / "it.pth")
    done = home.craft("models", "add", "it.pth")
    assert done.returncode == 65 and f"craft convert {home.work / 'it.pth'}" in done.stderr
