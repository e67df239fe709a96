"""A hundred first guesses of people who know ollama, docker, git, mflux, stable-diffusion.cpp or AUTOMATIC1111: each
works, or the exact command that does it is named.
"""

from __future__ import annotations

import re
import shlex

import pytest
from craft_cli import guesses
from PIL import Image

from tests.cli.conftest import Craft

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
}


def test_they_are_a_hundred() -> None:
    assert len(TABLE) >= 100


@pytest.mark.parametrize("line", TABLE)
def test_it_works_or_the_right_command_is_named(craft: Craft, capsys: pytest.CaptureFixture[str], line: str) -> None:
    Image.new("RGB", (64, 64)).save("a.png")
    code = craft(*shlex.split(line))
    told = capsys.readouterr()
    if TABLE[line] == WORKS:
        assert code == 0, told.err
    else:
        assert (code in (2, 66), TABLE[line] in told.err.splitlines()[-1]) == (True, True), told.err


_NAMED = sorted({*guesses._COMMANDS.values(), *guesses._OPTIONS.values()})


@pytest.mark.parametrize("hint", _NAMED)
def test_what_is_named_is_there(craft: Craft, capsys: pytest.CaptureFixture[str], hint: str) -> None:
    """Each command of a hint, and each option that stands behind it; those alone are of craft generate."""
    for named in re.findall(r"craft (?!keeps)[a-z-][^,;:]*", hint) or [f"craft generate {hint}"]:
        words = re.findall(r"(?<= )[a-z]+(?= |$)", named) or [""]
        path = words[: 2 if words[0] in ("models", "lora", "jobs", "images", "presets", "daemon", "config") else 1]
        assert craft("help", *filter(None, path)) == 0, named
        told = capsys.readouterr().out
        for option in re.findall(r"(?<= )--?[a-z-]+", named, re.IGNORECASE):
            assert re.search(rf"(?<![\w-]){option}\b", told), named


def test_no_guess_hides_a_command(craft: Craft) -> None:
    for word in guesses._COMMANDS:
        assert craft("help", *word.split()) == 2, word
