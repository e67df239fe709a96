"""First guesses of people who know ollama, docker, git, mflux, stable-diffusion.cpp, AUTOMATIC1111, ComfyUI or kohya's
scripts: each works, or the exact command that does it is named.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from craft_cli import guesses, main
from PIL import Image

from tests.cli.conftest import Craft
from tests.home import Home

_DRAWS = "generate x --plan "
WORKS = ""
TABLE = {  # what is typed: what it must say; nothing where it works
    "ls": WORKS,
    "list": "craft ls",
    "ps": WORKS,
    "run flat a red apple --plan": WORKS,
    "run -d flat a red apple": "--detach",
    "show flat": WORKS,
    "inspect flat": "'show'",
    "info": "craft status",
    "cp flat other": "craft models alias",
    "tag flat other": "craft models alias",
    "create it -f Modelfile": "craft presets save",
    "build .": "craft presets save",
    "stop flat": WORKS,
    "rmi flat": "'rm'",
    "rm nobody --force": "craft ls",
    "-h": WORKS,
    "--help": WORKS,
    "--version": WORKS,
    "-v": "craft --version",
    "version": WORKS,
    "help": WORKS,
    "help generate": WORKS,
    "generate -h": WORKS,
    "serve --help": WORKS,
    "signin": "HF_TOKEN",
    "login": "CRAFT_API_KEY",
    "images ls": WORKS,
    "image ls": WORKS,
    "models ls": WORKS,
    "loras ls": WORKS,
    "jobs ls": WORKS,
    "ps -a": "craft jobs list",
    "ps -q": "craft ps --json",
    "logs -n 0": WORKS,
    "log": "'logs'",
    "kill x": "craft jobs cancel JOB",
    "cancel x": "craft jobs cancel JOB",
    "exec flat": "craft run MODEL PROMPT",
    "system df": "craft df",
    "system prune": "craft prune",
    "df": WORKS,
    "start": "craft daemon start",
    "restart": "craft daemon restart",
    "status": WORKS,
    "stats": "craft top",
    "container ls": "craft ps",
    "attach x": "craft jobs watch JOB",
    "wait x": "craft jobs wait JOB",
    "history": "craft images list",
    "init": "craft generate PROMPT",
    "search sdxl": "craft models search WORDS",
    "clone https://huggingface.co/a/b": "craft pull LINK",
    "fetch a/b": "'pull'",
    "add it.safetensors": "craft lora add FILE",
    "config --list": "craft config list",
    "config list": WORKS,
    "config get generate.steps": WORKS,
    "lora pull a/b": "craft lora add LINK",
    "lora install a/b": "craft lora add LINK",
    "jobs rm x": "craft jobs cancel JOB",
    "jobs kill x": "'cancel'",
    "keys new": "'create'",
    "queue": "'jobs'",
    "settings": "'config'",
    "server": "'daemon'",
    "update": "craft daemon restart",
    "uninstall": "craft purge",
    "webui": "craft daemon start --http",
    "txt2img a cat": "'generate'",
    "draw a cat": "'generate'",
    "img2img a.png": "craft generate PROMPT -i FILE",
    "inpaint a.png": "--mask FILE",
    "extras a.png": "craft upscale FILE",
    "generate --prompt x --model flat --steps 4 --seed 2 --height 64 --width 64 --plan": WORKS,
    "generate -p x --cfg-scale 7 --sampling-method euler_a -H 64 -W 64 --plan": WORKS,
    "generate x --dry-run": "--plan",
    "generate x --background": "--detach",
    _DRAWS + "--output x.png": WORKS,
    _DRAWS + "--size 64x64": WORKS,
    _DRAWS + "--seed -1": WORKS,
    _DRAWS + "--batch-count 2": WORKS,
    _DRAWS + "--negative-prompt ugly": WORKS,
    _DRAWS + "--image-path a.png --image-strength 0.4": WORKS,
    _DRAWS + "--denoising-strength 0.5 -i a.png": WORKS,
    _DRAWS + "--sampler 'DPM++ 2M Karras'": WORKS,
    _DRAWS + "--quantize 8": "craft models edit MODEL --precision int8",
    _DRAWS + "--type q8_0": "craft models edit MODEL --precision int8",
    _DRAWS + "--low-ram": "craft config set worker.offload blocks",
    _DRAWS + "--medvram": "craft config set worker.offload blocks",
    _DRAWS + "--vae-tiling": "craft config set worker.offload blocks",
    _DRAWS + "-s 123456": "a seed is --seed N",
    _DRAWS + "--metadata": "craft images show FILE",
    _DRAWS + "--auto-seeds 3": "-n 3",
    _DRAWS + "--stepwise-image-output-dir d": "--preview",
    _DRAWS + "--lora-scales 0.8": "-l FILE:0.8",
    _DRAWS + "--base-model flat": "-m NAME",
    _DRAWS + "-M img_gen": "leave it out",
    _DRAWS + "--diffusion-model f.gguf": "craft models add FILE",
    _DRAWS + "--vae v.safetensors": "craft models add FILE --vae FILE",
    _DRAWS + "--clip_l v.safetensors": "--text-encoder FILE",
    _DRAWS + "-t 8": "craft config set worker.threads 8",
    _DRAWS + "--rng cuda": "leave it out",
    _DRAWS + "--device cuda": "craft config set worker.device",
    _DRAWS + "--no-half": "craft config set worker.precision",
    _DRAWS + "--ckpt flat": "--model",
    _DRAWS + "--batch-size 2": "--count",
    _DRAWS + "--enable-hr": "--hires 2",
    _DRAWS + "--hires-fix": "--hires",
    _DRAWS + "--styles cinematic": "--preset NAME",
    _DRAWS + "--ar 16:9": "-W 768 -H 512",
    _DRAWS + "--guidance_scale 4": "--guidance",
    _DRAWS + "--num_inference_steps 4": "--steps",
    "serve --listen": "craft daemon start --http",
    # ollama, docker, git
    "push flat": "craft show NAME",
    "export flat": "craft show NAME",
    "signout": "HF_TOKEN",
    "show flat --modelfile": "craft presets list",
    "run -it flat": "leave it out",
    "run --rm flat a cat": "leave it out",
    "run flat --keepalive 5m a cat": "craft config set daemon.keep_alive_s",
    "stop --all": "craft daemon stop",
    "ps --all": "craft jobs list",
    "ps --format json": "craft ps --json",
    "ls -q": "craft ls --json",
    "ls --format json": "craft ls --json",
    "lora list -q": "--json",
    "ls -a": "craft ls --parts",
    "volume ls": "craft df",
    "events": "craft jobs watch",
    "port": "craft config get http.listen",
    "rename flat other": "craft models alias",
    "load -i flat.tar": "craft models add FILE",
    "import f.safetensors": "craft models add FILE",
    "compose up": "docs/install.md",
    "context ls": "CRAFT_HOST",
    "remote add box": "CRAFT_HOST",
    "use flat": "craft config set generate.model MODEL",
    "-V": "craft --version",
    "config --get generate.steps": "craft config get",
    "config --global generate.steps 8": "craft config set",
    "config generate.steps 8": "craft config set generate.steps VALUE",
    "'a red apple'": "craft generate PROMPT",
    "a red apple": "craft generate PROMPT",
    "-p 'a cat' -m flat": "craft generate PROMPT -m MODEL",
    # mflux, stable-diffusion.cpp, AUTOMATIC1111, ComfyUI
    _DRAWS + "--config-from-metadata a.json": "--like FILE",
    _DRAWS + "--prompt-file p.txt": "--batch FILE",
    _DRAWS + "--lora-model-dir loras": "craft models import-folder FOLDER",
    _DRAWS + "--diffusion-fa": "leave it out",
    _DRAWS + "-r ref.png": "--ref FILE",
    _DRAWS + "-n ugly": "--negative TEXT",
    _DRAWS + "--control-image c.png": "--control canny=FILE",
    _DRAWS + "--upscale-model m.pth": "--upscaler NAME",
    _DRAWS + "--restore-faces": "--hires",
    _DRAWS + "--tiling": "leave it out",
    _DRAWS + "--script xyz": "--sweep",
    "-M convert -m a.ckpt": "craft convert FILE",
    "interrogate a.png": "craft images show FILE",
    "png-info a.png": "craft images show FILE",
    "merge a b": "-l A:0.6 -l B:0.4",
    "jobs clear": "craft jobs cancel --all",
    "interrupt": "craft jobs cancel --all",
    "free": "craft stop MODEL",
    "nodes": "craft models search WORDS",
    "workflow run a.json": "--like FILE",
    "run a.png": "-i FILE",
    "launch": "craft daemon start --http",
    # kohya
    "train_network.py": "craft lora train NAME FOLDER",
    "train x pics --train_data_dir pics": "craft lora train NAME FOLDER",
    "train x pics --output_name x": "craft lora train NAME FOLDER",
    "train x pics --network_dim 8": "--rank",
    "train x pics --lr_scheduler cosine": "--schedule",
    "train x pics --dataset_config d.toml": "--config FILE",
    "train x pics --cache_latents": "leave it out",
    "caption pics": "craft lora train NAME FOLDER",
    "lora merge a b": "-l A:0.6 -l B:0.4",
    "lora resize a": "--rank 8",
    "lora apply a": "craft generate PROMPT -l LORA",
    "resume": "craft lora train NAME --resume",
    "worker add box": "craft fleet invite NAME",
}


@pytest.fixture
def answer(daemons_home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Craft:
    """Runs a command line that needs no daemon, and looks after none."""
    for name, value in daemons_home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return lambda *args: main.run(list(args))


@pytest.mark.parametrize("line", [line for line, named in TABLE.items() if named == WORKS])
def test_it_works(craft: Craft, capsys: pytest.CaptureFixture[str], line: str) -> None:
    Image.new("RGB", (64, 64)).save("a.png")
    code = craft(*shlex.split(line))
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize(("line", "named"), [(line, named) for line, named in TABLE.items() if named != WORKS])
def test_the_right_command_is_named(answer: Craft, capsys: pytest.CaptureFixture[str], line: str, named: str) -> None:
    Image.new("RGB", (64, 64)).save("a.png")
    code = answer(*shlex.split(line))
    told = capsys.readouterr().err
    assert (code in (2, 66), named in told.splitlines()[-1]) == (True, True), told


_GROUPS = ("models", "lora", "jobs", "images", "presets", "daemon", "config", "fleet")
_NAMED = sorted(
    {("generate", hint) for hint in (*guesses._COMMANDS.values(), *guesses._OPTIONS.values())}
    | {("lora train", hint) for hint in guesses._TRAINING.values()}
)


@pytest.mark.parametrize(("alone", "hint"), _NAMED)
def test_what_is_named_is_there(answer: Craft, capsys: pytest.CaptureFixture[str], alone: str, hint: str) -> None:
    """Each command of a hint, and each option that stands behind it; `alone`: whose those are that stand alone."""
    for named in re.findall(r"craft (?!keeps)[a-z-][^,;:]*", hint) or [f"craft {alone} {hint}"]:
        words = re.findall(r"(?<= )[a-z]+(?= |$)", named) or [""]
        path = words[: 2 if words[0] in _GROUPS else 1]
        assert answer("help", *filter(None, path)) == 0, named
        told = capsys.readouterr().out
        for option in re.findall(r"(?<= )--?[a-z-]+", named, re.IGNORECASE):
            assert re.search(rf"(?<![\w-]){option}\b", told), named


def test_no_guess_hides_a_command(answer: Craft) -> None:
    for word in guesses._COMMANDS:
        assert answer("help", *word.split()) == 2, word


@pytest.mark.parametrize("path", ["mcp --folder", "generate -m", "lora train --rank", "ls --parts=3"])
def test_an_option_without_its_value_sends_to_its_own_command(
    answer: Craft, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    assert answer(*path.split()) == 2
    assert capsys.readouterr().err.endswith(f"  see `craft {re.match('[a-z ]+(?= )', path)[0]} --help`\n")  # type: ignore[index]


def test_options_inside_the_quotes_are_told(craft: Craft, capsys: pytest.CaptureFixture[str]) -> None:
    assert craft("generate", "a cat --ar 16:9", "--plan") == 0
    assert "--ar is inside the prompt" in capsys.readouterr().err
