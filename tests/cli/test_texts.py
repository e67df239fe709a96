"""Text and pixels as people's programs write them."""

from __future__ import annotations

import codecs
import io
import json
from pathlib import Path

import pytest
from craft_cli.generate import provenance
from craft_cli.training import pictures
from craft_protos import config, infotexts, texts
from craft_protos.pixels import eight_bits
from craft_protos.reasons import CraftError
from PIL import Image

from tests.cli.test_images import GOOD
from tests.cli.test_train import folder
from tests.home import Home
from tests.pictures import deep, picture

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


def written(text: str, encoding: str) -> bytes:
    """With the mark that Windows' programs put before it."""
    return text.encode(encoding)


def wide_be(text: str) -> bytes:
    return codecs.BOM_UTF16_BE + text.encode("utf-16-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_read_without_its_mark(encoding: str) -> None:
    assert texts.decoded(written("a café\n", encoding)) == "a café\n"
    assert texts.decoded(wide_be("a café")) == "a café"


def test_only_line_feeds_end_lines() -> None:
    text = "one\u2028still one\x0b\x0c\x85\r\ntwo\n\nfour"
    assert texts.lines(text) == ["one\u2028still one\x0b\x0c\x85", "two", "", "four"]
    assert texts.lines("") == [] and texts.lines("x\n") == ["x"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_prompt_from_stdin(shared_home: Home, encoding: str) -> None:
    done = shared_home.craft("generate", "-", "-o", "{slug}.png", stdin=written("a café\r\n", encoding))
    assert (done.returncode, done.stdout) == (0, "a-café.png\n"), done.stderr
    assert shared_home.json("images", "list")[0]["prompt"] == "a café"


def test_a_prompt_with_a_mark_as_from_a_file(shared_home: Home) -> None:
    """craft generate "$(cat prompt.txt)" """
    assert shared_home.craft("generate", "\ufeffa boat", "-o", "x.png").returncode == 0
    assert shared_home.json("images", "list")[0]["prompt"] == "a boat"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("source", ["-", "lines.txt"])
def test_a_batchs_first_line_is_no_other_than_the_second(shared_home: Home, encoding: str, source: str) -> None:
    """With its mark before it, an object was drawn as its own text."""
    lines = '{"prompt": "a café", "seed": 5}\r\na boat\u2028still\r\n'
    (shared_home.work / "lines.txt").write_bytes(written(lines, encoding))
    done = shared_home.craft("generate", "--batch", source, "-o", "{n}.png", stdin=written(lines, encoding))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["1.png", "2.png"]
    assert {one["prompt"] for one in shared_home.json("images", "list", "-n", "2")} == {"a café", "a boat\u2028still"}


def test_files_put_behind_each_other(shared_home: Home) -> None:
    lines = b"".join(codecs.BOM_UTF8 + b'{"prompt": "x"}\n' for _ in range(2))
    done = shared_home.craft("generate", "--batch", "-", "-o", "{n}.png", stdin=lines)
    assert done.returncode == 0, done.stdout
    assert {one["prompt"] for one in shared_home.json("images", "list", "-n", "2")} == {"x"}


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ('[{"prompt": "x"}, {"prompt": "y"}]', "JSON array", "jq -c"),
        ('[\n  {"prompt": "x"}\n]\n', "JSON array", "jq -c"),
        ('[ { "prompt": "x" } ]', "JSON array", "jq -c"),
    ],
)
def test_other_forms_of_a_batch_are_named(shared_home: Home, text: str, told: str, hint: str) -> None:
    done = shared_home.craft("generate", "--batch", "-", stdin=text)
    assert (done.returncode, done.stdout) == (65, "")
    assert told in done.stderr and hint in done.stderr
    assert list(shared_home.work.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "prompt,seed\nx,1\n",
        '"prompt";"negative_prompt"\r\n"x";"y"\r\n',
        "seed\tprompt\n1\tx\n",
        "\ufeffprompt,seed\r\nx,1\r\n",
    ],
)
def test_tables_as_programs_write_them(shared_home: Home, text: str) -> None:
    (answer,) = shared_home.lines("generate", "--batch", "-", "-o", "x.png", stdin=text)
    assert answer["prompt"] == "x"


