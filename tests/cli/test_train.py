"""craft lora train: what is read, sent, shown, and how it ends; against the worker without torch."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from craft_cli.training import folders, pictures, plotting
from craft_protos.reasons import CraftError
from PIL import Image

from tests.home import Home, until
from tests.pictures import picture


def folder(at: Path, count: int = 4, **captions: str) -> Path:
    at.mkdir(parents=True)
    for number in range(count):
        (at / f"p{number}.png").write_bytes(picture(number))
    for stem, caption in captions.items():
        (at / f"{stem}.txt").write_text(caption)
    return at


def test_captions_beside_the_pictures_and_in_metadata(tmp_path: Path) -> None:
    at = folder(tmp_path / "x", p0=" a red\napple ", p1="\ufeffa café")
    (at / "metadata.jsonl").write_text(
        '{"file_name": "p2.png", "text": "a boat"}\n\n{"file_name": "p0.png", "text": "beaten by p0.txt"}\n'
    )
    (at / ".hidden.png").write_bytes(b"x")
    (at / "notes.md").write_text("none of ours")
    (at / "deeper").mkdir()
    read = pictures.read(at, skip_bad=False)
    assert [(one.path.name, one.caption) for one in read.pictures] == [
        ("p0.png", "a red apple"),
        ("p1.png", "a café"),
        ("p2.png", "a boat"),
        ("p3.png", ""),
    ]


def test_folders_of_kohyas_others_and_masks(tmp_path: Path) -> None:
    root = tmp_path / "data"
    rex = folder(root / "3_rex dog", 2, p0="rex, asleep")
    (rex / "p1-masklabel.png").write_bytes(picture(40))
    folder(root / "0_none", 1)
    folder(root / "others", 1)
    more = folder(tmp_path / "more", 2)
    masks = folder(tmp_path / "masks", 3)
    parts = [replace(folders.asked(text), masks=masks) for text in (str(root), f"2:{more}")]
    read = folders.read(parts, skip_bad=False)
    assert [(one.name, one.caption, one.repeats) for one in read.pictures] == [
        ("3_rex dog: p0.png", "rex, asleep", 3),
        ("3_rex dog: p1.png", "rex dog", 3),
        ("more: p0.png", "", 2),
        ("more: p1.png", "", 2),
    ]
    assert [one.mask.parent.name for one in read.pictures if one.mask] == ["masks", "3_rex dog", "masks", "masks"]
    assert read.notes == (
        "3_rex dog/: each picture 3 times an epoch, 'rex dog' where there is no caption",
        "0_none/: is not read, for it is not called as 10_0_none is",
        "others/: is not read, for it is not called as 10_others is",
        "masks/p2.png: is a mask without its picture",
    )
    headers = [one for one in pictures.parts(read, skip_bad=False) if not one.chunk]
    assert (headers[0].header.pictures, headers[0].header.masks) == (4, 4)
    assert headers[2].picture.mask_of == "3_rex dog: p0.png"
    put_gif(rex)
    put_empty(more)
    with pytest.raises(CraftError, match=r"3_rex dog: it.gif is no JPEG.*more: empty.jpg is empty"):
        folders.read(parts, skip_bad=False)
    assert len(folders.read(parts, skip_bad=True).pictures) == 4


@pytest.mark.parametrize("asked", ["2000:more", "0:more"])
def test_repeats_have_a_limit(asked: str) -> None:
    with pytest.raises(CraftError, match="repeats"):
        folders.asked(asked)


def put_caption(at: Path) -> None:
    (at / "gone.txt").write_text("of a picture that is not there")


def put_gif(at: Path) -> None:
    (at / "it.gif").write_bytes(picture(9, kind="GIF"))


def put_empty(at: Path) -> None:
    (at / "empty.jpg").write_bytes(b"")


def put_latin(at: Path) -> None:
    (at / "p0.txt").write_bytes(b"caf\xe9")


def put_pipe(at: Path) -> None:
    os.mkfifo(at / "pipe.png")


def put_stray_line(at: Path) -> None:
    (at / "metadata.jsonl").write_text('{"file_name": "../p0.png", "text": "out of here"}\n')


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (put_caption, "gone.txt is a caption without its picture"),
        (put_gif, "it.gif is no JPEG, PNG or WebP but GIF"),
        (put_empty, "empty.jpg is empty"),
        (put_latin, "p0.txt is not UTF-8 text"),
        (put_pipe, "pipe.png is no file"),
        (put_stray_line, "metadata.jsonl:1 names '../p0.png'"),
    ],
)
def test_what_is_bad_in_a_folder_is_named_or_left_out(tmp_path: Path, put: object, said: str) -> None:
    at = folder(tmp_path / "x")
    put(at)  # type: ignore[operator]
    with pytest.raises(CraftError) as error:
        pictures.read(at, skip_bad=False)
    assert error.value.reason == "BAD_DATASET"
    assert said in error.value.message and "--skip-bad" in error.value.hint
    read = pictures.read(at, skip_bad=True)
    assert len(read.pictures) == 4 and len(read.bad) == 1


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"text": "x"}', "[" * 100_000])
def test_metadata_that_is_none_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    at = folder(tmp_path / "x")
    (at / "metadata.jsonl").write_text(f'{{"file_name": "p0.png", "text": "x"}}\n{line}\n')
    with pytest.raises(CraftError, match=r"metadata\.jsonl:2"):
        pictures.read(at, skip_bad=True)


def test_a_plan_names_all_bad_pictures_at_once(home: Home) -> None:
    """What lies wrong in the folder, and what only the daemon sees; a picture that comes twice is none of those."""
    at = folder(home.work / "cats", p0="a cat")
    put_gif(at)
    put_caption(at)
    (at / "again.png").write_bytes((at / "p1.png").read_bytes())
    for number in range(6):
        (at / f"tiny{number}.png").write_bytes(picture(50 + number, width=20, height=20))
    planned = home.craft("lora", "train", "cat", "cats", "--trigger", "sks cat", "--plan")
    assert planned.returncode == 65
    assert all(f"tiny{number}.png is tiny" in planned.stderr for number in range(6))
    assert "it.gif is no JPEG" in planned.stderr and "gone.txt is a caption" in planned.stderr
    assert "8 files" in planned.stderr and "again.png" not in planned.stderr
    assert home.craft("lora", "train", "cat", "cats", "--trigger", "sks cat", "--plan", "--skip-bad").returncode == 0


def test_a_training_from_its_folder_to_its_picture(home: Home) -> None:
    folder(home.work / "cats", p0="a cat on a mat")
    planned = home.craft("lora", "train", "cat", "cats", "--trigger", "sks cat", "--epochs", "3", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert "steps\t3" in planned.stdout and "3 pictures have no caption" in planned.stdout
    assert "time\tnot known before the first training for this model" in planned.stdout
    assert home.json("lora", "list") == []
    done = home.craft(
        *("lora", "train", "cat", "cats", "--trigger", "sks cat", "--steps", "12", "--rank", "4", "--format", "kohya"),
        *("--sample", "sks cat", "--sample-every", "6", "--seed", "5"),
    )
    assert (done.returncode, done.stdout) == (0, "cat\n"), done.stderr
    assert "craft generate 'sks cat' -m flat -l cat" in done.stderr
    (lora,) = home.json("lora", "list")
    assert (lora["trigger"], lora["rank"]) == ("sks cat", 4)
    assert home.craft("generate", "sks cat", "-l", "cat", "-o", "it.png").returncode == 0
    train = next(job for job in home.json("jobs", "list") if job["kind"] == "train")
    assert (train["lora"], train["train"]["steps"], train["generate"]) == (lora["id"], 12, None)
    _check_the_log(home, train["id"])
    _check_what_is_foretold(home)
    taken = home.craft("lora", "train", "cat", "cats", "--trigger", "x", "--json")
    assert (taken.returncode, json.loads(taken.stderr)["error"]["reason"]) == (65, "NAME_TAKEN")
    watched = home.craft("jobs", "watch", train["id"])
    assert (watched.returncode, watched.stdout) == (0, "cat\n")


def _check_what_is_foretold(home: Home) -> None:
    """By the training above: twice the steps take twice the time, twice the rank makes twice the file."""
    plan = ("lora", "train", "other", "cats", "--trigger", "sks cat", "--format", "kohya", "--plan")
    with closing(apsw.Connection(str(home.paths.database))) as connection:
        size_bytes = connection.execute("SELECT size_bytes FROM loras").get
    once, twice = (home.json(*plan, "--steps", steps, "--rank", rank) for steps, rank in (("12", "4"), ("24", "8")))
    assert once["pace"]["jobs"] == 1 and once["pace"]["draw_s"] > 0
    assert twice["pace"]["draw_s"] == pytest.approx(2 * once["pace"]["draw_s"], abs=0.002)
    assert (once["lora_bytes"], twice["lora_bytes"]) == (size_bytes, 2 * size_bytes)
    assert home.json(*plan, "--rank", "4", "--dora")["lora_bytes"] is None  # none was made here
    told = home.craft(*plan, "--steps", "12", "--rank", "4").stdout
    assert "by 1 job here" in told and "the LoRA's file\tabout " in told


def _check_the_log(home: Home, job: str) -> None:
    shown = home.craft("jobs", "show", job)
    assert "kind\ttrain" in shown.stdout and "trigger\tsks cat" in shown.stdout
    plot = home.craft("jobs", "show", job, "--plot")
    assert plot.returncode == 0 and "step 12" in plot.stdout
    assert home.craft("jobs", "show", job, "--plot", "-o", "loss.png").stdout == "loss.png\n"
    with Image.open(home.work / "loss.png") as picture:
        assert picture.size == (900, 480)
    assert home.craft("jobs", "show", job, "--plot", "-o", "loss.png").returncode == 73
    written = home.craft("jobs", "show", job, "--tensorboard", "runs")
    assert (home.work / written.stdout.strip()).read_bytes().count(b"loss/train") == 12
    assert [step["step"] for step in home.json("jobs", "show", job, "--plot")] == list(range(1, 13))
    saved = home.craft("jobs", "show", job, "--samples", "seen")
    assert [Path(line).name[:11] for line in saved.stdout.split()] == ["step-000006", "step-000012"]
    told = home.craft("jobs", "show", job, "--samples", "seen", "--force", "--json").stdout.splitlines()
    assert [json.loads(line)["path"] for line in told] == saved.stdout.split()
    for path in (home.paths.training_dir / job).iterdir():
        os.truncate(path, 40 << 20)  # together more than a message may have
    saved = home.craft("jobs", "show", job, "--samples", "large")
    assert [(home.work / line).stat().st_size for line in saved.stdout.split()] == [40 << 20] * 2, saved.stderr


def test_json_is_one_object_an_event(home: Home) -> None:
    folder(home.work / "cats")
    done = home.craft("lora", "train", "cat", "cats", "--trigger", "sks", "--steps", "5", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("snapshot", "finished")
    assert events[-1]["job"]["state"] == "SUCCEEDED" and events[-1]["job"]["lora"]
    assert {"step", "of", "loss", "learning_rate", "seconds_left"} <= next(
        one for one in events if one["event"] == "training"
    ).keys()


def test_interrupted_and_gone_on_with(home: Home) -> None:
    folder(home.work / "cats")
    going = home.start(
        *("lora", "train", "cat", "cats", "--trigger", "sks [held]", "--steps", "12", "--checkpoint-every", "4"),
        "--json",
    )
    assert going.stdout is not None
    until(lambda: '"step": 5' in (going.stdout.readline() if going.stdout else ""), "step 5")
    job = home.json("jobs", "list")[0]["id"]
    until(lambda: _checkpoint(home) == 4, "the checkpoint")
    going.send_signal(signal.SIGINT)
    _, told = home.finish(going)
    assert going.returncode == 130
    assert f"job {job} was cancelled" in told and "craft lora train cat --resume" in told
    home.paths.files_dir.joinpath("release").touch()
    assert home.craft("lora", "train", "cat", "cats", "--resume").returncode == 2
    done = home.craft("lora", "train", "cat", "--resume")
    assert (done.returncode, done.stdout) == (0, "cat\n"), done.stderr
    newest = home.json("jobs", "list")[0]
    assert newest["train"]["resume"] == job
    steps = [one["step"] for one in home.json("jobs", "show", newest["id"], "--plot")]
    assert steps == list(range(1, 13))


def test_crafts_own_pictures_are_trained_on(home: Home) -> None:
    """Their captions are their prompts; with a folder's, too."""
    args = ("-n", "3", "--json", "-o", "own-{seed}.png")
    ids = [json.loads(line)["image"] for line in home.craft("generate", "a cat", *args).stdout.splitlines()]
    named = ("--images", f"{ids[0]},{ids[1][:12]}", "--images", ids[2], "--images", ids[2])
    done = home.craft("lora", "train", "own", *named, "--steps", "3")
    assert (done.returncode, done.stdout) == (0, "own\n"), done.stderr
    with closing(apsw.Connection(str(home.paths.database))) as database:
        told = [caption for (caption,) in database.execute("SELECT caption FROM dataset_pictures")]
    assert told == ["a cat"] * 3
    folder(home.work / "cats")
    both = home.craft("lora", "train", "both", "cats", "--images", ids[0], "--trigger", "sks", "--steps", "2", "--plan")
    assert both.returncode == 0 and "4 pictures have no caption" in both.stdout, both.stderr
    for more, code, said in (
        (("--images", "nothing"), 66, "no image"),
        (("--images", ids[0]), 65, "1 picture is too few"),
        (("--resume", "--images", ids[0]), 2, "--resume takes the pictures that it had"),
    ):
        refused = home.craft("lora", "train", "more", *more)
        assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr


