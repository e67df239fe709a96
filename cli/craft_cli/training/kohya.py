"""This table says what the arguments of kohya's scripts (sd-scripts) are called here, or why they mean nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Table = Mapping[str, Any]
Words = tuple[str, ...]  # the values of an option, or none: a flag
Options = Iterator[tuple[str, Words]]

ADDED = ("--folder", "--optimizer-arg", "--block-rank")  # may be given several times


class Nothing(Exception):
    """Why a key means nothing here."""


def options(key: str, value: Any, beside: Table) -> Options:
    """Craft's options for one of kohya's. `beside`: the others. Raises Nothing, and ValueError for what cannot be."""
    meant = MEANT.get(key.replace("-", "_"))
    if meant is None:
        raise Nothing("is not known to craft: it is not used")
    if isinstance(meant, str) and not meant.startswith("--"):
        raise Nothing(meant)
    if value is None or value == "":
        return
    if not isinstance(meant, str):
        yield from meant(value, beside)
    elif isinstance(value, bool):
        if value:
            yield meant, ()
    else:
        yield meant, words(value)


def words(value: Any) -> Words:
    """Raises ValueError for what is no text and no number."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(one, (str, int, float)) and not isinstance(one, bool) for one in found):
        raise ValueError("must be a text or a number, or a list of those")
    return tuple(map(str, found))


def _steps(value: Any, beside: Table) -> Options:
    if beside.get("max_train_epochs"):
        raise Nothing("max_train_epochs counts, as in kohya's scripts")
    yield "--steps", words(value)


def _rate(value: Any, beside: Table) -> Options:
    if beside.get("unet_lr"):
        raise Nothing("unet_lr counts, as in kohya's scripts")
    yield "--lr", words(value)


def _text_rate(value: Any, beside: Table) -> Options:
    rates = set(value) if isinstance(value, list) else {value}
    if len(rates) > 1:
        raise ValueError("craft's text encoders have one rate")
    (rate,) = rates
    if beside.get("network_train_unet_only") or not rate:
        raise Nothing("the text encoder is not trained")
    yield "--te-lr", words(rate)
    yield "--te", ()


def _unet_only(value: Any, beside: Table) -> Options:
    if not value:
        yield "--te", ()


def _never(why: str) -> Callable[[Any, Table], Options]:
    """Makes the reader of an argument that would make it another training: it raises ValueError where that is set."""

    def refuse(value: Any, beside: Table) -> Options:
        if value:
            raise ValueError(why)
        yield from ()

    return refuse


def _one_of(option: str, known: Mapping[str, str]) -> Callable[[Any, Table], Options]:
    def choose(value: Any, beside: Table) -> Options:
        name = known.get(str(value).lower())
        if name is None:
            raise ValueError(f"{str(value)[:60]!r} is not here; there are {', '.join(known)}")
        yield option, (name,)

    return choose


def _warmup(value: Any, beside: Table) -> Options:
    steps = beside.get("max_train_steps")
    if isinstance(value, float) and 0 < value < 1:  # a part of the steps
        if not isinstance(steps, int) or beside.get("max_train_epochs"):
            raise ValueError("is a part of the steps, which are not said")
        value = round(value * steps)
    yield "--warmup", (str(int(value)),)


def _side(value: Any, beside: Table) -> Options:
    sides = value if isinstance(value, list) else str(value).replace("x", ",").split(",")
    if len({str(one).strip() for one in sides}) != 1:
        raise ValueError("craft's is one number: the side of the square whose area pictures have")
    yield "--resolution", (str(sides[0]).strip(),)


def _sampling(value: Any, beside: Table) -> Options:
    if value == "sigma":
        raise Nothing("weighting_scheme counts")
    yield from _one_of(
        "--timestep-sampling", {"sigmoid": "logit-normal", "shift": "logit-normal", "uniform": "uniform"}
    )(value, beside)


def _weighting(value: Any, beside: Table) -> Options:
    if beside.get("timestep_sampling", "sigma") != "sigma":
        raise Nothing("timestep_sampling counts, as in kohya's scripts")
    yield from _one_of("--timestep-sampling", {"logit_normal": "logit-normal", "mode": "mode", "none": "uniform"})(
        value, beside
    )


def _shift(value: Any, beside: Table) -> Options:
    if beside.get("timestep_sampling") != "shift":
        raise Nothing('counts with timestep_sampling = "shift" alone, as in kohya\'s scripts')
    yield "--timestep-shift", words(value)


def _network(value: Any, beside: Table) -> Options:
    if not str(value).startswith(("networks.lora", "lycoris")):
        raise ValueError(f"{str(value)[:60]!r} is not here; there is networks.lora")
    yield from ()


