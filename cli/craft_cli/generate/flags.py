"""The contract's fields as this face's options: a complaint about guidance_scale is one about --guidance here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields

from craft_protos import synonyms, train_options
from craft_protos.generate import GenerateRequest
from craft_protos.reasons import CraftError

GENERATE = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(GenerateRequest)} | {
    "negative_prompt": "--negative",
    "guidance_scale": "--guidance",
    "loras": "--lora",
    **dict.fromkeys(("original_width", "original_height"), "--original-size"),
    **dict.fromkeys(("crop_left", "crop_top"), "--crop"),
    **dict.fromkeys(("start", "start.sha256"), "--image"),
    **{f"start.{name}": f"--{name}" for name in ("strength", "fit")},
    "mask.sha256": "--mask",
    **dict.fromkeys(("references", "references.sha256"), "--ref"),
    **dict.fromkeys(("upscale", "upscale.scale"), "--upscale"),
    **dict.fromkeys(("upscale.model", "hires.upscaler"), "--upscaler"),
    **dict.fromkeys(("hires", "hires.scale"), "--hires"),
    **{f"hires.{name}": f"--hires-{name}" for name in ("strength", "steps")},
    "true_cfg_scale": "--true-cfg",
    "refiner.model": "--refiner",
    "refiner.switch": "--refiner-switch",
    **dict.fromkeys(("controls", "controls.sha256", "controls.kind", "controls.scale", "controls.fit"), "--control"),
    **dict.fromkeys(("controls.start", "controls.end"), "--control-steps"),
    "controls.model": "--control-model",
    **{f"mask.{name}": f"--mask-{name}" for name in ("blur", "grow", "invert", "padding")},
}
for _without_option in ("prompt", "indices", "default_model"):
    del GENERATE[_without_option]
TRAIN = {
    "name": "NAME",
    "dataset": "FOLDER",
    "model": "--model",
    "trigger": "--trigger",
    "rank": "--rank",
    "alpha": "--alpha",
    "steps": "--steps",
    "epochs": "--epochs",
    "learning_rate": "--lr",
    "learning_rate_schedule": "--schedule",
    "warmup_steps": "--warmup",
    "batch_size": "--batch",
    "gradient_accumulation": "--accumulate",
    "resolution": "--resolution",
    "train_text_encoder": "--te",
    "dora": "--dora",
    "base_lora": "--from",
    "sample_prompts": "--sample",
    "sample_every": "--sample-every",
    "class_prompt": "--class-prompt",
    "class_pictures": "--class-pictures",
    "prior_weight": "--prior-weight",
    "ema_decay": "--ema",
    "min_snr_gamma": "--min-snr",
    "caption_dropout": "--caption-dropout",
    "flip": "--flip",
    "seed": "--seed",
    "gradient_checkpointing": "--gradient-checkpointing",
    "checkpoint_every": "--checkpoint-every",
    "format": "--format",
    "resume": "NAME",
    "when_idle": "--when-idle",
    **{one.name: one.metadata["flag"] for one in train_options.options()},
}


@contextmanager
def spoken(flags: Mapping[str, str]) -> Iterator[None]:
    """Within, an error that names a field names the option that it came from."""
    try:
        yield
    except CraftError as error:
        raise _in_options(error, flags) from error


def _in_options(error: CraftError, flags: Mapping[str, str]) -> CraftError:
    flag = flags.get(error.field)
    if flag is None or (error.reason != "INVALID_FIELD" and "." not in error.field):
        return error
    message = re.sub(rf"^{re.escape(error.field)}\b", flag, error.message)
    hint = error.hint or f"--help says what {flag} takes"
    return CraftError(error.reason, message, hint, field=error.field, retry_after_s=error.retry_after_s)


def nearest(written: str, options: Iterable[str]) -> list[str]:
    """Of a command's long options, those that an unknown one may mean."""
    options = list(options)
    flags = TRAIN if TRAIN["learning_rate"] in options else GENERATE
    table = {f"--{name}": others for name, others in synonyms.FIELDS.items()}
    for field, flag in flags.items():
        table[flag] = (field, *synonyms.FIELDS.get(field, ()))
    return synonyms.nearest(written, options, table)
