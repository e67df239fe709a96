"""What a LoRA's file says of itself: kohya's `ss_*` keys and Stability's `modelspec.*` (version 1.0.0).

No dates, so that the same training gives the same file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from craft_protos.dispatch import ModelManifest
from craft_protos.train import Picture, TrainSpec
from craft_protos.train_options import LORA
from craft_protos.version import __version__

from craftd import safetensors
from craftd.architectures.architecture import Architecture
from craftd.architectures.rows.unets import SD2
from craftd.worker.training import optimizers, stored

_MOST_TAGS = 200
_KOHYA = {
    "noise_offset": "noise_offset",
    "multires_noise": "multires_noise_iterations",
    "multires_discount": "multires_noise_discount",
    "debiased": "debiased_estimation",
    "shuffle_tags": "shuffle_caption",
    "keep_tags": "keep_tokens",
    "tag_dropout": "caption_tag_dropout_rate",
    "caption_wildcards": "enable_wildcard",
    "alpha_mask": "alpha_mask",
}
_PREDICTS = {"epsilon": "epsilon", "v_prediction": "v"}


@dataclass(frozen=True)
class Subject:
    """What was trained, and on what."""

    architecture: Architecture
    predicts: str  # epsilon, v_prediction, flow
    model: ModelManifest
    recipe: TrainSpec
    pictures: Sequence[Picture]
    precision: str
    steps: int
    preview_jpeg: bytes


def metadata(subject: Subject, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """A safetensors file's metadata."""
    recipe, training = subject.recipe, _training(subject)
    contents = stored.safetensors(tensors, training)
    thumbnail = base64.b64encode(subject.preview_jpeg).decode()
    return training | {
        "sshs_model_hash": _hash_of_tensors(contents),
        "sshs_legacy_hash": hashlib.sha256(contents[0x100000:0x110000]).hexdigest()[:8],
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{subject.architecture.modelspec}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": recipe.name,
        "modelspec.trigger_phrase": recipe.trigger,
        "modelspec.resolution": f"{recipe.resolution}x{recipe.resolution}",
        "modelspec.hash_sha256": f"0x{_hash_of_tensors(contents)}",
        **({"modelspec.prediction_type": _PREDICTS[subject.predicts]} if subject.predicts in _PREDICTS else {}),
        **({"modelspec.thumbnail": f"data:image/jpeg;base64,{thumbnail}"} if thumbnail else {}),
    }


def _training(subject: Subject) -> dict[str, str]:
    recipe, shown = subject.recipe, sum(one.repeats for one in subject.pictures)
    per_step = recipe.batch_size * recipe.gradient_accumulation
    told = {
        "output_name": recipe.name,
        "base_model_version": subject.architecture.kohya,
        "sd_model_name": subject.model.name,
        "network_module": "networks.lora" if recipe.network == LORA else "lycoris.kohya",
        "network_dim": recipe.rank,
        "network_alpha": float(recipe.alpha),
        "learning_rate": recipe.learning_rate,
        "unet_lr": recipe.learning_rate,
        "text_encoder_lr": recipe.text_encoder_rate or recipe.learning_rate if recipe.train_text_encoder else None,
        "lr_scheduler": recipe.learning_rate_schedule,
        "lr_warmup_steps": recipe.warmup_steps,
        "optimizer": optimizers.class_name(recipe.optimizer) + _arguments(recipe),
        "steps": subject.steps,
        "max_train_steps": recipe.steps,
        "num_train_images": shown,
        "num_reg_images": recipe.class_pictures if recipe.has_prior else 0,
        "num_epochs": max(1, round(subject.steps * per_step / shown)),
        "batch_size_per_device": recipe.batch_size,
        "total_batch_size": per_step,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "seed": recipe.seed,
        "resolution": f"({recipe.resolution}, {recipe.resolution})",
        "enable_bucket": True,
        "min_snr_gamma": recipe.min_snr_gamma or None,
        "prior_loss_weight": recipe.prior_weight if recipe.has_prior else None,
        "caption_dropout_rate": recipe.caption_dropout,
        **_network_arguments(recipe),
        **_chosen(recipe),
        "mixed_precision": "no" if subject.precision == "fp32" else "bf16",
        "v2": subject.architecture.id == SD2.id,
        "tag_frequency": json.dumps({"dataset": _tags(subject)}),
        "training_comment": f"trained with craft {__version__}",
    }
    return {f"ss_{name}": str(value) for name, value in told.items()}


def _network_arguments(recipe: TrainSpec) -> dict[str, str]:
    """As kohya's scripts write them down."""
    told = {
        "algo": recipe.network if recipe.network != LORA else "",
        "factor": str(recipe.lokr_factor or ""),
        "conv_dim": str(recipe.conv_rank or ""),
        "conv_alpha": str(recipe.conv_rank * recipe.alpha / recipe.rank) if recipe.conv_rank else "",
    }
    given = {name: value for name, value in told.items() if value}
    return {"network_args": json.dumps(given)} if given else {}


def _arguments(recipe: TrainSpec) -> str:
    return f"({','.join(recipe.optimizer_args)})" if recipe.optimizer_args else ""


def _chosen(recipe: TrainSpec) -> dict[str, object]:
    """Of the options that kohya's scripts name in metadata, those that were chosen."""
    return {_KOHYA[name]: value for name, value in recipe.chosen.items() if name in _KOHYA}


def _tags(subject: Subject) -> dict[str, int]:
    captions = [subject.recipe.caption(picture) for picture in subject.pictures]
    counted = Counter(tag.strip() for caption in captions for tag in caption.split(",") if tag.strip())
    return dict(sorted(counted.most_common(_MOST_TAGS)))


def _hash_of_tensors(contents: bytes) -> str:
    """As kohya's scripts compute it: of everything after the header."""
    _, offset = safetensors.split(contents)
    return hashlib.sha256(contents[offset:]).hexdigest()
