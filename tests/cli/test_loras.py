"""craft lora, and LoRAs in craft generate, as users type them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from craft_cli.generate import loras, output, provenance
from craft_cli.generate.spec import from_line, request, with_default_model
from craft_protos import jobs_pb2, loras_pb2, loras_pb2_grpc
from craft_protos.generate import GenerateRequest
from craft_protos.lora import LoraRef
from craft_protos.reasons import CraftError
from PIL import Image

from tests.daemon import hub as hubs
from tests.home import Home, write_model
from tests.lora_files import kohya


@pytest.fixture(scope="module")
def with_lora() -> Iterator[Home]:
    """A LoRA named `it`, of no architecture that is known."""
    home = Home()
    kohya(home.work / "it.safetensors", width=99, metadata={"modelspec.trigger_phrase": "sks apple"})
    done = home.craft("lora", "add", "it.safetensors", "--weight", "0.7")
    assert (done.returncode, done.stdout) == (0, "it\n"), done.stderr
    assert "trigger words: sks apple" in done.stderr
    yield home
    home.remove()


def test_list_is_a_contract(with_lora: Home) -> None:
    (one,) = with_lora.json("lora", "list")
    assert list(one) == ["id", "name", "base", "rank", "weight", "trigger", "sha256", "owner", "shared"]
    assert one["id"] == one["sha256"][:8]
    assert [one[key] for key in ("name", "base", "rank", "weight", "trigger")] == ["it", "", 4, 0.7, "sks apple"]
    assert with_lora.craft("lora", "list").stdout.split("\t")[:3] == [one["id"], "it", "?"]
    assert with_lora.json("lora", "list", "--model", "flat") == []


def test_show_tells_what_other_programs_call_it(with_lora: Home) -> None:
    shown = with_lora.json("lora", "show", "it")
    assert (shown["autov2"], shown["file_name"]) == (shown["sha256"][:10], "it.safetensors")
    assert len(shown["ss_hash"]) == 64 and shown["metadata"] == {"modelspec.trigger_phrase": "sks apple"}
    assert (shown["layers"], shown["has_conv"], shown["is_dora"], shown["adapts_text_encoder"]) == (
        1,
        False,
        False,
        False,
    )
    table = with_lora.craft("lora", "show", shown["autov2"]).stdout
    assert f"AutoV2 hash\t{shown['autov2']}\n" in table and "trigger words\tsks apple\n" in table


def test_add_says_what_is_wrong(home: Home) -> None:
    kohya(home.work / "one.safetensors")
    kohya(home.work / "two.safetensors", seed=4, metadata={"ss_tag_frequency": '{"1_x": {"apple": 3}}'})
    (home.work / "page.safetensors").write_text("<!DOCTYPE html>")
    (home.work / "old.pt").write_bytes(b"\x80\x02}q\x00.")
    assert home.craft("lora", "add", "one.safetensors", "-q").stderr == ""
    for args, code, says in (
        (["no.safetensors"], 66, "no.safetensors"),
        (["folder/no.safetensors"], 66, "no.safetensors"),
        (["page.safetensors"], 65, "HTML"),
        (["old.pt"], 65, "convert it: craft convert"),
        (["two.safetensors", "--name", "one"], 65, "another name"),
        (["two.safetensors", "--name", "a:b"], 65, "name"),
    ):
        done = home.craft("lora", "add", *args)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr
    done = home.craft("lora", "add", str(home.work / "two.safetensors"), "--name", "second")
    assert done.stdout == "second\n" and "most often tagged apple" in done.stderr
    done = home.craft("lora", "add", "two.safetensors", "--name", "third")
    assert done.stdout == "second\n" and "it is here already, as second" in done.stderr
    done = home.craft("lora", "add", "two.safetensors", "--weight", "0.25", "--trigger", "a word", "--json")
    assert done.returncode == 0 and "--weight 0.25 --trigger 'a word'" in done.stderr


def test_edit_and_rm(home: Home) -> None:
    kohya(home.work / "one.safetensors")
    home.craft("lora", "add", "one.safetensors")
    assert home.craft("lora", "edit", "one").returncode == 2
    assert home.craft("lora", "edit", "one", "--name", "uno", "--weight", "-0.5", "--trigger", "ink").stdout == "uno\n"
    (shown,) = home.json("lora", "list")
    assert (shown["name"], shown["weight"], shown["trigger"]) == ("uno", -0.5, "ink")
    assert home.craft("lora", "rm", shown["sha256"][:6]).stdout == "uno\n"
    assert home.json("lora", "list") == [] and (home.work / "one.safetensors").exists()
    assert home.craft("lora", "rm", "uno").returncode == 66


def test_what_is_shared_is_told_and_changed(home: Home) -> None:
    kohya(home.work / "it.safetensors", width=99)
    assert home.craft("lora", "add", "it.safetensors").returncode == 0
    assert home.craft("lora", "unshare", "it").stdout == "it\n"
    (one,) = home.json("lora", "list")
    assert (one["owner"], one["shared"]) == ("local", False)
    assert home.craft("lora", "list").stdout.split("\t")[-1] == "local\n"  # last, so that the others keep their places
    assert home.craft("lora", "share", "it").stdout == "it\n"
    assert home.json("lora", "show", "it")["shared"] is True


def test_generate_with_loras(with_lora: Home) -> None:
    (lora,) = with_lora.json("lora", "list")
    expected = {"id": lora["id"], "name": "it", "sha256": lora["sha256"]}
    for args, weight in (
        (["a fig", "-l", "it:0.25"], 0.25),
        (["a fig", "-l", lora["sha256"][:5]], 0.7),
        (["a fig <lora:it:-1>"], -1.0),
    ):
        answer = with_lora.json("generate", *args, "--force", "--seed", "4")
        assert answer["loras"] == [{**expected, "weight": weight}]
        assert answer["path"] == "a-fig-4.png"
    shown = with_lora.json("jobs", "show", answer["job"])["generate"]
    assert (shown["prompt"], shown["loras"], shown["lora_missing"]) == ("a fig", answer["loras"], "fail")
    assert "loras\tit:-1\n" in with_lora.craft("jobs", "show", answer["job"]).stdout
    assert "loras\tit:-1\n" in with_lora.craft("images", "show", answer["image"]).stdout
    answer = with_lora.json("generate", "a fig", "-l", "it", "--trigger-words", "--seed", "6")
    assert answer["path"] == "a-fig-6.png"
    assert with_lora.json("jobs", "show", answer["job"])["generate"]["prompt"] == "a fig, sks apple"


def test_what_was_applied_in_part_is_said(with_lora: Home) -> None:
    """On stderr, however quiet, and in the JSON; of a batch with the line's number."""
    asked = ("[part] a fig", "-l", "it", "--lora-missing", "skip", "--force")
    for more in ((), ("-q",), ("-n", "2")):
        done = with_lora.craft("generate", *asked, *more)
        assert done.stderr.count("craft: LoRA it was applied in part: 2 of 3 tensors") == 1, done.stderr
    done = with_lora.craft("generate", *asked, "--json")
    (use,) = json.loads(done.stdout)["loras"]
    assert (use["matched"], use["total"]) == (2, 3) and "2 of 3 tensors" in done.stderr
    line = json.dumps({"prompt": "[part] a fig", "loras": ["it"], "lora_missing": "skip"})
    done = with_lora.craft("generate", "--batch", "-", "-o", "{n}.png", "--force", stdin=f"{line}\n")
    assert json.loads(done.stdout)["loras"][0]["matched"] == 2
    assert "craft: line 1: LoRA it was applied in part: 2 of 3 tensors" in done.stderr
    assert "in part" not in with_lora.craft("generate", "a fig", "-l", "it", "--force").stderr


