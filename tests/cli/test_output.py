"""Names and files: nothing that exists is lost, nothing is written by half."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from craft_cli.generate import output, writing
from craft_cli.generate.output import Picture
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError

APPLE = Picture("a Red apple, please!", seed=7, index=0, n=1, id="i1", job="j1")


def named(option: str | None, picture: Picture = APPLE, *, many: bool = False, file_format: str = "png") -> str:
    return str(output.target(option, many=many, file_format=file_format, force=False).path(picture))


def test_default_name_is_the_prompt_and_the_seed() -> None:
    assert named(None) == "a-red-apple-please-7.png"
    assert named(None, file_format="jpeg") == "a-red-apple-please-7.jpg"


@pytest.mark.parametrize(
    ("option", "many", "name"),
    [
        ("apple.png", False, "apple.png"),
        ("apple.png", True, "apple-1.png"),
        ("apple", True, "apple-1"),
        ("apple-{seed}.png", True, "apple-7.png"),
        ("{n:03}.png", True, "001.png"),
        ("{index}-{id}-{job}-{slug}.png", True, "0-i1-j1-a-red-apple-please.png"),
        ("{slug}.png", True, "a-red-apple-please-1.png"),
        ("{{x}}.png", False, "{x}.png"),
        ("some.dir/a", True, "some.dir/a-1"),
    ],
)
def test_patterns(option: str, many: bool, name: str) -> None:
    assert named(option, many=many) == name


def test_a_folder_takes_the_default_name(tmp_path: Path) -> None:
    folder = tmp_path / "{odd}"
    folder.mkdir()
    assert named(str(folder)) == f"{folder}/a-red-apple-please-7.png"


@pytest.mark.parametrize(
    "option", ["{sed}.png", "{seed.real}.png", "{seed[0]}.png", "{0}.png", "{}.png", "a{.png", "}"]
)
def test_a_pattern_that_means_nothing_is_a_usage_error(option: str) -> None:
    with pytest.raises(CraftError) as caught:
        named(option)
    assert caught.value.exit_code == 2


def test_a_slug_is_a_safe_name() -> None:
    assert output.slug("../../etc/passwd\0") == "etc-passwd"
    assert output.slug("!!!") == "picture"
    assert output.slug("Ein Äpfelchen_rot") == "ein-äpfelchen-rot"
    assert len(output.slug("word " * 100).encode()) <= 60
    assert output.slug("w" * 500) == "picture"
    assert output.slug("赤" * 10) == "赤" * 10


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    target = output.target(str(path), many=False, file_format="png", force=False)
    with pytest.raises(CraftError, match="exists") as caught:
        target.check([APPLE])
    assert caught.value.exit_code == 73
    with pytest.raises(CraftError) as caught:
        writing.write(path, b"new", force=False)
    assert caught.value.exit_code == 73
    assert path.read_bytes() == b"mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_force_replaces_at_once_and_keeps_links(tmp_path: Path) -> None:
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    path.write_bytes(b"old")
    link.symlink_to(path)
    writing.write(link, b"new", force=True)
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_dangling_link_counts_as_taken(tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CraftError) as caught:
        writing.write(link, b"new", force=False)
    assert caught.value.exit_code == 73


def test_new_files_have_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        writing.write(tmp_path / "a.png", b"x", force=False)
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_to_and_never_replaced() -> None:
    writing.write(Path("/dev/null"), b"x", force=False)
    assert Path("/dev/null").is_char_device()
    assert named("/dev/null", many=True) == "/dev/null"


@pytest.mark.parametrize("name", ["file/a.png", "folder"])
def test_what_cannot_be_written_is_found_before_drawing(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    target = output.Target(str(tmp_path / name), force=True)
    with pytest.raises(CraftError) as caught:
        target.check([APPLE])
    assert caught.value.exit_code == 74


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a system without /proc")
def test_a_folder_that_lets_nothing_in_is_found_before_drawing() -> None:
    """Whoever runs as root may write anywhere, as access() has it."""
    with pytest.raises(CraftError, match=r"/proc/y\.png cannot be written"):
        output.target("/proc/y.png", many=False, file_format="png", force=False).check([APPLE])


def test_a_look_at_a_folder_leaves_nothing(tmp_path: Path) -> None:
    output.target(str(tmp_path / "y.png"), many=False, file_format="png", force=False).check([APPLE])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_file() -> None:
    with pytest.raises(CraftError) as caught:
        writing.write(Path("/dev/full"), b"x" * 100_000, force=False)
    assert caught.value.exit_code == 74


def test_every_picture_of_a_job_has_its_own_seed_and_number() -> None:
    pictures = output.pictures(GenerateRequest(prompt="x", seed=5, count=3), first_n=10)
    assert [(p.seed, p.index, p.n) for p in pictures] == [(5, 0, 10), (6, 1, 11), (7, 2, 12)]


def test_details_say_what_json_would() -> None:
    values = [None, True, 0.1 + 0.2, 7, "x", ["a", "b"], {"torch": "2.13.0", "ok": False}]
    assert [output.cell(value) for value in values] == ["", "yes", "0.3", "7", "x", "a, b", "torch 2.13.0, ok no"]
