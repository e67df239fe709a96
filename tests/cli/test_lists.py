"""Lists that are empty say so to whom it may concern; files are shown as pictures of the store are."""

from __future__ import annotations

import json

import pytest
from craft_cli.commands import images
from craft_cli.registering import plans
from craft_protos import models_pb2

from tests.cli.test_terminal_process import at_terminal
from tests.home import Home

EMPTY = [
    (["jobs", "list"], "craft: no jobs yet; craft generate"),
    (["jobs", "list", "--state", "failed"], "craft: no such jobs"),
    (["images", "list"], "craft: no pictures yet"),
    (["lora", "list"], "craft: no LoRAs yet; craft lora add FILE"),
    (["keys", "list"], "craft: no keys yet; craft keys create"),
    (["models", "search", "nothing-of-the-kind"], "craft: no model that craft knows"),
    (["presets", "list"], "craft: no presets yet"),
    (["ps"], "craft: no job waits or runs\ncraft: no model is in memory"),
]


def test_an_empty_list_is_said_at_a_terminal_alone(home: Home) -> None:
    home.craft("daemon", "start")
    for args, said in EMPTY:
        code, seen = at_terminal(home, *args)
        assert code == 0
        assert seen.startswith(said), seen
        done = home.craft(*args)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_a_file_is_shown_as_its_picture_in_the_store_is(shared_home: Home, extension: str) -> None:
    made = shared_home.json("generate", "a red apple", "--seed", "7", "-o", f"x.{extension}", "-f")
    stored = shared_home.json("images", "show", made["image"])
    told = shared_home.json("images", "show", f"x.{extension}")
    assert told["provenance"] == stored["provenance"]
    assert {name: told[name] for name in ("width", "height", "media_type")}.items() <= stored.items()
    done = shared_home.craft("images", "show", f"x.{extension}")
    assert done.returncode == 0
    assert "prompt\ta red apple\n" in done.stdout and "seed\t7\n" in done.stdout
    data = (shared_home.work / f"x.{extension}").read_bytes()
    assert json.loads(shared_home.craft("images", "show", "-", "--json", stdin=data).stdout)["file"] == "stdin"
    assert shared_home.craft("images", "show", f"./none.{extension}").returncode == 66


def test_a_plan_marks_the_precision_that_is_asked_for() -> None:
    entry = models_pb2.CatalogueEntry(title="It")
    for name in ("bf16", "fp8"):
        entry.memory.add(precision=name, whole_bytes=10**9, network_bytes=10**8)
    plan = models_pb2.PullPlan(source="org/it", entry=entry)
    marked = [name for name, _ in plans.rows(plan, "fp8") if name.startswith("memory")]
    assert marked == ["memory in bf16", "memory in fp8 (as asked)"]
    assert "(as asked)" not in str(plans.rows(plan))


@pytest.mark.parametrize(
    ("weights", "kept"),
    [(["", "fp8 e4m3"], "auto"), (["fp8 e4m3", ""], "fp8"), (["int8", ""], "int8"), (["Q4_K", ""], None), (None, None)],
)
def test_a_precision_that_changed_can_be_asked_for_again(weights: list[str] | None, kept: str | None) -> None:
    assert images._kept_in({"weights": weights} if weights else {"device": ["cpu", "cuda"]}) == kept