def test_which_models_a_lora_fits_is_told(home: Home) -> None:
    """By add, show, list --model and --plan alike, in whole, in part or not at all."""
    layer = "down_blocks.2.attentions.0.transformer_blocks.0.attn2.to_k"
    for name, layers in (("fits", {layer: [64, 768]}), ("narrow", {layer: [64, 640]})):
        write_model(home.paths.models_dir / name)
        config = {"sample_size": 8, "fake_layers": layers}
        (home.paths.models_dir / name / "unet" / "config.json").write_text(json.dumps(config))
    kohya(home.work / "it.safetensors", width=768)
    done = home.craft("lora", "add", "it.safetensors")
    assert "craft: in fits: fits: all 3 tensors; layers changed: 1 of the unet" in done.stderr
    assert "narrow" not in done.stderr and "flat" not in done.stderr
    fits = {one["model"]: one for one in home.json("lora", "show", "it")["fits"]}
    assert (fits["fits"]["fits"], fits["fits"]["matched"], fits["fits"]["total"]) == (True, 3, 3)
    assert (fits["narrow"]["fits"], fits["narrow"]["matched"], fits["narrow"]["total"]) == (False, 0, 3)
    assert "the model's layer has another shape: 64x640" in fits["narrow"]["why_not"]
    assert (fits["flat"]["fits"], fits["flat"]["total"]) == (False, None)
    assert "in narrow\tdoes not fit: 0 of 3 tensors\n" in home.craft("lora", "show", "it").stdout
    for model, expected in (("fits", ["it"]), ("narrow", []), ("flat", [])):
        assert [one["name"] for one in home.json("lora", "list", "--model", model)] == expected
    (use,) = home.json("generate", "a fig", "-m", "narrow", "-l", "it", "--plan")["loras"]
    assert (use["fits"], use["matched"], use["total"]) == (False, 0, 3)
    done = home.craft("generate", "a fig", "-m", "narrow", "-l", "it")
    assert done.returncode == 65 and "LoRA it does not fit model narrow: 0 of 3 tensors fit" in done.stderr
    assert "craft lora list --model narrow" not in done.stderr  # both may be Stable Diffusion 1
    kohya(home.work / "other.safetensors", width=99)
    done = home.craft("lora", "add", "other.safetensors")
    assert "in fits" not in done.stderr


