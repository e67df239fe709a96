"""The same picture with several values of an option, and batches that are tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from craft_cli.generate import sweeping, tables
from craft_protos.reasons import CraftError

from tests.home import Home


def test_each_value_with_each(shared_home: Home) -> None:
    args = ["a red apple", "--sweep", "guidance=1,2.5", "--sweep", "steps=2,3", "--json"]
    answers = shared_home.lines("generate", *args)
    assert [answer["sweep"] for answer in answers] == [
        {"guidance": "1", "steps": "2"},
        {"guidance": "1", "steps": "3"},
        {"guidance": "2.5", "steps": "2"},
        {"guidance": "2.5", "steps": "3"},
    ]
    assert [(answer["guidance_scale"], answer["steps"]) for answer in answers] == [(1, 2), (1, 3), (2.5, 2), (2.5, 3)]
    (seed,) = {answer["seed"] for answer in answers}
    assert answers[2]["path"] == f"a-red-apple-{seed}-guidance2.5-steps2.png"
    assert all((shared_home.work / answer["path"]).exists() for answer in answers)


def test_paths_are_printed_as_without_a_sweep(shared_home: Home) -> None:
    done = shared_home.craft("generate", "x", "--sweep", "steps=2,3", "-o", "s{steps}.png", "--seed", "7")
    assert (done.returncode, done.stdout) == (0, "s2.png\ns3.png\n"), done.stderr


@pytest.mark.parametrize(
    ("out", "args", "files"),
    [
        ("x.png", [], {"x-1.png", "x-2.png"}),
        ("{steps}.png", ["-n", "2"], {"2-1.png", "2-2.png", "3-3.png", "3-4.png"}),
        ("{steps}-{seed}.png", ["-n", "2", "--seed", "5"], {"2-5.png", "2-6.png", "3-5.png", "3-6.png"}),
    ],
)
def test_no_two_pictures_have_one_name(shared_home: Home, out: str, args: list[str], files: set[str]) -> None:
    done = shared_home.craft("generate", "x", "--sweep", "steps=2,3", "-o", out, *args)
    assert (done.returncode, set(done.stdout.split())) == (0, files), done.stderr


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("size=64x32,32x64", "width", [64, 32]),
        ("--width=64,32", "width", [64, 32]),
        ("height=64,32", "height", [64, 32]),
        ("cfg=1,2", "guidance_scale", [1, 2]),
        ("guidance-rescale=0,0.7", "guidance_rescale", [0, 0.7]),
        ("clip_skip=1,2", "clip_skip", [1, 2]),
        ("sampler=DDIM,Euler a", "sampler", ["DDIM", "Euler a"]),
        ("seed=7,8", "seed", [7, 8]),
        ("model=flat,other", "model", ["flat", "other"]),
        ("negative=blurry,dark", "negative_prompt", ["blurry", "dark"]),
    ],
)
def test_what_may_be_swept_over(option: str, name: str, value: list[object]) -> None:
    assert [one.fields[name] for one in sweeping.parse([option])] == value


@pytest.mark.parametrize(("option", "name"), [("strength=0.2,0.4", "strength"), ("mask-blur=0.2,0.4", "mask_blur")])
def test_what_is_said_of_pictures_too(option: str, name: str) -> None:
    assert [one.pictures[name] for one in sweeping.parse([option])] == [0.2, 0.4]


def test_loras_are_weighed(shared_home: Home) -> None:
    found = [one.fields["loras"][0] for one in sweeping.parse(["lora=it:0.5,it:1"])]
    assert [(one.lora, one.weight) for one in found] == [("it", 0.5), ("it", 1)]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("steps", "--sweep steps: no values"),
        ("steps=", "no values"),
        ("stops=1,2", "does not sweep over 'stops'"),
        ("prompt=a,b", "does not sweep over 'prompt'"),
        ("steps=two", "--sweep steps=two: "),
        ("steps=0,1", "--sweep steps=0: must be from 1"),
        ("strength=2", "--sweep strength=2: must be from 0 to 1"),
        ("size=big", "--sweep size big: not two numbers"),
        ("lora=:1", "no weight"),
    ],
)
def test_what_cannot_be_swept_over_is_said(option: str, told: str) -> None:
    with pytest.raises(CraftError) as caught:
        sweeping.parse([option])
    assert told in caught.value.message


def test_a_sweep_that_would_never_end_is_refused() -> None:
    many = ",".join(map(str, range(200)))
    with pytest.raises(CraftError, match="40000 combinations"):
        sweeping.parse([f"seed={many}", f"width={many.replace('0,', '200,', 1)}"])
    with pytest.raises(CraftError, match="steps is given twice"):
        sweeping.parse(["steps=1,2", "steps=3"])


@pytest.mark.parametrize("other", [["-o", "-"], ["--show"]])
def test_what_does_not_go_with_a_sweep(shared_home: Home, other: list[str]) -> None:
    done = shared_home.craft("generate", "x", "--sweep", "steps=2,3", *other)
    assert done.returncode == 2 and "--sweep does not go with" in done.stderr


def test_a_batch_is_swept_too_and_planned(shared_home: Home) -> None:
    before = shared_home.json("jobs", "list")
    lines = shared_home.lines("generate", "--batch", "-", "--sweep", "steps=2,3", "--plan", stdin="one\ntwo\n")
    assert [(line["line"], line["prompt"], line["steps"]) for line in lines] == [
        (1, "one", 2),
        (1, "one", 3),
        (2, "two", 2),
        (2, "two", 3),
    ]
    assert shared_home.json("jobs", "list") == before


def test_one_failure_leaves_the_others(shared_home: Home) -> None:
    done = shared_home.craft("generate", "x", "--sweep", "sampler=DDIM,nonsense,Euler")
    assert len(done.stdout.split()) == 2 and done.returncode in (2, 65)
    assert "craft: sampler nonsense: " in done.stderr


TABLE = 'prompt,steps,guidance_scale,negative_prompt\n"a red, round apple",2,1.5,blurry\na rocket,,,\n'


@pytest.mark.parametrize(("mark", "name"), [(",", "t.csv"), ("\t", "t.tsv"), (";", "t.txt")])
def test_a_table_is_a_batch(shared_home: Home, mark: str, name: str) -> None:
    text = TABLE.replace(",", mark).replace(f"red{mark}", "red,")
    (shared_home.work / name).write_text(text)
    answers = shared_home.lines("generate", "--batch", name, "-s", "4", "-o", "{n}.png")
    assert [(one["line"], one["prompt"], one["steps"], one["negative_prompt"]) for one in answers] == [
        (2, "a red, round apple", 2, "blurry"),
        (3, "a rocket", 4, ""),
    ]
    assert answers[0]["guidance_scale"] == 1.5


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("prompt", "42", "42"),
        ("seed", " 7 ", 7),
        ("deterministic", "TRUE", True),
        ("loras", "it:0.8 other", ["it:0.8", "other"]),
        ("loras", '["it"]', ["it"]),
        ("indices", "0;2", [0, 2]),
        ("strength", "0.5", 0.5),
        ("mask", "hole.png", "hole.png"),
        ("expire_time", "2030-01-31T18:00:00Z", "2030-01-31T18:00:00Z"),
        ("steps", "many", "many"),
    ],
)
def test_cells_are_read_as_their_fields_are(name: str, cell: str, value: object) -> None:
    assert tables.value_of(name, cell) == value


def test_bad_rows_cost_only_themselves(shared_home: Home) -> None:
    rows = b'prompt,steps\ngood,2\nbad,many\nlong,2,3\n\xff,2\n"two\nlines",2\nlast,2\n'
    (shared_home.work / "t.csv").write_bytes(rows)
    done = shared_home.craft("generate", "--batch", "t.csv", "--json", "-o", "{n}.png")
    assert done.returncode == 65
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["line"] for answer in answers] == [2, 3, 4, 5, 7, 8]
    assert ["error" in answer for answer in answers] == [False, True, True, True, False, False]
    assert answers[4]["prompt"] == "two\nlines"
    assert "line 4: the row has 3 cells, and the first line names 2" in done.stderr


def test_a_misspelt_column_draws_nothing(shared_home: Home) -> None:
    done = shared_home.craft("generate", "--batch", "-", stdin="prompt,sead,steps\na fish,7,2\n")
    assert (done.returncode, done.stdout) == (65, "")
    assert "'sead' is no field\n  did you mean 'seed'?" in done.stderr


def test_errors_are_on_stderr_alone_unless_asked_for(shared_home: Home) -> None:
    done = shared_home.craft("generate", "--batch", "-", "-o", "{n}.png", stdin='good\n{"promt": "x"}\n')
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["good"]
    assert done.returncode == 65
    assert "craft: line 2: promt: no such field (did you mean 'prompt'?)\n" in done.stderr


def test_a_folder_is_made_for_pictures(shared_home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deeper"
    done = shared_home.craft("generate", "x", "--seed", "7", "-o", f"{folder}/")
    assert (done.returncode, done.stdout) == (0, f"{folder}/x-7.png\n"), done.stderr
    done = shared_home.craft("generate", "x", "--batch", "-", "-o", f"{tmp_path}/other/{{n}}.png", stdin="x\n")
    assert done.returncode == 2
    done = shared_home.craft("generate", "--batch", "-", "-o", f"{tmp_path}/other/{{n}}.png", stdin="x\n")
    assert done.returncode == 0 and (tmp_path / "other" / "1.png").exists(), done.stderr
