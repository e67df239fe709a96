"""First guesses of people who know docker, git, ollama, mflux, stable-diffusion.cpp or AUTOMATIC1111, where craft has
no command or option of the name: what to type instead.
"""

from __future__ import annotations

from collections.abc import Mapping

_HTTP = "craft daemon start --http serves the page and the API"
_MEMORY = "a model that does not fit is offloaded by itself; to choose how: craft config set worker.offload blocks"
_DEVICE = "craft config set worker.device cpu (or cuda)"
_PRECISION = "craft config set worker.precision fp32"
_QUANTIZED = "craft models edit MODEL --precision int8; a GGUF file: craft models add FILE"
_PARTS = "what a model is made of is said once: craft models add FILE --vae FILE --text-encoder FILE"
_ALIAS = "craft models alias NAME MODEL"
_CANCEL = "craft jobs cancel JOB"
_NO_HUB = "nothing is uploaded or packed; where a model's or a LoRA's files lie: craft show NAME"
_CHOSEN = "craft config set generate.model MODEL"
_READ = "craft images show FILE"
_NO_MERGE = "nothing is merged into a file; LoRAs are while drawing: craft generate PROMPT -l A:0.6 -l B:0.4"
_RANK = "a LoRA's rank is chosen when it is trained: craft lora train NAME FOLDER --rank 8"
_DRAW_WITH = "craft generate PROMPT -l LORA"
_TRAIN = "craft lora train NAME FOLDER --model MODEL"
_HOST = "another machine's daemon is CRAFT_HOST in the environment: docs/keys.md"
_NO_CAPTIONS = "captions are files that you write, it.txt beside it.png; then: craft lora train NAME FOLDER"
_LIKE = "workflows are not run; after a picture of ComfyUI's: craft generate --like FILE"
_WORDS = "craft generate PROMPT -m MODEL"
_LIST = "craft ls --json"
_WHOLE = "craft show NAME says what there is; options kept under a name: craft presets list"
_ATTENTION = "attention is chosen by itself: leave it out"
_IMPORT = "craft models import-folder FOLDER"

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
    **dict.fromkeys(("push", "save", "export"), _NO_HUB),
    **dict.fromkeys(("signout", "logout"), "nothing is kept of it: unset HF_TOKEN, CRAFT_API_KEY"),
    "volume": "craft df; where it lies: craft config path",
    "events": "craft jobs watch; what was logged: craft daemon logs",
    "port": "craft config get http.listen",
    **dict.fromkeys(("rename", "mv"), f"{_ALIAS}; a LoRA: craft lora edit LORA --name NAME"),
    "load": "craft models load MODEL; a file: craft models add FILE",
    "import": f"craft models add FILE, craft lora add FILE; another program's models: {_IMPORT}",
    "compose": "craft daemon start; containers: docs/install.md",
    **dict.fromkeys(("context", "remote", "connect"), _HOST),
    "diff": "craft images verify FILE",
    "reset": "craft config unset SECTION.NAME",
    **dict.fromkeys(("use", "switch", "checkout", "select"), _CHOSEN),
    **dict.fromkeys(("interrogate", "pnginfo", "png-info", "metadata", "exif"), _READ),
    **dict.fromkeys(("caption", "tag-images", "tagger"), _NO_CAPTIONS),
    **dict.fromkeys(("merge", "lora merge", "models merge"), _NO_MERGE),
    **dict.fromkeys(("interrupt", "skip"), f"{_CANCEL}, or craft jobs cancel --all"),
    **dict.fromkeys(("clear", "jobs clear"), "craft jobs cancel --all; what has ended: craft prune"),
    "free": "craft stop MODEL",
    **dict.fromkeys(
        ("nodes", "object_info", "custom-nodes", "plugins", "extensions"),
        "there are no plug-ins: craft models search WORDS",
    ),
    "workflow": _LIKE,
    **dict.fromkeys(("launch", "comfy", "gui", "open"), _HTTP),
    **dict.fromkeys(("train_network.py", "sdxl_train_network.py", "flux_train_network.py", "finetune"), _TRAIN),
    **dict.fromkeys(("resume", "pause"), "a training: craft lora train NAME --resume; a worker: craft fleet resume"),
    **dict.fromkeys(("lora resize", "lora extract"), _RANK),
    **dict.fromkeys(("lora apply", "lora enable", "lora use", "lora load"), _DRAW_WITH),
    **dict.fromkeys(("fleet join", "worker add", "fleet add"), "craft fleet invite NAME"),
    **dict.fromkeys(("embeddings", "embedding", "textual-inversion"), "they are not read; a LoRA: craft lora add FILE"),
}
_OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("--quantize", "--type", "--quant"), _QUANTIZED),
    **dict.fromkeys(("--low-ram", "--lowvram", "--medvram", "--offload-to-cpu", "--cpu-offload"), _MEMORY),
    **dict.fromkeys(("--clip-on-cpu", "--vae-on-cpu", "--vae-tiling"), _MEMORY),
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
    **dict.fromkeys(("config --list", "config -l"), "craft config list"),
    "config --get": "craft config get SECTION.NAME",
    **dict.fromkeys(("config --global", "config --add"), "craft config set SECTION.NAME VALUE"),
    "config --unset": "craft config unset SECTION.NAME",
    **dict.fromkeys(("config --edit", "config -e"), "craft config edit"),
    "ps --all": "craft jobs list",
    "ps --format": "craft ps --json",
    **dict.fromkeys(("ls -q", "ls --quiet", "ls --format"), _LIST),
    **dict.fromkeys(
        ("ls -a", "ls --all", "ls -l"), "craft ls shows them all; text encoders and such: craft ls --parts"
    ),
    **dict.fromkeys(("list -q", "list --format", "show --format", "status --format"), "--json"),
    **dict.fromkeys((f"show {one}" for one in ("--modelfile", "--parameters", "--template", "--system")), _WHOLE),
    **dict.fromkeys(("show --license", "show -v", "show --verbose"), _WHOLE),
    **dict.fromkeys(("stop --all", "stop -a"), "craft stop MODEL; the daemon with all of them: craft daemon stop"),
    **dict.fromkeys((f" {one}" for one in ("-p", "--prompt", "-m", "--model", "-o", "--output")), _WORDS),
    " -M": "craft generate PROMPT -m MODEL, craft convert FILE, craft upscale FILE",
    " -V": "craft --version",
    **dict.fromkeys(("--keepalive", "--keep-alive"), "craft config set daemon.keep_alive_s 600"),
    **dict.fromkeys(("--rm", "--insecure"), "leave it out"),
    "--config-from-metadata": "--like FILE",
    **dict.fromkeys(("--prompt-file", "--prompts-from-file", "--from-file", "--prompts"), "--batch FILE"),
    **dict.fromkeys(("--lora-model-dir", "--lora-dir", "--ckpt-dir", "--embd-dir"), _IMPORT),
    **dict.fromkeys(("--diffusion-fa", "--fa", "--opt-sdp-attention"), _ATTENTION),
    "--xformers": _ATTENTION,
    "-r": "--ref FILE",
    **dict.fromkeys(("--control-image", "--controlnet-image-path"), "--control canny=FILE"),
    **dict.fromkeys(("--control-strength", "--controlnet-strength"), "--control canny=FILE:0.8"),
    **dict.fromkeys(("--control-net", "--controlnet", "--controlnet-model"), "--control-model NAME"),
    **dict.fromkeys(("--upscale-model", "--hr-upscaler"), "--upscaler NAME"),
    "--hr-scale": "--hires 2",
    "--restore-faces": "no faces are restored; what draws details once more: --hires 1.5",
    "--tiling": "pictures whose edges meet are not drawn here: leave it out",
    **dict.fromkeys(("--script", "--xyz-plot", "--grid", "--save-grid"), "--sweep steps=8,20"),
    **dict.fromkeys(("--subseed", "--variation", "--variation-seed"), "there are no seeds between two: --seed 7"),
    "--schedule": "--sampler 'dpm++ 2m karras'",
    "--no-watermark": "nothing is drawn over pictures: leave it out",
    " -v": "craft --version",
}