def test_the_model_configured_now_is_drawn_with(home: Home) -> None:
    """Not the one of the daemon's start: with LoRAs, without, and in a batch."""
    del home.env["CRAFT_GENERATE_MODEL"]
    write_model(home.paths.models_dir / "other")
    kohya(home.work / "it.safetensors", width=99)
    home.craft("lora", "add", "it.safetensors")
    for name in ("flat", "other"):
        assert home.craft("config", "set", "generate.model", name).stderr == ""
        for args in (["a fig"], ["a fig", "-l", "it"]):
            assert home.json("generate", *args, "--force", "--seed", "4")["model"] == name
        done = home.craft("generate", "--batch", "-", "-o", "{n}.png", "--force", stdin="a fig <lora:it:1>\n")
        assert json.loads(done.stdout)["model"] == name
    home.craft("config", "unset", "generate.model")
    for args in (["a fig"], ["a fig", "-l", "it"]):
        assert home.json("generate", *args, "--force", "--seed", "4")["model"] == "pocket"
    asked = home.craft("generate", "a fig", "-l", "it", "--json", env={"CRAFT_GENERATE_MODEL": "flat"})
    assert json.loads(asked.stdout)["model"] == "flat"


def test_an_unknown_lora_is_exit_66_with_the_closest_names(with_lora: Home) -> None:
    """Row 7."""
    for args in (["-l", "itt"], ["-l", "itt:0.5"], []):
        prompt = "x" if args else "x <lora:itt:1>"
        done = with_lora.craft("generate", prompt, *args)
        assert (done.returncode, done.stdout) == (66, "")
        assert "'itt'" in done.stderr and "did you mean 'it'?" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["-l", "it:much"], 2, "-l it:0.8"),
        (["-l", "it:nan"], 2, "-l it:0.8"),
        (["-l", ":0.5"], 2, "-l it:0.8"),
        (["-l", "./it.safetensors:abc"], 2, "'abc' is no weight"),
        (["-l", "it:99"], 65, "from -10 to 10"),
        (["-l", "it", "-l", "it:0.5"], 65, "asked for twice"),
        (["-l", "it", "--lora-missing", "maybe"], 2, "fail nor skip"),
    ],
)
def test_wrong_uses(with_lora: Home, args: list[str], code: int, says: str) -> None:
    done = with_lora.craft("generate", "x", *args)
    assert done.returncode == code and says in done.stderr


def test_plan_says_whether_they_fit(with_lora: Home) -> None:
    plan = with_lora.json("generate", "x", "-l", "it:0.5", "--plan")
    (lora,) = plan["loras"]
    assert (lora["name"], lora["weight"], lora["fits"], lora["why_not"]) == ("it", 0.5, True, None)
    assert (
        "LoRA\tit:0.5 (fits, as far as is known before it is drawn)\n"
        in with_lora.craft("generate", "x", "-l", "it:0.5", "--plan").stdout
    )


