"""First guesses of people who know docker, git, ollama, mflux, stable-diffusion.cpp or AUTOMATIC1111, where craft has
no command or option of the name: what to type instead.
"""

from __future__ import annotations

from collections.abc import Mapping

_HTTP = "craft daemon start --http serves the page and the API"
_MEMORY = "a model that does not fit is offloaded by itself; to choose how: craft config set worker.offload blocks"
_DEVICE = "craft config set worker.device cpu"
_PRECISION = "craft config set worker.precision fp32"
_QUANTIZED = "craft models edit MODEL --precision int8; a GGUF file: craft models add FILE"
_PARTS = "what a model is made of is said once: craft models add FILE --vae FILE --text-encoder FILE"
_ALIAS = "craft models alias NAME MODEL"
_CANCEL = "craft jobs cancel JOB"

_COMMANDS: Mapping[str, str] = {
    "list": "craft ls",
    **dict.fromkeys(("cp", "tag"), _ALIAS),
    **dict.fromkeys(("create", "build"), "craft presets save NAME; a picture: craft generate PROMPT"),
    **dict.fromkeys(("kill", "cancel", "abort"), _CANCEL),
    "system": "craft df, craft prune",
    "start": "craft daemon start",
    "restart": "craft daemon restart",
    "info": "craft status",
    "search": "craft models search WORDS",
    **dict.fromkeys(("login", "signin"), "the model hub's token is in HF_TOKEN; a daemon's key in CRAFT_API_KEY"),
    "stats": "craft top",
    "container": "craft ps",
    "attach": "craft jobs watch JOB",
    "wait": "craft jobs wait JOB",
    "history": "craft images list",
    "clone": "craft pull LINK",
    "add": "craft models add FILE, craft lora add FILE",
    "init": "nothing has to be set up: craft generate PROMPT",
    "exec": "craft run MODEL PROMPT",
    "img2img": "craft generate PROMPT -i FILE",
    "inpaint": "craft generate PROMPT -i FILE --mask FILE",
    "extras": "craft upscale FILE",
    **dict.fromkeys(("webui", "ui"), _HTTP),
    **dict.fromkeys(("update", "upgrade"), "by what installed it (uv, pipx, pip), and then: craft daemon restart"),
    "uninstall": "craft rm MODEL; all that craft keeps: craft purge",
    **dict.fromkeys(("lora pull", "lora install", "lora download"), "craft lora add LINK"),
    "jobs rm": f"{_CANCEL}; those that have ended: craft prune",
}
_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("--quantize", "--type", "--quant"), _QUANTIZED),
    **dict.fromkeys(("--low-ram", "--lowvram", "--medvram", "--offload-to-cpu", "--cpu-offload"), _MEMORY),
    **dict.fromkeys(("--clip-on-cpu", "--vae-on-cpu", "--vae-tiling", "--xformers"), _MEMORY),
    **dict.fromkeys(("--device", "--gpu", "--cpu"), _DEVICE),
    **dict.fromkeys(("-t", "--threads"), "craft config set worker.threads 8"),
    **dict.fromkeys(("--fp16", "--bf16", "--no-half"), _PRECISION),
    "--metadata": "it is in each picture: craft images show FILE",
    **dict.fromkeys(("--auto-seeds", "-b"), "-n 3"),
    **dict.fromkeys(("--stepwise-image-output-dir", "--preview-method"), "--preview"),
    **dict.fromkeys(("--lora-scales", "--lora-multiplier"), "-l FILE:0.8"),
    "--diffusion-model": "craft models add FILE, then -m NAME",
    "--base-model": "-m NAME",
    **dict.fromkeys(("--vae", "--clip_l", "--clip_g", "--t5xxl", "--text-encoder"), _PARTS),
    **dict.fromkeys(("-M", "--mode"), "craft generate draws, craft upscale enlarges: leave it out"),
    "--rng": "seeds draw other pictures than there: leave it out",
    **dict.fromkeys(("--listen", "--api", "--port"), _HTTP),
    "--enable-hr": "--hires 2",
    **dict.fromkeys(("--style", "--styles"), "--preset NAME"),
    **dict.fromkeys(("--ar", "--aspect-ratio"), "-W 768 -H 512"),
    "--open": "--show, or afterwards: craft images open FILE",
    "-d": "--detach",
    "ps -a": "craft jobs list",
    "ps -q": "craft ps --json",
    "config --list": "craft config list",
    " -v": "craft --version",
}


def command(group: str, word: str) -> str:
    """The line to type where a group ("craft", "craft lora") has no command of that name; "" if nobody knows one."""
    return _COMMANDS.get(f"{group.removeprefix('craft').strip()} {word}".strip(), "")


def option(path: str, name: str) -> str:
    """The line or option to type where the command of that path has no option of that name; "" if nobody knows one."""
    last = path.rpartition(" ")[2].removeprefix("craft")
    return _OPTIONS.get(f"{last} {name}") or (_OPTIONS.get(name, "") if last in ("generate", "run", "serve") else "")