def _network_args(value: Any, beside: Table) -> Options:
    """`name=value`, of kohya's own networks."""
    for one in words(value):
        name, _, told = one.partition("=")
        if name not in NETWORK:
            raise ValueError(f"{one[:60]!r} is not here; there are {', '.join(NETWORK)}")
        yield from NETWORK[name](told, beside)


def _dora(value: Any, beside: Table) -> Options:
    if value.lower() == "true":
        yield "--dora", ()


def _algorithm(value: Any, beside: Table) -> Options:
    known = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}
    if value.lower() not in known:
        raise ValueError(f"algo={value[:30]} is not here; there are {', '.join(known)}")
    yield "--network", (known[value.lower()],)


def _colours(value: Any, beside: Table) -> Options:
    if value:
        yield "--color-jitter", ("0.1",)


def _crop(value: Any, beside: Table) -> Options:
    if value:
        yield "--crop", ("random",)


def _loss(value: Any, beside: Table) -> Options:
    if value != "l2":
        raise ValueError(f"{str(value)[:30]!r} is not here; there is l2")
    yield from ()


def _usual(usual: object, otherwise: str) -> Callable[[Any, Table], Options]:
    """Of what craft does in one way alone."""

    def check(value: Any, beside: Table) -> Options:
        if value != usual:
            raise Nothing(otherwise)
        yield from ()

    return check


_OPTIMIZERS = {
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "prodigy": "prodigy",
    "adafactor": "adafactor",
    "lion": "lion",
    "adamwschedulefree": "schedule-free",
    "came": "came",
    "came_pytorch.came": "came",
}
_SCHEDULES = {name: name for name in ("constant", "cosine", "linear", "cosine_with_restarts", "polynomial")}
_SCHEDULES |= {"constant_with_warmup": "constant"}


def _number(option: str) -> Callable[[Any, Table], Options]:
    def take(value: Any, beside: Table) -> Options:
        yield option, (value,)

    return take


def _conv_alpha(value: Any, beside: Table) -> Options:
    """A layer's alpha / rank is the same for all of craft's."""
    parts = (one.partition("=") for one in words(beside.get("network_args", [])))
    told = {name: given for name, _, given in parts}
    rank, alpha = str(beside.get("network_dim")), str(beside.get("network_alpha", 1))
    try:
        is_same = abs(float(value) / float(told["conv_dim"]) - float(alpha) / float(rank)) < 1e-6
    except (KeyError, ValueError, ZeroDivisionError):
        is_same = False
    if not is_same:
        raise ValueError("conv_alpha / conv_dim must be network_alpha / network_dim here")
    yield from ()


NETWORK: dict[str, Callable[[Any, Table], Options]] = {
    "dora_wd": _dora,
    "algo": _algorithm,
    "factor": _number("--lokr-factor"),
    "conv_dim": _number("--conv-rank"),
    "conv_alpha": _conv_alpha,
}

_WORKER = "the worker decides how it computes and what it keeps"
_MODEL = "the model itself says so"
_FILES = "the LoRA and its checkpoints go to the daemon, by its NAME"
_SIZES = "sizes follow from --resolution and the model"
_LOGS = "losses are kept with the job: craft jobs show JOB --plot, or --tensorboard FOLDER"
_STEPS_ALONE = "is counted in steps here"

