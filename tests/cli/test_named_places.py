"""Models and LoRAs that are named by where they lie: registered on the way, once somebody has agreed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from craft_cli.generate import loras
from craft_protos.lora import LoraRef

from tests.cli.test_terminal_process import at_terminal
from tests.daemon import hub as hubs
from tests.daemon.hub import COMMIT, Hub, Repository
from tests.home import Home, write_model
from tests.lora_files import kohya

NAME = "some-org/tiny"
LORA = "some-org/style"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    kohya(folder / "style.safetensors", width=99)
    style = Repository(LORA, {"style.safetensors": (folder / "style.safetensors").read_bytes()})
    with hubs.serving(Repository(NAME, hubs.folder(write_model(folder / "remote"))), style) as one:
        yield one


@pytest.fixture(scope="module")
def place(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home()
    home.env |= hubs.environment(hub, tmp_path_factory.mktemp("hf"))
    write_model(home.work / "folder")
    kohya(home.work / "it.safetensors", width=99)
    yield home
    home.remove()


def test_nobody_is_there_to_agree(place: Home) -> None:
    for args, command in (
        (["-m", "./folder"], "craft models add ./folder"),
        (["-m", NAME], f"craft models pull {NAME}"),
        (["-l", "./it.safetensors:0.8"], "craft lora add ./it.safetensors"),
    ):
        done = place.craft("generate", "x", *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert "nobody is here to confirm" in done.stderr and f"--yes, or register it: {command}" in done.stderr
    assert {model["name"] for model in place.json("models", "list")} == {"pocket", "flat"}


def test_a_plan_registers_nothing(place: Home) -> None:
    done = place.craft("generate", "x", "-m", "./folder", "--plan", "--yes")
    assert done.returncode == 2
    assert "./folder is no registered model, and would be registered as --yes says" in done.stderr
    assert "--plan registers nothing: craft models add ./folder does" in done.stderr


def test_a_folder_is_registered_once_and_drawn_with(place: Home) -> None:
    done = place.craft("generate", "x", "-m", "./folder", "--yes", "--json")
    assert done.returncode == 0, done.stderr
    assert "./folder is registered as folder" in done.stderr and '"model": "folder"' in done.stdout
    again = place.craft("generate", "x", "-m", str(place.work / "folder"), "--plan", "--json")
    assert '"model": "folder"' in again.stdout, again.stderr  # nobody is asked any more
    assert place.craft("models", "rm", "folder").returncode == 0


@pytest.mark.parametrize("source", [NAME, f"https://huggingface.co/{NAME}", f"hf.co/{NAME}"])
def test_a_repository_is_pulled(place: Home, source: str) -> None:
    done = place.craft("generate", "x", "-m", source, "-y", "-o", "hub.png", "--force")
    assert done.returncode == 0, done.stderr
    (model,) = [one for one in place.json("models", "list") if one["source"] == f"{NAME}@{COMMIT}"]
    assert place.craft("generate", "x", "-m", source, "-o", "hub.png", "--force").returncode == 0
    assert place.craft("models", "rm", model["name"]).returncode == 0


@pytest.mark.parametrize(
    "source", [LORA, f"{LORA}:style.safetensors", f"https://hf.co/{LORA}/resolve/main/style.safetensors"]
)
def test_a_lora_of_the_hub_is_added(place: Home, source: str) -> None:
    done = place.craft("generate", "x", "-l", f"{source}:0.5", "-y", "--plan")
    assert done.returncode == 2 and "--plan registers nothing: craft lora add" in done.stderr
    place.craft("generate", "x", "-l", f"{source}:0.5", "-y", "--lora-missing", "skip", "-o", "l.png", "--force")
    (lora,) = place.json("lora", "list")
    assert lora["name"] == "style"
    planned = place.craft("generate", "x", "-l", f"{source}:0.5", "--plan", "--json")
    assert lora["id"] in planned.stdout and '"weight": 0.5' in planned.stdout, planned.stderr
    assert place.craft("lora", "rm", "style").returncode == 0


def test_a_loras_file_is_added_once(place: Home) -> None:
    for _ in range(2):
        place.craft("generate", "x", "-l", "./it.safetensors:0.8", "-y", "-o", "f.png", "--force")
    assert [one["name"] for one in place.json("lora", "list")] == ["it"]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["-m", "./nowhere"], 66, "./nowhere"),
        (["-m", "some-org/nothing"], 66, "some-org/nothing"),
        (["-m", "https://example.org/x"], 2, "is no model's page"),
        (["-l", "./nowhere.safetensors"], 66, "nowhere.safetensors"),
        (["-l", "https://example.org/x.safetensors"], 2, "is no model's page"),
    ],
)
def test_what_is_not_there_is_said(place: Home, args: list[str], code: int, told: str) -> None:
    done = place.craft("generate", "x", *args, "--yes")
    assert done.returncode == code and told in done.stderr


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("./it.safetensors", "./it.safetensors", None),
        ("./it.safetensors:0.8", "./it.safetensors", 0.8),
        ("ORG/NAME:it.safetensors", "ORG/NAME:it.safetensors", None),
        ("ORG/NAME:it.safetensors:-1", "ORG/NAME:it.safetensors", -1),
        ("https://hf.co/ORG/NAME", "https://hf.co/ORG/NAME", None),
        ("it:0.8", "it", 0.8),
    ],
)
def test_a_weight_stands_behind_the_last_colon(text: str, name: str, weight: float | None) -> None:
    assert loras.parse(text) == LoraRef(name, weight)


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0)])
def test_somebody_is_asked_at_a_terminal(home: Home, answer: str, code: int) -> None:
    write_model(home.work / "other")
    found, seen = at_terminal(home, "generate", "x", "-m", "./other", "-q", typed=f"{answer}\n")
    assert "./other is no registered model: register it and draw with it? [y/N]" in seen
    assert ("nothing was registered, nothing drawn" in seen) == bool(code) and found == code
    assert len(home.json("models", "list")) == 3 - code