def test_batch_lines_have_loras(with_lora: Home) -> None:
    lines = ['{"prompt": "x", "loras": [{"lora": "it", "weight": 0.1}]}', "y", '{"prompt": "z", "loras": ["no"]}']
    done = with_lora.craft("generate", "--batch", "-", "--json", "-l", "it:0.9", stdin="\n".join(lines))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 65
    assert [one["loras"][0]["weight"] for one in answers[:2]] == [0.1, 0.9]
    assert answers[2]["error"]["reason"] == "UNKNOWN_LORA"


def test_replay_and_verify_find_them_by_hash(home: Home) -> None:
    path = kohya(home.work / "it.safetensors", width=99)
    home.craft("lora", "add", "it.safetensors")
    home.craft("generate", "x", "-l", "it:0.5", "--seed", "3")
    home.craft("lora", "edit", "it", "--name", "renamed")
    answer = home.json("images", "replay", "x-3.png", "-o", "again.png")
    assert [(one["name"], one["weight"]) for one in answer["loras"]] == [("renamed", 0.5)]
    assert home.craft("images", "verify", "x-3.png").stdout == "identical\n"
    home.craft("lora", "rm", "renamed")
    for command in (["verify", "x-3.png"], ["replay", "x-3.png", "-o", "more.png"]):
        done = home.craft("images", *command)
        assert done.returncode == 66 and "it.safetensors" in done.stderr
        sha256 = provenance.read(Image.open(home.work / "x-3.png"), "x").loras[0].sha256
        assert sha256 in done.stderr
    home.craft("lora", "add", str(path))
    assert home.craft("images", "verify", "x-3.png").stdout == "identical\n"


