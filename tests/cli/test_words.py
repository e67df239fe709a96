"""The words that users of docker, ollama, mflux, stable-diffusion.cpp and AUTOMATIC1111 try first."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from craft_cli import checkup
from craft_cli.commands import run
from craft_cli.generate import foreign
from craft_protos import samplers
from craft_protos.reasons import CraftError
from craft_protos.version import __version__
from PIL import Image

from tests.cli.conftest import Craft
from tests.home import CRAFT, HANG_S, Home

_VALUES = {  # of an option that takes another than 2
    "--sampler": "Euler",
    "--output": "x.png",
    "--lora": "nobodys",
    "--negative": "grey",
    "--image": "start.png",
    "--mask": "mask.png",
    "--strength": "0.75",
}
_FIELDS = {  # where a plan has another name than the option's
    "--guidance": "guidance_scale",
    "--negative": "negative_prompt",
    "--output": "outputs",
    "--image": "start",
    "--strength": "start",
}


@pytest.mark.parametrize(
    ("given", "own"),
    [
        ("a --cfg-scale 3", "a --guidance 3"),
        ("a --guidance-scale=3", "a --guidance=3"),
        ("a --cfg 3 --num-inference-steps 5", "a --guidance 3 --steps 5"),
        ("a --negative-prompt b --num-images 2", "a --negative b --count 2"),
        ("a --scheduler Euler --out x.png", "a --sampler Euler --output x.png"),
        ("a --sampling-method Euler", "a --sampler Euler"),
        ("a --size 768x512", "a --width 768 --height 512"),
        ("a --size=768X512", "a --width 768 --height 512"),
        ("a --seed -1", "a"),
        ("a --seed 7", "a --seed=7"),
        ("a --lora-paths b.safetensors c.safetensors -n 2", "a --lora b.safetensors --lora c.safetensors -n 2"),
        ("-p a -n 2", "-n 2 -- a"),
        ("--prompt=a", "-- a"),
        ("-- --cfg 3", "-- --cfg 3"),
        ("-l it:0.5 a", "-l it:0.5 a"),
    ],
)
def test_other_programs_options(given: str, own: str) -> None:
    assert foreign.translated(given.split()) == own.split()


@pytest.mark.parametrize(("name", "own"), foreign._NAMES.items())
def test_each_foreign_name_is_an_option_that_takes_its_value(
    craft: Craft, capsys: pytest.CaptureFixture[str], name: str, own: str
) -> None:
    value = _VALUES.get(own, "2")
    for number, file in enumerate(("start.png", "mask.png")):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(file)
    if own == "--ref":  # of models that are shown pictures
        value = "start.png"
    needs_start = own in ("--strength", "--mask")
    code = craft("generate", "x", name, value, *(["-i", "start.png"] if needs_start else []), "--plan", "--json")
    told = capsys.readouterr()
    if own == "--lora":
        assert (code, "no LoRA is called 'nobodys'" in told.err) == (66, True)
        return
    if own == "--ref":
        assert (code, "a picture that is shown to it means nothing to the model flat" in told.err) == (65, True)
        return
    assert code == 0, told.err
    plan = json.loads(told.out)
    if own in ("--image", "--mask"):
        value = hashlib.sha256(Path(value).read_bytes()).hexdigest()
    assert value in str(plan[_FIELDS.get(own, own.removeprefix("--"))])


@pytest.mark.parametrize("given", ["--size 12", "--size", "-p", "--size axb"])
def test_other_programs_options_without_a_value(given: str) -> None:
    with pytest.raises(CraftError, match=r"--size|-p"):
        foreign.translated(given.split())


def test_what_means_nothing_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert foreign.translated(["a", "-v"]) == ["a"]
    assert "-v does nothing here" in capsys.readouterr().err


def test_words_without_quotes_are_one_prompt(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    words = "a red apple --size 32x16 --num-inference-steps 2 --seed 7 --cfg-scale 3 --plan --json"
    assert craft("generate", *words.split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["width"], plan["height"], plan["steps"], plan["seed"]) == (32, 16, 2, 7)
    assert plan["guidance_scale"] == 3
    assert plan["outputs"] == ["a-red-apple-7.png"]


def test_run_takes_a_models_name_that_more_words_follow(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    for line, model, file in (
        ("flat a pear", "flat", "a-pear-7.png"),
        ("flatly drawn pear", "flat", "flatly-drawn-pear-7.png"),  # of no model; the configured one
        ("pocket sized pear -m flat", "flat", "pocket-sized-pear-7.png"),  # said already
    ):
        assert craft("run", *line.split(), "--seed", "7", "--plan", "--json") == 0
        plan = json.loads(capsys.readouterr().out)
        assert (plan["model"], plan["outputs"]) == (model, [file])


def test_run_asks_for_prompts(
    craft: Craft, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(run.sys, "stdin", Terminal())
    monkeypatch.setattr(run, "_asked", lambda: iter(["a pear", "a plum"]))
    assert craft("run", "flat", "--plan", "--json", "--seed", "3") == 0
    plans = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [plan["outputs"] for plan in plans] == [["a-pear-3.png"], ["a-plum-3.png"]]


@pytest.mark.parametrize(
    ("word", "whole"),
    [
        ("ls --json", "models list --json"),
        ("model ls --json", "models list --json"),
        ("list-models --json", "models list --json"),
        ("loras ls --json", "lora list --json"),
        ("job ls --json", "jobs list --json"),
        ("image ls --json", "images list --json"),
        ("show flat --json", "models show flat --json"),
        ("logs -n 0", "daemon logs -n 0"),
    ],
)
def test_short_words_are_the_long_ones(craft: Craft, capsys: pytest.CaptureFixture[str], word: str, whole: str) -> None:
    assert craft(*whole.split()) == 0
    told = capsys.readouterr().out
    assert craft(*word.split()) == 0
    assert capsys.readouterr().out == told


def test_a_name_of_two_kinds_is_refused_with_both_commands(
    craft: Craft, shared_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert craft("models", "alias", "twice", "flat") == 0
    assert craft("lora", "add", str(_lora(shared_home.work)), "--name", "twice", "-q") == 0
    capsys.readouterr()
    for verb in ("show", "rm"):
        assert craft(verb, "twice") == 2
        told = capsys.readouterr().err
        assert f"craft models {verb} twice" in told and f"craft lora {verb} twice" in told
    assert craft("models", "alias", "twice", "--rm") == 0
    assert craft("rm", "twice") == 2  # nobody is here to confirm
    assert craft("rm", "twice", "--force") == 0
    assert (shared_home.work / "it.safetensors").exists()  # it was linked
    assert craft("show", "twice") == 66
    assert "no model and no LoRA is called twice" in capsys.readouterr().err


def _lora(folder: Path) -> Path:
    """A file with a LoRA's names, enough to be registered."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{layer}.lora_A.weight": torch.zeros(2, 8), f"{layer}.lora_B.weight": torch.zeros(8, 2)}
    save_file(tensors, folder / "it.safetensors")
    return folder / "it.safetensors"


