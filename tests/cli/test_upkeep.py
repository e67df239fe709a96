"""craft df and craft prune, as users type them."""

from __future__ import annotations

from tests.home import Home


def test_df_says_what_is_kept_and_for_how_long(home: Home) -> None:
    home.craft("generate", "x", "-n", "2", "-o", "{index}.png")
    table = home.craft("df")
    assert table.returncode == 0 and "up to 50 GiB" in table.stdout and "90 days" in table.stdout
    usage = home.json("df")
    held = {one["what"]: one for one in usage["held"]}
    assert held["pictures"]["count"] == 2 and held["pictures"]["bytes"] > 0 and held["jobs"]["count"] == 1
    assert 0 < usage["free_bytes"] < usage["total_bytes"]


def test_prune_asks_takes_units_and_removes(home: Home) -> None:
    home.json("generate", "x", "-o", "x.png")
    assert home.craft("prune", "--dry-run").stdout.splitlines()[0] == "jobs\t0\t0 B"
    assert home.json("prune", "pictures", "--older-than", "0s", "--dry-run") == [
        {"what": "pictures", "count": 0, "bytes": 0}  # too young: it may still be fetched
    ]
    (image,) = home.json("images", "list")
    assert home.craft("images", "rm", image["id"]).returncode == 0
    asked = home.craft("prune", "jobs", "--older-than", "0s")
    assert asked.returncode == 2 and "remove 1 job, " in asked.stderr and "--force" in asked.stderr
    assert home.json("prune", "jobs", "--older-than", "0s", "--force") == [{"what": "jobs", "count": 1, "bytes": 0}]
    assert home.json("jobs", "list") == []
    wrong = home.craft("prune", "jbos", "--force")
    assert wrong.returncode == 65 and "jobs" in wrong.stderr
    number = home.craft("prune", "jobs", "--older-than", "3", "--force")
    assert number.returncode == 2 and "3 of what?" in number.stderr