def test_names_complete(with_lora: Home) -> None:
    for words in ("craft generate x -l i", "craft lora show i"):
        env = {"_CRAFT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        assert with_lora.craft(env=env).stdout.split() == ["it"]


# From afar


class Afar(loras_pb2_grpc.LorasServicer):
    """Takes uploads over TCP."""

    def __init__(self) -> None:
        self.parts: list[loras_pb2.ImportLoraRequest] = []

    def ImportLora(self, request_iterator: Iterator[Any], context: Any) -> Iterator[loras_pb2.ImportLoraEvent]:
        self.parts = list(request_iterator)
        yield loras_pb2.ImportLoraEvent(progress={"doing": "checking", "bytes_done": 1, "bytes_total": 2})
        yield loras_pb2.ImportLoraEvent(lora=loras_pb2.Lora(id="1", name="it"))


def test_a_daemon_elsewhere_is_sent_the_bytes(home: Home) -> None:
    data = os.urandom((2 << 20) + 5)
    (home.work / "it.safetensors").write_bytes(data)
    afar, server = Afar(), grpc.server(futures.ThreadPoolExecutor(2))
    loras_pb2_grpc.add_LorasServicer_to_server(afar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        here = {"CRAFT_HOST": f"127.0.0.1:{port}"}
        done = home.craft("lora", "add", "it.safetensors", "--name", "n", "--weight", "0.5", env=here)
        assert (done.returncode, done.stdout) == (0, "it\n"), done.stderr
        header = afar.parts[0].header
        assert (header.upload.file_name, header.upload.size_bytes) == ("it.safetensors", len(data))
        assert (header.name, header.weight, header.path) == ("n", 0.5, "")
        assert b"".join(part.chunk for part in afar.parts[1:]) == data
        assert max(len(part.chunk) for part in afar.parts) <= 1 << 20
        assert home.craft("lora", "add", "ORG/some.lora@v1:dir/it.safetensors", env=here).returncode == 0
        (part,) = afar.parts
        assert (part.header.hub.repository, part.header.hub.revision) == ("ORG/some.lora", "v1")
        assert part.header.hub.file == "dir/it.safetensors"
        assert home.craft("lora", "add", ".", env=here).returncode == 2
    finally:
        server.stop(None).wait()


def test_add_from_the_hub(home: Home) -> None:
    content = kohya(home.work / "it.safetensors").read_bytes()
    page = b"<!DOCTYPE html>" + b" " * 99
    repository = hubs.Repository(
        "ORG/ink-lora", {"README.md": b"x", "a/it.safetensors": content, "page.safetensors": page}
    )
    with hubs.serving(repository) as hub:
        env = hubs.environment(hub, home.root / "hf")
        done = home.craft("lora", "add", "ORG/ink-lora", env=env)
        assert done.returncode == 65 and "ORG/ink-lora:a/it.safetensors" in done.stderr
        done = home.craft("lora", "add", "ORG/ink-lora:page.safetensors", env=env)
        assert done.returncode == 65 and "HTML" in done.stderr
        assert home.craft("lora", "add", "ORG/no", env=env).returncode == 66
        done = home.craft("lora", "add", "ORG/ink-lora:a/it.safetensors", "--name", "ink", env=env)
        assert (done.returncode, done.stdout) == (0, "ink\n"), done.stderr
    shown = home.json("lora", "show", "ink")
    assert shown["source"] == f"ORG/ink-lora@{hubs.COMMIT}:a/it.safetensors"
    assert home.json("generate", "x", "-l", "ink")["loras"][0]["sha256"] == shown["sha256"]


# Words to fields


def test_uses_as_they_are_typed() -> None:
    assert [loras.parse(text) for text in ("it", "it:0.8", "a b:-1", "it:1e-1")] == [
        LoraRef("it"), LoraRef("it", 0.8), LoraRef("a b", -1.0), LoraRef("it", 0.1)
    ]  # fmt: skip
    for whole in ("org/name:it.safetensors", "https://a.b/it.safetensors"):
        assert loras.parse(whole) == LoraRef(whole)


@pytest.mark.parametrize(
    "value",
    [
        '"it"',
        "[1]",
        '[{"name": "it"}]',
        '[{"lora": "it", "weight": "1"}]',
        '[{"lora": "it", "weight": true}]',
        '["it:x"]',
    ],
)
def test_bad_loras_of_a_line(value: str) -> None:
    with pytest.raises(CraftError) as caught:
        from_line(f'{{"prompt": "x", "loras": {value}}}', GenerateRequest())
    assert (caught.value.reason, caught.value.field) == ("INVALID_FIELD", "loras")


def test_a_spec_with_loras_as_a_message() -> None:
    spec = GenerateRequest(
        prompt="x", loras=(LoraRef("a"), LoraRef("b", 0.0)), lora_missing="skip", trigger_words=True, seed=1
    )
    message = request(spec, lease=True).generate
    assert [(use.lora, use.HasField("weight"), use.weight) for use in message.loras] == [
        ("a", False, 0.0),
        ("b", True, 0.0),
    ]
    assert message.lora_missing == jobs_pb2.LORA_MISSING_SKIP and message.trigger_words


@pytest.mark.parametrize(
    ("spec", "model", "default_model"),
    [
        (GenerateRequest(prompt="x"), "default", ""),
        (GenerateRequest(prompt="x", model="m"), "m", ""),
        (GenerateRequest(prompt="x", model="m", loras=(LoraRef("a"),)), "m", ""),
        (GenerateRequest(prompt="x", loras=(LoraRef("a"),)), "", "default"),
        (GenerateRequest(prompt="x <lora:a:1>"), "", "default"),
        (GenerateRequest(prompt="x <lora:a:1>", default_model="mine"), "", "mine"),
    ],
)
def test_the_configured_model_gives_way_to_a_lora(spec: GenerateRequest, model: str, default_model: str) -> None:
    given = with_default_model(spec, "default")
    assert (given.model, given.default_model) == (model, default_model)


def test_files_are_not_called_after_tags() -> None:
    assert output.slug("a <lora:it:0.8> cat") == "a-cat"
    assert output.slug("<lora:it:0.8>") == "picture"


def test_provenance_of_strangers(tmp_path: Path) -> None:
    record = {
        "prompt": "x", "model": {"name": "m"}, "width": 8, "height": 8, "steps": 1, "guidance_scale": 1, "seed": 1,
        "sampler": "Euler", "loras": [{"name": "it", "sha256": "ab", "weight": 0.5, "matched": 3, "total": 4}],
    }  # fmt: skip
    origin = provenance._parse(record)
    assert origin.spec.loras == (LoraRef("ab", 0.5),) and origin.spec.lora_missing == "skip"
    for wrong in ("it", [1], [{"name": "it"}], [{"sha256": 1, "weight": 1}], [{"sha256": "ab", "weight": "x"}]):
        with pytest.raises((TypeError, KeyError, CraftError)):
            provenance._parse({**record, "loras": wrong})