@pytest.mark.parametrize("prompt", ["[red:blue:0.5] apple", "[an apple]", "a prompt, seed", "prompt"])
def test_prompts_that_only_look_so_are_drawn(shared_home: Home, prompt: str) -> None:
    assert shared_home.craft("generate", "--batch", "-", "-o", "x.png", stdin=f"{prompt}\n").returncode == 0
    assert shared_home.json("images", "list")[0]["prompt"] == prompt


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_configuration_and_a_key_with_a_mark(tmp_path: Path, encoding: str) -> None:
    file, key = tmp_path / "config.toml", tmp_path / "key"
    file.write_bytes(written('[generate]\r\nsampler = "DDIM"\r\n', encoding))
    key.write_bytes(written("craft_key\r\n", encoding))
    if encoding.startswith("utf-8"):
        assert config.load(file, {}).generate.sampler == "DDIM"
    else:  # TOML is UTF-8
        with pytest.raises(CraftError, match=r"config\.toml cannot be read: 'utf-8'"):
            config.load(file, {})
    assert config.client({"CRAFT_API_KEY_FILE": str(key)}).api_key == "craft_key"
    assert config.client({"CRAFT_API_KEY": "\ufeffcraft_key"}).api_key == "craft_key"


def test_a_configurations_lines_are_counted_as_editors_do(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("# a\u2028comment\x85\n[generate]\nsamplr = 1\n", encoding="utf-8")
    with pytest.raises(CraftError, match=r"config\.toml:3"):
        config.load(file, {})


def captions(at: Path) -> dict[str, str]:
    return {one.path.name: one.caption for one in pictures.read(at, skip_bad=False).pictures}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["p0.txt", "p0.caption", "p0.TXT", "p0.png.txt"])
def test_captions_beside_pictures(tmp_path: Path, encoding: str, name: str) -> None:
    at = folder(tmp_path / "x", 3)
    (at / name).write_bytes(written("a café\r\n", encoding))
    assert captions(at)["p0.png"] == "a café"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("entry", "caption"),
    [
        ({"file_name": "p0.png", "text": "a\u2028b"}, "a b"),
        ({"file_name": "./p0.png", "text": "a"}, "a"),
        ({"file_name": ".\\p0.png", "text": "a"}, "a"),
        ({"file_name": "p0.png", "prompt": "a"}, "a"),
        ({"file_name": "p0.png", "caption": "a"}, "a"),
        ({"file_name": "p0.png", "text": None}, ""),
        ({"file_name": "p0.png", "text": None, "caption": "a"}, "a"),
        ({"file_name": "p0.png"}, ""),
    ],
)
def test_metadata(tmp_path: Path, encoding: str, entry: dict[str, object], caption: str) -> None:
    at = folder(tmp_path / "x", 3)
    text = json.dumps(entry, ensure_ascii=False) + "\r\n" + json.dumps({"file_name": "p1.png", "text": "b"})
    (at / "metadata.jsonl").write_bytes(written(text, encoding))
    assert captions(at) == {"p0.png": caption, "p1.png": "b", "p2.png": ""}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"file_name": "p0.png", "text": ["a", "b"]}, "a text that is not text but a list"),
        ({"file_name": "p0.png", "text": {"en": "a"}}, "a text that is not text but a JSON object"),
        ({"file_name": "p0.png", "text": 5}, "a text that is not text but a number"),
        ({"file_name": None, "text": "a"}, "no JSON object with file_name"),
        ({"file_name": ["p0.png"], "text": "a"}, "a file_name that is not text but a list"),
        ({"file_name": "p0.png", "text": "\ud800"}, "a text that is no Unicode text"),
    ],
)
def test_metadata_that_is_no_caption_is_named(tmp_path: Path, entry: dict[str, object], told: str) -> None:
    """A list was trained as its own spelling, and null as the word None."""
    at = folder(tmp_path / "x", 3)
    (at / "metadata.jsonl").write_text("\n" + json.dumps(entry))
    with pytest.raises(CraftError, match=rf"metadata\.jsonl:2 .*{told}"):
        captions(at)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.parquet", "captions.json"])
