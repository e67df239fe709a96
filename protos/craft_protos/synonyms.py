"""What other programs call the things that craft has names for: AUTOMATIC1111, diffusers, ComfyUI, kohya.

Fields by the names that people write; options and commands are told from them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

FIELDS = {
    "guidance_scale": ("cfg", "cfg scale", "guidance", "scale", "distilled cfg scale", "unconditional guidance scale"),
    "negative_prompt": ("negative", "neg", "neg prompt", "uc", "undesired content"),
    "sampler": ("sampler name", "sampler index", "sampling method", "scheduler", "schedule", "solver"),
    "steps": ("num inference steps", "inference steps", "sampling steps", "step", "num steps", "max train steps"),
    "count": ("n", "n iter", "num images", "num images per prompt", "batch size", "batch count", "images", "number"),
    "width": ("w", "size", "image size", "resolution"),
    "height": ("h",),
    "model": ("checkpoint", "ckpt", "ckpt name", "model id", "sd model checkpoint", "pretrained model name or path"),
    "loras": ("lora", "lora model", "adapter", "network"),
    "format": ("output format", "file format", "image format", "extension"),
    "image": ("init image", "init img", "image path", "input image", "source image", "init images", "img"),
    "strength": ("denoising strength", "denoise", "denoising", "noise strength"),
    "refs": ("ref", "ref images", "reference images", "image paths"),
    "mask": ("mask image", "mask path", "masked image path", "inpaint mask"),
    "mask_padding": ("inpaint full res padding", "only masked padding", "padding mask crop"),
    "mask_invert": ("inpainting mask invert", "invert mask"),
    "fit": ("resize mode",),
    "prompt": ("text", "caption", "positive", "positive prompt"),
    "request_id": ("id", "idempotency key"),
    "expire_time": ("deadline", "expires", "timeout"),
    "output": ("out", "outdir", "output dir", "output path", "save as", "file name", "filename"),
    "learning_rate": ("lr", "unet lr", "optimizer lr"),
    "rank": ("network dim", "dim", "lora rank", "r"),
    "alpha": ("network alpha", "lora alpha"),
    "batch": ("train batch size", "from file", "prompts", "input file"),
    "epochs": ("num train epochs", "max train epochs"),
    "detach": ("background", "async", "no wait"),
    "force": ("overwrite", "yes", "y"),
    "plan": ("dry run",),
    "dry-run": ("plan",),
    "quiet": ("silent", "no progress"),
}
COMMANDS = {
    "rm": ("remove", "delete", "del", "uninstall", "forget"),
    "list": ("ls", "all", "index"),
    "show": ("info", "inspect", "describe", "cat", "view"),
    "pull": ("download", "fetch", "install"),
    "get": ("download", "fetch", "export", "save"),
    "add": ("import", "link", "register"),
    "cancel": ("kill", "abort", "stop"),
    "create": ("new", "add", "make"),
    "watch": ("follow", "attach", "tail"),
    "edit": ("update", "rename", "set", "change"),
    "prune": ("clean", "gc", "purge"),
    "replay": ("redo", "reproduce", "remake"),
    "verify": ("check", "compare"),
    "generate": (
        "draw",
        "txt2img",
        "text2img",
        "imagine",
        "gen",
        "create",
        "make",
        "paint",
        "dream",
        "img2img",
        "inpaint",
        "edit",
    ),
    "lora": ("loras", "adapters", "adapter"),
    "models": ("model", "checkpoints", "checkpoint"),
    "jobs": ("job", "queue"),
    "images": ("image", "pictures", "gallery"),
    "daemon": ("server", "serve", "service"),
    "config": ("settings", "configuration", "options"),
    "keys": ("key", "tokens"),
}
_CLOSE = 0.75  # less alike is another word


def nearest(written: str, known: Iterable[str], table: dict[str, tuple[str, ...]]) -> list[str]:
    """The known names that are meant: a synonym's, else those that are spelled alike."""
    names = {_key(name): name for name in known}
    meant = [names[_key(name)] for name, others in table.items() if _key(name) in names and _is_one(written, others)]
    if meant:
        return meant
    return [names[near] for near in difflib.get_close_matches(_key(written), names, n=3, cutoff=_CLOSE)]


def _is_one(written: str, others: Iterable[str]) -> bool:
    return _key(written) in map(_key, others)


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())