# kohya's argument -> craft's option, or what becomes of its value, or why it means nothing here.
MEANT: dict[str, str | Callable[[Any, Table], Options]] = {
    "pretrained_model_name_or_path": "--model",
    "network_dim": "--rank",
    "network_alpha": "--alpha",
    "network_module": _network,
    "network_args": _network_args,
    "network_dropout": _never("craft drops nothing of a LoRA"),
    "network_weights": "--from",
    "network_train_unet_only": _unet_only,
    "network_train_text_encoder_only": _never("craft trains no text encoder alone"),
    "scale_weight_norms": _never("craft does not scale a LoRA's norms"),
    "base_weights": _never("craft merges nothing into a model: train from a model that has it"),
    "max_train_steps": _steps,
    "max_train_epochs": "--epochs",
    "learning_rate": _rate,
    "unet_lr": "--lr",
    "text_encoder_lr": _text_rate,
    "lr_scheduler": _one_of("--schedule", _SCHEDULES),
    "lr_scheduler_num_cycles": "--restarts",
    "lr_scheduler_power": "--power",
    "lr_warmup_steps": _warmup,
    "optimizer_type": _one_of("--optimizer", _OPTIMIZERS),
    "optimizer_args": "--optimizer-arg",
    "max_grad_norm": _usual(1.0, "gradients are cut at a norm of 1 here"),
    "train_batch_size": "--batch",
    "batch_size": "--batch",
    "gradient_accumulation_steps": "--accumulate",
    "gradient_checkpointing": "--gradient-checkpointing",
    "resolution": _side,
    "train_data_dir": "--folder",
    "reg_data_dir": _never("craft draws pictures of the class itself: --class-prompt"),
    "metadata_file": _never("craft reads captions beside pictures, and metadata.jsonl"),
    "in_json": _never("craft reads captions beside pictures, and metadata.jsonl"),
    "conditioning_data_dir": "--masks",
    "class_tokens": "--trigger",
    "masked_loss": "masks count where there are any",
    "alpha_mask": "--alpha-mask",
    "flip_aug": "--flip",
    "color_aug": _colours,
    "random_crop": _crop,
    "face_crop_aug_range": _never("craft looks for no faces"),
    "shuffle_caption": "--shuffle-tags",
    "keep_tokens": "--keep-tags",
    "keep_tokens_separator": _never("craft keeps tags by their number: keep_tokens"),
    "secondary_separator": _never("tags have commas between here"),
    "caption_separator": _usual(",", "tags have commas between here"),
    "caption_tag_dropout_rate": "--tag-dropout",
    "caption_dropout_rate": "--caption-dropout",
    "caption_dropout_every_n_epochs": _never("craft leaves captions out by chance: caption_dropout_rate"),
    "caption_prefix": _never("write it into the captions"),
    "caption_suffix": _never("write it into the captions"),
    "caption_extension": "captions are .txt or .caption",
    "enable_wildcard": "--caption-wildcards",
    "token_warmup_step": _never("craft shows all tags from the beginning"),
    "token_warmup_min": _usual(1, "craft shows all tags from the beginning"),
    "prior_loss_weight": "counts with --class-prompt alone: --prior-weight",
    "noise_offset": "--noise-offset",
    "multires_noise_iterations": "--multires-noise",
    "multires_noise_discount": "--multires-discount",
    "min_snr_gamma": "--min-snr",
    "debiased_estimation_loss": "--debiased",
    "ip_noise_gamma": _never("craft adds no noise to its input"),
    "adaptive_noise_scale": _never("craft's noise offset is one number"),
    "loss_type": _loss,
    "min_timestep": _usual(0, "craft learns at all timesteps"),
    "max_timestep": _usual(1000, "craft learns at all timesteps"),
    "timestep_sampling": _sampling,
    "weighting_scheme": _weighting,
    "sigmoid_scale": "--logit-std",
    "logit_mean": "--logit-mean",
    "logit_std": "--logit-std",
    "mode_scale": _usual(1.29, "is 1.29 here"),
    "discrete_flow_shift": _shift,
    "seed": "--seed",
    "validation_split": "--validation",
    "validate_every_n_steps": "--validate-every",
    "validate_every_n_epochs": _STEPS_ALONE,
    "validation_seed": "follows from --seed",
    "max_validation_steps": "every picture that is kept is taken",
    "sample_prompts": "--sample-prompts",
    "sample_at_first": "samples come with --sample-every, and at the end",
    "sample_sampler": "samples are drawn with the model's own sampler",
    "sample_every_n_steps": "--sample-every",
    "sample_every_n_epochs": _STEPS_ALONE,
    "save_every_n_steps": "--checkpoint-every",
    "save_every_n_epochs": _STEPS_ALONE,
    "clip_skip": "the text encoder's last layer but those that the model leaves out is trained on",
    **dict.fromkeys(("v2", "v_parameterization", "sdxl", "zero_terminal_snr", "model_prediction_type"), _MODEL),
    **dict.fromkeys(("guidance_scale", "max_token_length", "vae", "ae", "clip_l", "clip_g", "t5xxl"), _MODEL),
    **dict.fromkeys(("enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps"), _SIZES),
    **dict.fromkeys(("bucket_no_upscale", "resize_interpolation"), _SIZES),
    **dict.fromkeys(("output_dir", "output_name", "save_model_as", "save_state", "save_last_n_steps"), _FILES),
    **dict.fromkeys(("save_last_n_epochs", "training_comment", "no_metadata", "save_state_on_train_end"), _FILES),
    **dict.fromkeys(("logging_dir", "log_prefix", "log_with", "log_tracker_name", "wandb_run_name"), _LOGS),
    **dict.fromkeys(("mixed_precision", "save_precision", "full_fp16", "full_bf16", "fp8_base", "sdpa"), _WORKER),
    **dict.fromkeys(("xformers", "mem_eff_attn", "cache_latents", "cache_latents_to_disk", "cache_info"), _WORKER),
    **dict.fromkeys(("cache_text_encoder_outputs", "cache_text_encoder_outputs_to_disk", "no_half_vae"), _WORKER),
    **dict.fromkeys(("vae_batch_size", "lowram", "highvram", "max_data_loader_n_workers", "dynamo_backend"), _WORKER),
    **dict.fromkeys(("persistent_data_loader_workers", "blocks_to_swap", "torch_compile", "fp8_base_unet"), _WORKER),
}
