"""craft models: what is pulled and added, and how it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import hub as hubs
from tests.daemon.hub import COMMIT, Hub, Repository
from tests.daemon.safetensors import write_checkpoint
from tests.home import Home, write_model

NAME = "some-org/tiny"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    gated = Repository("some-org/gated", hubs.folder(write_model(tmp_path / "gated")), token="hf_x")
    with hubs.serving(Repository(NAME, hubs.folder(write_model(tmp_path / "remote"))), gated) as one:
        yield one


@pytest.fixture
def with_hub(home: Home, hub: Hub, tmp_path: Path) -> Home:
    home.env |= hubs.environment(hub, tmp_path / "hf")
    home.env.pop("HF_TOKEN", None)
    return home


def test_pull_list_alias_show_rm(with_hub: Home) -> None:
    planned = with_hub.craft("models", "pull", NAME, "--plan")
    assert planned.stdout.startswith(f"{NAME}@{COMMIT}: 6 files, ")
    assert with_hub.craft("models", "pull", f"{NAME}@main", "--name", "small").stdout == "small\n"
    assert with_hub.craft("models", "alias", "s", "small").stdout == "s\tsmall\n"
    listed = {model["name"]: model for model in with_hub.json("models", "list")}
    assert listed["small"]["aliases"] == ["s"]
    assert listed["small"]["source"] == f"{NAME}@{COMMIT}"
    assert listed["small"]["loras"] == []
    assert with_hub.json("models", "show", "s")["name"] == "small"
    assert with_hub.craft("generate", "a red apple", "-m", "s", "-o", "a.png").returncode == 0
    assert with_hub.craft("models", "alias", "s", "--rm").returncode == 0
    removed = with_hub.craft("models", "rm", "small")
    assert (removed.stdout, "deleted" in removed.stderr) == ("small\n", True)
    assert with_hub.craft("models", "show", "small").returncode == 66


def test_errors_say_what_to_do(with_hub: Home) -> None:
    gated = with_hub.craft("models", "pull", "some-org/gated", "--json")
    assert gated.returncode == 77
    error = json.loads(gated.stderr)["error"]
    assert (error["reason"], "accept its terms" in error["hint"]) == ("HUB_GATED", True)
    expected = {
        ("pull", "some-org/nothing"): 66,
        ("pull", f"{NAME}@v9"): 66,
        ("pull", "not a repository"): 2,
        ("pull", NAME, "--name", "../x"): 65,
        ("add", "not/there"): 66,
        ("rm", "flat"): 65,
        ("rm", "nothing"): 66,
        ("alias", "x"): 2,
        ("alias", "x", "--rm"): 65,
    }
    assert {words: with_hub.craft("models", *words).returncode for words in expected} == expected


def test_a_hub_that_is_not_there(home: Home, tmp_path: Path) -> None:
    home.env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    failed = home.craft("models", "pull", NAME)
    assert failed.returncode == 69
    assert "http://127.0.0.1:9 cannot be reached" in failed.stderr


def test_a_checkpoint_is_added_where_it_lies(home: Home) -> None:
    write_checkpoint(home.work / "dream.safetensors", "sd1")
    assert home.craft("models", "add", "dream.safetensors").stdout == "dream\n"
    assert home.json("models", "show", "dream")["pipeline"] == "StableDiffusionPipeline"
    removed = home.craft("models", "rm", "dream")
    assert "its files stay" in removed.stderr
    write_checkpoint(home.work / "playground.safetensors", "playground")
    refused = home.craft("models", "add", "playground.safetensors")
    assert (refused.returncode, "Playground v2.5" in refused.stderr) == (65, True)


def test_list_tells_the_architecture(home: Home) -> None:
    """One pipeline draws SD 1 and SD 2; their LoRAs don't fit each other."""
    expected = {"one": "sd1", "two": "sd2", "v2-base": "sd2", "xl": "sdxl", "three": "sd3", "bfl": "flux"}
    kinds = ("sd1", "sd2", "sd2", "sdxl", "sd3.5-medium", "flux-schnell")
    for name, kind in zip(expected, kinds, strict=True):
        write_checkpoint(home.work / f"{name}.safetensors", kind)
        assert home.craft("models", "add", f"{name}.safetensors").returncode == 0
    expected |= {"pocket": "pocket", "flat": "sd"}  # of flat's text nothing is known
    assert {model["name"]: model["architecture"] for model in home.json("models", "list")} == expected
    rows = [line.split("\t")[:2] for line in home.craft("models", "list").stdout.splitlines()]
    assert dict(rows) == expected
    assert "architecture\tsd2\n" in home.craft("models", "show", "two").stdout


def test_what_a_model_is_kept_in_is_said_shown_and_taken_back(home: Home, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mine")
    assert home.craft("models", "add", str(folder), "--name", "mine", "--precision", "fp8").stdout == "mine\n"
    assert home.json("models", "show", "mine")["memory_precision"] == "fp8"
    assert home.craft("models", "edit", "mine", "--precision", "int8").stdout == "mine\tprecision\tint8\n"
    assert "as int8" in home.craft("models", "list").stdout
    assert home.craft("models", "edit", "mine", "--precision", "auto").returncode == 0
    assert home.json("models", "show", "mine")["memory_precision"] is None
    refused = home.craft("models", "edit", "mine", "--precision", "int3")
    assert refused.returncode != 0 and "fp8, int8" in refused.stderr
    assert "--precision" in home.craft("models", "edit", "mine").stderr
