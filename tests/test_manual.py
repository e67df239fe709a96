"""The manual pages are what the commands say, and `man` shows them."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from craft_protos import config
from craft_protos.reasons import REASONS

from docs import manual
from tests.cli.test_named_options import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = manual.pages()


def test_they_are_what_the_commands_say() -> None:
    assert manual.stale() == [], "run `make man`"


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man here")
@pytest.mark.parametrize("name", PAGES)
def test_man_shows_them_and_warns_of_nothing(name: str) -> None:
    command = ["man", "--warnings=all", "-l", str(manual.FOLDER / name)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert f"{name.removesuffix('.1').upper()}(1)" in done.stdout
    assert all(title in done.stdout for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "SEE ALSO"))


def test_every_command_and_each_of_its_options_is_in_one() -> None:
    whole = "".join(PAGES.values())
    for path, options in COMMANDS.items():
        if path.split()[1:2] in (["list-models"], []) or path.split()[1] in ("model", "job", "image", "key", "loras"):
            continue
        named = f"\n.SS {manual._text(path)} " in whole or f"craft\\-{path.split()[-1]} (1)" in whole
        assert named, path
        assert not [
            one
            for one in options
            if one.startswith("-") and one not in ("-h", "--help") and manual._text(one) not in whole
        ], path


def test_variables_and_exits_are_those_that_there_are() -> None:
    assert set(manual.VARIABLES) == set(config._OWN_VARIABLES)
    assert {str(reason.exit) for reason in REASONS.values()} <= set(manual.EXITS)


def test_the_wheel_brings_them_to_where_man_looks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"] == {"docs/man": "share/man/man1"}


@pytest.mark.parametrize(
    ("text", "roff"),
    [("a-b", r"a\-b"), (".x", r"\&.x"), ("it's", r"it\(aqs"), ("a\\b", r"a\eb"), ("`c`", r"\(gac\(ga")],
)
def test_nothing_in_a_text_is_a_command(text: str, roff: str) -> None:
    assert manual._text(text) == roff