# Of kohya's arguments, those that are no option of craft's by another name (craft_cli.training.kohya).
_TRAINING: Mapping[str, str] = {
    "train_data_dir": "craft lora train NAME FOLDER",
    **dict.fromkeys(("output_name", "output_dir"), "the NAME is what it is called: craft lora train NAME FOLDER"),
    **dict.fromkeys(("dataset_config", "config_file"), "--config FILE"),
    "max_train_steps": "--steps",
    "learning_rate": "--lr",
    "text_encoder_lr": "--te --te-lr",
    "lr_scheduler": "--schedule",
    "lr_warmup_steps": "--warmup",
    "optimizer_type": "--optimizer",
    "network_module": "--network",
    "network_args": "--network, --conv-rank, --lokr-factor",
    "reg_data_dir": "pictures of the class are drawn: --class-prompt",
    "color_aug": "--color-jitter 0.1",
    "random_crop": "--crop random",
    "sample_prompts": "--sample PROMPT",
    "discrete_flow_shift": "--timestep-shift",
}
_LONGEST_WORD = 40


def command(group: str, word: str) -> str:
    """The line to type where a group ("craft", "craft lora") has no command of that name; "" if nobody knows one."""
    group = group.removeprefix("craft").strip()
    if not group and " " in word:
        return "craft generate PROMPT draws it"
    if group == "config" and "." in word:
        name = word.partition("=")[0][:_LONGEST_WORD]
        return f"craft config get {name}, craft config set {name} VALUE"
    return _COMMANDS.get(f"{group} {word}".strip(), "")


def option(path: str, name: str) -> str:
    """The line or option to type where the command of that path has no option of that name; "" if nobody knows one."""
    last = path.rpartition(" ")[2].removeprefix("craft")
    if last == "train":
        return _of_training(name)
    return _OPTIONS.get(f"{last} {name}") or (_OPTIONS.get(name, "") if last in ("generate", "run", "serve") else "")


def _of_training(name: str) -> str:
    from craft_cli.training import kohya

    key = name.lstrip("-").replace("-", "_")
    if key in _TRAINING:
        return _TRAINING[key]
    meant = kohya.MEANT.get(key)
    if not isinstance(meant, str):
        return ""
    return meant if meant.startswith("--") else f"{meant}: leave it out"