def test_captions_that_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    at = folder(tmp_path / "x", 3)
    (at / name).write_text("x")
    with pytest.raises(CraftError, match=f"{name} is not read: write metadata.jsonl"):
        captions(at)


def test_what_counts_for_nothing_is_said(tmp_path: Path) -> None:
    at = folder(tmp_path / "x", 3, p0="one")
    (at / "p0.caption").write_text("two")
    (at / "p1.caption").write_text("the same")
    (at / "metadata.jsonl").write_text(
        '{"file_name": "p0.png", "text": "three"}\n{"file_name": "p1.png", "text": "the same"}\n'
    )
    (at / "deeper").mkdir()
    (at / "deeper" / "p9.png").write_bytes(picture(9))
    assert pictures.read(at, skip_bad=False).notes == (
        "p0.caption: p0.png has another caption, which counts for more",
        "metadata.jsonl:1: p0.png has another caption, which counts for more",
        "deeper/: pictures in folders inside are not read",
    )


@pytest.mark.parametrize("extension", ["jfif", "JPE", "jpg", "jpeg"])
def test_jpeg_by_all_its_names(tmp_path: Path, extension: str) -> None:
    at = folder(tmp_path / "x", 3)
    (at / f"it.{extension}").write_bytes(picture(9, kind="JPEG"))
    (at / "it.txt").write_text("an apple")
    assert captions(at)[f"it.{extension}"] == "an apple"


def test_sixteen_bits_become_eight_and_not_white() -> None:
    made = eight_bits(Image.open(io.BytesIO(deep(1)))).convert("RGB")
    assert [made.getpixel((x, 5)) for x in (0, 1, 50, 95)] == [(x, x, x) for x in (0, 1, 50, 95)]
    white = eight_bits(Image.open(io.BytesIO(deep(255)))).convert("RGB")
    assert white.getpixel((95, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        (b"UNICODE\0", "utf-16-be"),
        (b"UNICODE\0", "utf-16-le"),
        (b"UNICODE\0", "utf-16"),
        (b"ASCII\0\0\0", "utf-8"),
        (b"\0" * 8, "utf-8"),
    ],
)
def test_provenance_in_every_encoding_of_a_comment(kind: str, head: bytes, encoding: str) -> None:
    text = json.dumps(GOOD | {"prompt": "a café, 日本"}, ensure_ascii=False)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = head + text.encode(encoding)
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, kind, exif=exif)
    found = provenance.read(provenance.open_picture(stream.getvalue(), "it"), "it")
    assert found.spec.prompt == "a café, 日本"


def test_an_infotext_with_quoted_values() -> None:
    text = (
        "a cat, Steps: 3 of them\nNegative prompt: ugly, Size: 1x1\n"
        'Steps: 20, Sampler: DPM++ 2M, Lora hashes: "a: 12ab, b: 34cd", Size: 512x768, '
        'Hires prompt: "say \\"hi\\", twice\\nor not", Model: it, Empty: "", Version: v1.10.1'
    )
    assert infotexts.parse(text) == {
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Lora hashes": "a: 12ab, b: 34cd",
        "Size": "512x768",
        "Hires prompt": 'say "hi", twice\nor not',
        "Model": "it",
        "Empty": "",
        "Version": "v1.10.1",
    }


@pytest.mark.parametrize("value", ["plain", "a, b", 'say "x": y', "one\ntwo", "", "512x512", "日本"])
def test_what_is_quoted_is_read_back(value: str) -> None:
    assert infotexts.parse(f"x\nSteps: 1, Model: {infotexts.quoted(value)}, Seed: 2") == {
        "Steps": "1",
        "Model": value,
        "Seed": "2",
    }


@pytest.mark.parametrize("text", ["a" * 100_000, " " * 100_000, 'a: "' * 25_000, "Steps: " + '"\\' * 50_000, ""])
def test_a_hostile_infotext_costs_no_time(text: str) -> None:
    """The test's own limit is what would notice."""
    assert isinstance(infotexts.parse(text), dict)
