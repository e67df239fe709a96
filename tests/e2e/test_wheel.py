"""The wheel, in environments that have only what it says it needs: as the command alone, and with the daemon."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from tests.home import Home

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _built(tmp_path_factory.mktemp("wheel"), "wheel")


def test_both_are_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    assert _sha256(_built(tmp_path / "again", "wheel")) == _sha256(wheel)
    first, second = (_built(tmp_path / name, "sdist") for name in ("one", "other"))
    assert _sha256(first) == _sha256(second)


def test_it_holds_craft_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        *("craft_cli", "craft_protos", "craftd", "craftengine")
    }
    assert "craftd/pocket/unet/diffusion_pytorch_model.safetensors" in names
    assert "craftd/store/migrations/0001_jobs_and_images.sql" in names and "craftd/http/page/static/index.html" in names
    assert not [name for name in names if "__pycache__" in name or "tests" in name]


def test_the_command_alone_needs_no_torch(wheel: Path, tmp_path: Path, make_home: Callable[..., Home]) -> None:
    home = make_home()
    craft = _installed(wheel, tmp_path / "env", extra="")
    assert not list(_packages(tmp_path / "env").glob("torch")) and not list(
        _packages(tmp_path / "env").glob("grpc_*tools")
    )
    assert home.run([craft, "version"]).stdout.startswith(b"craft ")
    assert home.run([craft, "generate", "--help"]).returncode == 0
    done = home.run([craft, "generate", "x"])
    assert done.returncode == 69 and b"[daemon]" in done.stderr
    home.craft("daemon", "start")  # another installation's
    assert home.run([craft, "generate", "x", "-o", "x.png"]).returncode == 0


def test_with_the_daemon_it_draws(wheel: Path, tmp_path: Path, pocket_home: Home) -> None:
    craft = _installed(wheel, tmp_path / "env", extra="daemon")
    done = pocket_home.run([craft, "generate", "a red apple", "-s", "2", "-o", "apple.png"])
    assert (done.returncode, done.stdout) == (0, b"apple.png\n"), done.stderr
    assert str(tmp_path / "env") in _command_of(pocket_home)
    assert pocket_home.run([craft, "daemon", "stop"]).returncode == 0


def _command_of(home: Home) -> str:
    """The daemon's own, so that it is the environment's daemon that drew."""
    return " ".join(psutil.Process(home.json("daemon", "status")["pid"]).cmdline())


def _built(folder: Path, target: str) -> Path:
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1577836800"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.iterdir()
    return found


def _installed(wheel: Path, folder: Path, extra: str) -> str:
    """The command of a new environment with the wheel and, by links, what it requires."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    for name in _required(extra):
        _link(distribution(name), _packages(folder))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True)
    return str(folder / "bin" / "craft")


def _packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def _required(extra: str) -> set[str]:
    """Names of the distributions that craft needs, and that those need."""
    found: set[str] = set()
    waiting = [("craftengine", extra)]
    while waiting:
        name, of = waiting.pop()
        for line in distribution(name).requires or ():
            one = Requirement(line)
            key = re.sub(r"[-_.]+", "-", one.name).lower()
            if key not in found and (one.marker is None or one.marker.evaluate({"extra": of})):
                found.add(key)
                waiting += [(key, each) for each in (one.extras or {""})]
    return found


def _link(one: Distribution, packages: Path) -> None:
    for top in {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if not (packages / top).exists():
            (packages / top).symlink_to(str(one.locate_file(top)))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
