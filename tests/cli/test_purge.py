"""craft purge: nothing of craft is left, and nothing else goes."""

from __future__ import annotations

from pathlib import Path

from tests.cli.test_terminal_process import at_terminal
from tests.home import Home
from tests.lora_files import kohya


def test_nothing_is_left_of_craft(home: Home) -> None:
    _use(home)
    kohya(home.work / "it.safetensors", width=99)
    home.craft("lora", "add", "it.safetensors")
    shown = home.craft("purge", "--dry-run")
    assert str(home.paths.database) in shown.stdout.split() and "nothing was removed" in shown.stderr
    assert home.paths.database.exists()
    done = home.craft("purge", "--force")
    assert done.returncode == 0 and str(home.paths.images_dir) in done.stdout.split(), done.stderr
    assert "stays" not in done.stderr
    for place in (home.paths.data_dir, home.paths.state_dir, home.paths.config_file, home.paths.socket):
        assert not place.exists()
    assert not (home.paths.config_file.parent / "presets").exists()
    assert (home.work / "it.safetensors").exists()
    assert home.craft("daemon", "status").returncode == 69
    assert "nothing is kept here" in home.craft("purge").stderr


def test_what_is_not_crafts_stays_and_is_named(home: Home) -> None:
    _use(home)
    (home.paths.data_dir / "novel.txt").write_text("mine")
    done = home.craft("purge", "--force")
    assert done.returncode == 0 and f"{home.paths.data_dir} stays: it holds what is not craft's" in done.stderr
    assert _names(home.paths.data_dir) == ["novel.txt"]


def test_somebody_is_asked(home: Home) -> None:
    _use(home)
    done = home.craft("purge")
    assert done.returncode == 2 and "nobody is here to confirm" in done.stderr
    code, seen = at_terminal(home, "purge", typed="n\n")
    assert code == 1 and "nothing was removed" in seen and home.paths.database.exists()


def test_it_is_for_this_machine(home: Home) -> None:
    done = home.craft("purge", "--force", env={**home.env, "CRAFT_HOST": "127.0.0.1:9"})
    assert done.returncode == 2 and "unset CRAFT_HOST" in done.stderr


def _use(home: Home) -> None:
    assert home.craft("generate", "x", "-i", str(_picture(home)), "--strength", "0.5").returncode == 0
    assert home.craft("config", "set", "generate.steps", "3").returncode == 0
    assert home.craft("presets", "save", "quick", "-s", "2").returncode == 0


def _picture(home: Home) -> Path:
    from PIL import Image

    path = home.work / "start.png"
    Image.new("RGB", (64, 64), "red").save(path)
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
