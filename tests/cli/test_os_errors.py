"""What a system refuses is no bug in craft: an exit code by its kind, and the file's name."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest
from craft_cli import main
from craft_cli.generate import output
from craft_protos import config, files
from craft_protos.reasons import CraftError

from tests.home import CRAFT, Home

LONG = "x" * 300


@pytest.mark.parametrize(
    ("number", "reading", "writing"),
    [
        (errno.ENOENT, 66, 74),
        (errno.ENOTDIR, 66, 74),
        (errno.EISDIR, 66, 74),
        (errno.ENAMETOOLONG, 66, 73),
        (errno.ELOOP, 66, 73),
        (errno.EEXIST, 66, 73),
        (errno.EACCES, 77, 77),
        (errno.EPERM, 77, 77),
        (errno.ENOSPC, 66, 74),
        (errno.EROFS, 66, 74),
        (errno.EIO, 66, 74),
    ],
)
def test_kinds(number: int, reading: int, writing: int) -> None:
    error = OSError(number, os.strerror(number))
    assert files.unreadable("it", error).exit_code == reading
    assert files.unwritable("it", error).exit_code == writing


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["generate", "x", "-o", f"{LONG}.png"], 73),
        (["generate", "x", "-o", f"{LONG}-{{id}}.png"], 73),
        (["generate", "x", "-o", f"{LONG}/"], 73),
        (["generate", "x", "-o", f"{LONG}/a.png"], 73),
        (["generate", "--batch", LONG], 66),
        (["images", "replay", LONG], 66),
        (["images", "verify", LONG], 66),
        (["models", "add", LONG], 66),
        (["models", "add", f"/{LONG}"], 66),
        (["models", "pull", LONG], 65),
        (["lora", "add", f"{LONG}.safetensors"], 66),
        (["lora", "add", f"./{LONG}"], 66),
        (["lora", "train", "it", LONG], 66),
    ],
)
def test_a_name_over_255_bytes(shared_home: Home, args: list[str], code: int) -> None:
    done = shared_home.craft(*args)
    assert done.returncode == code, done.stderr
    assert "a bug" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 400  # nor is it said in full


@pytest.mark.parametrize("option", [["-o", ""], ["--samples", ""]])
def test_an_empty_name_is_no_folder(shared_home: Home, option: list[str]) -> None:
    """It was the root folder."""
    args = ["generate", "x"] if option[0] == "-o" else ["jobs", "show", "j"]
    done = shared_home.craft(*args, *option)
    assert done.returncode == 2
    assert f"{option[0]} is empty" in done.stderr


@pytest.mark.parametrize("args", [["lora", "add", ""], ["models", "add", ""], ["lora", "train", "it", ""]])
def test_an_empty_argument_is_not_the_folder_that_craft_is_in(shared_home: Home, args: list[str]) -> None:
    assert shared_home.craft(*args).returncode == 2


@pytest.mark.parametrize(
    "name", ["CRAFT_RUNTIME_DIR", "CRAFT_DATA_DIR", "CRAFT_STATE_DIR", "CRAFT_CONFIG", "CRAFT_CA", "CRAFT_API_KEY_FILE"]
)
@pytest.mark.parametrize("place", ["/dev/null/no", f"/{LONG}", "/proc/no"])
def test_a_folder_that_cannot_be_made_is_named(home: Home, name: str, place: str) -> None:
    env = {name: place} | ({"CRAFT_HOST": "example.org:443"} if name == "CRAFT_CA" else {})
    done = home.craft("models", "list", env=env)
    if done.returncode == 0:  # a configuration that is not there is an empty one; a socket has a short path elsewhere
        assert (name, place) in [("CRAFT_CONFIG", "/proc/no"), ("CRAFT_RUNTIME_DIR", f"/{LONG}")]
        return
    assert done.returncode == 78, done.stderr
    assert "a bug in craft" not in done.stderr
    assert name in done.stderr or (name == "CRAFT_CONFIG" and place[:90] in done.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_stdout_cannot_encode_is_written_as_the_system_has_it(shared_home: Home, encoding: str) -> None:
    env = {"PYTHONIOENCODING": f"{encoding}:strict"}
    done = shared_home.craft("generate", "x", "-o", "žluťoučký-{seed}.png", "--seed", "1", env=env)
    assert (done.returncode, done.stdout) == (0, "žluťoučký-1.png\n"), done.stderr
    done = shared_home.craft("generate", "x", "-o", "žluťoučký-{seed}.png", "--seed", "2", "--json", env=env)
    assert json.loads(done.stdout)["path"] == "žluťoučký-2.png"
    assert shared_home.craft("generate", "--help", env=env).returncode == 0
    assert shared_home.craft("jobs", "list", env=env).returncode == 0


def test_a_name_of_bytes_that_are_no_text_is_printed_as_those_bytes(shared_home: Home) -> None:
    name = b"\xff\xfe.png"
    done = shared_home.run([*CRAFT, "generate", "x", "-o", name], env={"PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stdout) == (0, name + b"\n"), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("args", [["config", "list"], ["config", "path", "--json"], ["--help"], ["models", "list"]])
def test_a_full_disk_behind_stdout(shared_home: Home, args: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = shared_home.run([*CRAFT, *args], stdout=full)
    assert done.returncode == 74
    assert b"a bug" not in done.stderr


def test_what_nobody_foresaw_is_no_bug_either(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, code in ((errno.ENOSPC, 74), (errno.EACCES, 77), (errno.ENOENT, 66)):
        error = OSError(number, os.strerror(number), "/some/file")

        def fail(*_: object, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(config, "find_paths", fail)
        assert main.run(["config", "list"]) == code
        assert "/some/file" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To root nothing is forbidden: the system's answer is made up."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(CraftError) as caught:
        output.Target(str(tmp_path / "a.png")).check([output.Picture("x", 1, 0, 1)])
    assert caught.value.exit_code == 77
