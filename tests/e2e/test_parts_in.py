"""A transformer, a text encoder and a VAE, each a file as people have them, through `craft models add` to a picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import craftd
import pytest
from safetensors.torch import load_file, save_file

from tests import tiny_flows
from tests.e2e.conftest import REAL
from tests.e2e.test_loras import differ
from tests.home import Home

CARRIED = "flux2-klein-4b"
_SAID = ("generate", "a red cat", "--seed", "5", "-s", "3", "-W", "64", "-H", "64")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A diffusers folder whose tensors have the names, and where it is told by them the widths, of FLUX.2 klein 4B."""
    made = tiny_flows.flux2(is_distilled=True, layers=5, text_width=2560, text_layers=36, latents=32)
    made.save_pretrained(tmp_path / "whole", safe_serialization=True)
    return tmp_path / "whole"


def test_they_draw_what_the_folder_draws(make_home: Callable[..., Home], tmp_path: Path, whole: Path) -> None:
    home = make_home("", **REAL)
    home.env["PYTHONPATH"] = str(_with_its_configuration(tmp_path / "overlay", whole))
    files = _as_files(whole, home.work)
    parts = ("--text-encoder", "encoder.safetensors", "--vae", "vae.safetensors")
    added = home.craft("models", "add", files.name, *parts)
    assert (added.returncode, added.stdout) == (0, "klein\n"), added.stderr
    told = home.json("models", "show", "klein")
    assert told["architecture"] == "flux2"
    assert home.craft("models", "add", str(whole)).stdout == "whole\n"
    for model in ("klein", "whole"):
        drawn = home.craft(*_SAID, "-m", model, "-o", f"{model}.png")
        assert drawn.returncode == 0, drawn.stderr
    assert differ(home, "klein.png", "whole.png") == 0


def _with_its_configuration(place: Path, whole: Path) -> Path:
    """craftd as it is, but that it carries this model's configuration: what has the real one's is too large to draw."""
    own = Path(craftd.__file__).parent
    _linked(own, place / "craftd", without="architectures")
    _linked(own / "architectures", place / "craftd" / "architectures", without=CARRIED)
    unlike = shutil.ignore_patterns("*.safetensors", "tokenizer")
    shutil.copytree(whole, place / "craftd" / "architectures" / CARRIED, ignore=unlike)
    return place


def _linked(folder: Path, place: Path, *, without: str) -> None:
    place.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name not in (without, "__pycache__"):
            (place / path.name).symlink_to(path)


def _as_files(whole: Path, place: Path) -> Path:
    """The transformer's; a text encoder's has the tokenizer beside it."""
    for part, name in (("transformer", "klein"), ("text_encoder", "encoder"), ("vae", "vae")):
        save_file(load_file(next((whole / part).glob("*.safetensors"))), place / f"{name}.safetensors")
    shutil.copytree(whole / "tokenizer", place / "tokenizer")
    return place / "klein.safetensors"