def _checkpoint(home: Home) -> int:
    logged = home.paths.log_file.read_text()
    return 4 if "checkpoint kept" in logged else 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("cat",), 2, "which pictures?"),
        (("cat", "nowhere", "--trigger", "x"), 66, "there is no folder nowhere"),
        (("cat", "empty", "--trigger", "x"), 65, "empty holds no pictures"),
        (("cat", "two", "--trigger", "x"), 65, "2 pictures are too few"),
        (("cat", "cats"), 65, "have no caption, and there is no trigger"),
        (("cat", "cats", "--trigger", "x", "--steps", "5", "--epochs", "1"), 2, "does not go with"),
        (("cat", "cats", "--trigger", "x", "--rank", "0"), 65, "rank: must be from 1"),
        (("cat", "cats", "--trigger", "x", "--lr", "nan"), 65, "--lr: "),
        (("cat", "cats", "--trigger", "x", "--format", "pt"), 65, "format: must be peft or kohya"),
        (("cat", "cats", "--trigger", "x", "-m", "nothing"), 66, "nothing"),
        (("a/b", "cats", "--trigger", "x"), 65, "is no name"),
        (("cat", "cats", "--trigger", "x", "--sample-every", "5"), 2, "what shall be drawn?"),
        (("cat", "torn", "--trigger", "x"), 65, "p9.png cannot be decoded"),
        (("cat", "--resume"), 66, "no training has the name"),
        (("cat", "--resume", "--steps", "9", "--lr", "1e-3"), 2, "leave out --steps, --lr"),
        (("cat", "--resume", "--when-idle"), 66, "no training has the name"),
    ],
)
def test_bad_calls(bad_home: Home, args: tuple[str, ...], code: int, said: str) -> None:
    done = bad_home.craft("lora", "train", *args)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


@pytest.fixture(scope="module")
def bad_home() -> Iterator[Home]:
    home = Home()
    folder(home.work / "cats")
    folder(home.work / "two", 2)
    (folder(home.work / "torn") / "p9.png").write_bytes(picture(9)[:-300])
    (home.work / "empty").mkdir()
    yield home
    home.remove()


def test_a_curve_has_its_ends_and_is_a_picture() -> None:
    points = [(step, 1.0 / step) for step in range(1, 101)] + [(101, 50.0)]
    lines = plotting.in_terminal(points)
    assert len({len(line) for line in lines[:-2]}) == 1
    assert lines[-1].split() == ["1", "step", "101"]
    with Image.open(io.BytesIO(plotting.as_png(points, "it"))) as made:
        assert made.size == (900, 480)
    with pytest.raises(CraftError):
        plotting.in_terminal([])
    assert plotting.in_terminal([(1, 0.5)])