def test_ps_shows_what_waits_and_what_is_in_memory(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("generate", "x [held]", "--detach") == 0
    job = capsys.readouterr().out.strip()
    assert craft("ps", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in told["jobs"]] == [job]
    assert craft("ps") == 0
    assert job in capsys.readouterr().out
    assert craft("jobs", "cancel", job) == 0


def test_samplers_are_those_that_are_accepted(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("samplers", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told] == list(samplers.SAMPLERS)
    for one in told:
        assert all(samplers.canonical(f"{one['name']} {schedule}") for schedule in one["schedules"])
    assert craft("samplers") == 0
    assert "Euler a" in capsys.readouterr().out


def test_stop_unloads_a_model_and_never_guesses(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("models", "load", "flat") == 0
    assert craft("stop", "flat") == 0
    assert craft("stop") == 2
    assert "craft daemon stop" in capsys.readouterr().err


def test_version_and_help(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("version", "--json") == 0
    assert json.loads(capsys.readouterr().out)["craft"] == __version__
    assert craft("help") == 0
    assert "Usage: craft [OPTIONS] COMMAND" in capsys.readouterr().out
    assert craft("help", "jobs", "list") == 0
    assert "Usage: craft jobs list" in capsys.readouterr().out
    assert craft("help", "nonsense") == 2


def test_serve_runs_in_the_foreground_and_logs_to_stderr(home: Home) -> None:
    process = home.start("serve")
    assert process.stderr is not None
    line = next(line for line in process.stderr if "craft.daemon" in line)
    assert home.craft("daemon", "wait").returncode == 0
    assert home.daemon_pid() == process.pid  # it is the daemon, not its parent
    assert home.craft("serve").returncode == 75  # one runs already
    assert not line.startswith("{")
    process.terminate()
    process.communicate(timeout=HANG_S)
    assert process.returncode == 0


def test_doctor_finds_what_is_wrong(craft: Craft, shared_home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("doctor", "--no-draw", "--json") == 0
    found = {one["what"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"craft", "configuration", "data folder", "disk", "memory", "torch", "device", "daemon"} <= set(found)
    assert found["model flat"]["state"] == "ok"
    shared_home.paths.config_file.write_text("[daemon]\nqueue_limit = 'many'\n")
    assert craft("doctor", "--no-draw") == 1
    told = capsys.readouterr().out
    shared_home.paths.config_file.unlink()
    assert "fail" in told and "queue_limit" in told


def test_doctor_says_where_torch_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_PROBE", "raise ImportError('libcudart.so.12')")
    (found,) = checkup._torch()
    assert (found.state, "libcudart.so.12" in found.told) == (checkup.BROKEN, True)
    assert "pip install" in found.advice


def test_help_of_a_closed_pipe_is_quiet(home: Home) -> None:
    done = subprocess.run(
        f"{' '.join(CRAFT)} help | head -1", shell=True, env=home.env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("Usage: craft [OPTIONS] COMMAND [ARGS]...\n", "")


def test_a_number_of_bits_is_no_value_of_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert foreign.translated(["a", "-q", "8"]) == ["a", "-q", "8"]
    assert "8 is a word of the prompt; to keep weights in 8 bits: craft models edit" in capsys.readouterr().err
    foreign.translated(["a", "-q", "b"])
    assert not capsys.readouterr().err
