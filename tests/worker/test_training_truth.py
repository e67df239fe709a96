"""Losses and gradients are those of a plain loop over peft and diffusers, on the same seed, for ten steps.

The loop here is written as diffusers' training scripts are, and shares nothing with craft's but the order in which
random numbers are drawn.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.dispatch import Dispatch
from craft_protos.train import TrainSpec
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from peft import LoraConfig
from PIL import Image
from pytest import importorskip
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.optimization import Adafactor

from tests.matrix import covers
from tests.worker.trained import Desk, ask, kohyas_masks, with_masks

pytestmark = pytest.mark.usefixtures("quick_samples")

STEPS = 10
UNET = ["to_k", "to_q", "to_v", "to_out.0"]
WHOLE = [*UNET, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "add_embedding.proj"]
WHOLE += ["conv1", "conv2", "conv_shortcut", "time_emb_proj"]
SD3 = [f"attn.{n}" for n in (*UNET, "add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")]
FLUX = [*SD3, "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
Z_IMAGE = [f"attention.{n}" for n in UNET] + [f"feed_forward.w{i}" for i in (1, 2, 3)]
FLUX2 = [*SD3, "ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out", "to_qkv_mlp_proj"]
QWEN = [*SD3, "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]
KREA2 = [*(f"attn.{n}" for n in UNET), "attn.to_gate", "ff.gate", "ff.up", "ff.down"]
OPTIMIZERS: dict[str, Callable[[list[Any], float], Any]] = {
    "adamw": lambda learned, rate: torch.optim.AdamW(learned, lr=rate),
    "prodigy": lambda learned, rate: importorskip("prodigyopt").Prodigy(learned, lr=rate),
    "adafactor": lambda learned, rate: Adafactor(learned, lr=rate, scale_parameter=False, relative_step=False),
    "lion": lambda learned, rate: importorskip("lion_pytorch").Lion(learned, lr=rate),
    "schedule-free": lambda learned, rate: importorskip("schedulefree").AdamWScheduleFree(learned, lr=rate),
    "came": lambda learned, rate: importorskip("came_pytorch").CAME(learned, lr=rate),
}
Predict = Callable[[Any, torch.Tensor, torch.Tensor, list[str]], torch.Tensor]


@contextmanager
def gradients() -> Iterator[list[list[torch.Tensor]]]:
    """Those of every step of any optimizer."""
    seen: list[list[torch.Tensor]] = []

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        seen.append([torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in parameters])

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _ids(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    length = tokenizer.model_max_length
    return tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def _sd(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text = pipe.text_encoder(_ids(pipe.tokenizer, captions))[0]
        return network(noisy, timesteps, text).sample

    return predict


def _sdxl(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        outputs = [
            encoder(_ids(tokenizer, captions), output_hidden_states=True)
            for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
        ]
        text = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
        sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(captions))
        added = {"text_embeds": outputs[1].text_embeds, "time_ids": sizes}
        return network(noisy, timesteps, text, added_cond_kwargs=added).sample

    return predict


def _sd3(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, _, pooled, _ = pipe.encode_prompt(captions, captions, captions, do_classifier_free_guidance=False)
        return network(
            hidden_states=noisy, timestep=timesteps, encoder_hidden_states=text, pooled_projections=pooled
        ).sample

    return predict


def _flux(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, pooled, text_ids = pipe.encode_prompt(captions, captions)
        rows, channels, height, width = noisy.shape
        ids = FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32)
        output = network(
            hidden_states=FluxPipeline._pack_latents(noisy, rows, channels, height, width),
            timestep=timesteps / 1000,
            guidance=torch.ones(rows),
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=ids,
        ).sample
        scale = pipe.vae_scale_factor
        return FluxPipeline._unpack_latents(output, height * scale, width * scale, scale)

    return predict


def _z_image(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        texts, _ = pipe.encode_prompt(list(captions), do_classifier_free_guidance=False)
        output = network(list(noisy.unsqueeze(2).unbind()), (1000 - timesteps) / 1000, texts).sample
        return -torch.stack(output).squeeze(2)

    return predict


def _flux2(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, text_ids = pipe.encode_prompt(captions)
        ids = pipe._prepare_latent_ids(noisy)
        output = network(
            hidden_states=pipe._pack_latents(noisy),
            timestep=timesteps / 1000,
            guidance=None,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=ids,
        ).sample
        return pipe._unpack_latents_with_ids(output, ids, *noisy.shape[-2:])

    return predict


def _qwen(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, mask = pipe.encode_prompt(captions)
        rows, channels, height, width = noisy.shape
        output = network(
            hidden_states=pipe._pack_latents(noisy, rows, channels, height, width),
            timestep=timesteps / 1000,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, height // 2, width // 2)]] * rows,
        ).sample
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(output, height * scale, width * scale, scale)[:, :, 0]

    return predict


def _krea2(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, mask = pipe.encode_prompt(captions)
        rows, channels, height, width = noisy.shape
        output = network(
            hidden_states=pipe._pack_latents(noisy, rows, channels, height, width),
            timestep=timesteps / 1000,
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            position_ids=pipe.prepare_position_ids(text.shape[1], height // 2, width // 2, noisy.device),
        ).sample
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(output, height * scale, width * scale)[:, :, 0]

    return predict


def _chroma(pipe: Any, network: Any) -> Predict:
    def predict(_net: Any, noisy: torch.Tensor, timesteps: torch.Tensor, captions: list[str]) -> torch.Tensor:
        text, text_ids, mask, *_ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
        rows, channels, height, width = noisy.shape
        tokens = FluxPipeline._pack_latents(noisy, rows, channels, height, width)
        output = network(
            hidden_states=tokens,
            timestep=timesteps / 1000,
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=FluxPipeline._prepare_latent_image_ids(rows, height // 2, width // 2, "cpu", torch.float32),
            attention_mask=pipe._prepare_attention_mask(rows, tokens.shape[1], text.dtype, mask),
        ).sample
        scale = pipe.vae_scale_factor
        return FluxPipeline._unpack_latents(output, height * scale, width * scale, scale)

    return predict


def _clean(pipe: Any, pixels: torch.Tensor) -> torch.Tensor:
    config = pipe.vae.config
    if "z_dim" in config:  # a video of one frame
        mode = pipe.vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        return (mode - mean) / deviation
    if "batch_norm_eps" in config:
        return pipe._encode_vae_image(pixels, generator=None)
    encoded = pipe.vae.encode(pixels)
    mode = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return (mode - (config.get("shift_factor") or 0)) * config.scaling_factor


def _latents(pipe: Any, files: Path, train: Dispatch) -> list[torch.Tensor]:
    found = []
    for one in train.pictures:
        seen = Image.open(files / one.sha256).convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
        pixels = np.asarray(upright, np.float32) / 127.5 - 1
        with torch.no_grad():
            found.append(_clean(pipe, torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    return found


def _loop(pipe: Any, files: Path, train: Dispatch, targets: list[str], predictor: Any) -> list[float]:
    """Ten steps of a plain training; the losses."""
    recipe = train.training
    own = pipe.transformer if "transformer" in pipe.components else pipe.unet
    network = copy.deepcopy(own).requires_grad_(False)
    torch.manual_seed(recipe.seed)
    network.add_adapter(
        LoraConfig(
            r=recipe.rank,
            lora_alpha=int(recipe.alpha),
            init_lora_weights="gaussian",
            target_modules=targets,
            use_dora=recipe.dora,
        )
    )
    predict = predictor(pipe, network)
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = OPTIMIZERS[recipe.optimizer](learned, recipe.learning_rate)
    generator = torch.Generator().manual_seed(recipe.seed)
    latents = _latents(pipe, files, train)
    masks = kohyas_masks(files, train, latents[0].shape[-2:])
    places = [i for i, one in enumerate(train.pictures) for _ in range(one.repeats)]
    batches: list[list[int]] = []
    losses = []
    if recipe.optimizer == "schedule-free":
        optimizer.train()
    for _ in range(STEPS):
        if not batches:
            order = [places[i] for i in torch.randperm(len(places), generator=generator).tolist()]
            cut = [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]
            batches = [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]
        batch = batches.pop(0)
        clean = torch.cat([latents[i] for i in batch])
        captions = [train.pictures[i].caption or recipe.trigger for i in batch]
        asked = functools.partial(predict, network, captions=captions)
        loss = _loss(pipe.scheduler, clean, asked, generator, recipe, mask=torch.cat([masks[i] for i in batch]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def _noise(clean: torch.Tensor, generator: torch.Generator, recipe: TrainSpec) -> torch.Tensor:
    """Plain noise, then kohya's pyramid, then his offset."""
    noise = torch.randn(clean.shape, generator=generator)
    if recipe.multires_noise:
        rows, channels, height, width = clean.shape
        stretch = torch.nn.Upsample(size=(height, width), mode="bilinear")
        for i in range(recipe.multires_noise):
            r = torch.rand((), generator=generator).item() * 2 + 2
            h, w = max(1, int(height / (r**i))), max(1, int(width / (r**i)))
            noise += stretch(torch.randn(rows, channels, h, w, generator=generator)) * recipe.multires_discount**i
            if h == 1 or w == 1:
                break
        noise /= noise.std()
    if recipe.noise_offset:
        noise += recipe.noise_offset * torch.randn(*clean.shape[:2], 1, 1, generator=generator)
    return noise


def _densities(count: int, generator: torch.Generator, recipe: TrainSpec) -> torch.Tensor:
    if recipe.timestep_sampling == "uniform":
        return torch.rand(count, generator=generator)
    if recipe.timestep_sampling == "mode":  # Esser et al. 2024, equation 20
        drawn = torch.rand((count,), generator=generator)
        return 1 - drawn - 1.29 * (torch.cos(math.pi * drawn / 2) ** 2 - 1 + drawn)
    return torch.sigmoid(torch.normal(mean=recipe.logit_mean, std=recipe.logit_std, size=(count,), generator=generator))


def _loss(
    own: Any, clean: torch.Tensor, predict: Any, generator: torch.Generator, recipe: TrainSpec, *, mask: torch.Tensor
) -> torch.Tensor:
    gamma, noise = recipe.min_snr_gamma, _noise(clean, generator, recipe)
    if "FlowMatch" in type(own).__name__:
        shift = {"shift": recipe.timestep_shift, "use_dynamic_shifting": False} if recipe.timestep_shift else {}
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(own.config, **shift)
        u = _densities(len(clean), generator, recipe)
        places = (u * 1000).long()
        sigma = scheduler.sigmas[places].view(-1, 1, 1, 1)
        output = predict((1 - sigma) * clean + sigma * noise, scheduler.timesteps[places])
        return ((output - (noise - clean)) ** 2 * mask).mean()
    scheduler = DDPMScheduler.from_config(own.config)
    timesteps = torch.randint(0, 1000, (len(clean),), generator=generator)
    output = predict(scheduler.add_noise(clean, noise, timesteps), timesteps)
    is_velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(clean, noise, timesteps) if is_velocity else noise
    if recipe.debiased:
        alphas = scheduler.alphas_cumprod[timesteps]
        weights = (alphas / (1 - alphas)).clamp(max=1000) ** -0.5
        return (functional.mse_loss(output, target, reduction="none").mean(dim=(1, 2, 3)) * weights).mean()
    if not gamma:
        return (functional.mse_loss(output, target, reduction="none") * mask).mean()
    alphas = scheduler.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    weights = torch.stack([snr, gamma * torch.ones_like(snr)]).min(dim=0)[0] / (snr + 1 if is_velocity else snr)
    errors = (functional.mse_loss(output, target, reduction="none") * mask).mean(dim=(1, 2, 3))
    return (errors * weights).mean()


@covers("train", form="folder", kind="kind")
@pytest.mark.parametrize(
    ("kind", "scripts", "how"),
    [
        ("sd", (UNET, _sd), {}),
        ("sd", (UNET, _sd), {"min_snr_gamma": 5.0, "alpha": 2.0}),
        ("sd", (UNET, _sd), {"dora": True, "steps": STEPS}),
        ("sd-text-time", (WHOLE, _sd), {}),
        ("sd2", (UNET, _sd), {"min_snr_gamma": 5.0}),
        ("sdxl", (UNET, _sdxl), {}),
        ("sd3", (SD3, _sd3), {}),
        ("flux", (FLUX, _flux), {}),
        ("chroma", (FLUX, _chroma), {}),
        ("z-image", (Z_IMAGE, _z_image), {}),
        ("z-image", (Z_IMAGE, _z_image), {"gradient_checkpointing": True}),
        ("flux2", (FLUX2, _flux2), {}),
        ("qwen-image", (QWEN, _qwen), {}),
        ("krea2", (KREA2, _krea2), {}),
        ("sd", (UNET, _sd), {"gradient_checkpointing": True}),
        ("sd", (UNET, _sd), {"noise_offset": 0.1, "multires_noise": 4, "multires_discount": 0.5, "debiased": True}),
        ("sd", (UNET, _sd), {"masked": True, "min_snr_gamma": 5.0}),
        ("flux2", (FLUX2, _flux2), {"masked": True}),
        ("sd", (UNET, _sd), {"alpha_mask": True}),
        ("sd3", (SD3, _sd3), {"timestep_sampling": "uniform", "timestep_shift": 3.0}),
        ("sd3", (SD3, _sd3), {"timestep_sampling": "mode"}),
        ("sd3", (SD3, _sd3), {"logit_mean": 0.5, "logit_std": 0.7, "noise_offset": 0.1}),
        *(
            ("sd", (UNET, _sd), {"optimizer": name})
            for name in ("prodigy", "adafactor", "lion", "schedule-free", "came")
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_ten_steps_are_those_of_a_plain_loop(
    pipelines: Callable[[str], Any],
    tmp_path: Path,
    kind: str,
    scripts: tuple[list[str], Any],
    how: dict[str, Any],
) -> None:
    pipe = pipelines(kind)
    wanted = {"steps": STEPS} | {name: value for name, value in how.items() if name != "masked"}
    train = ask(tmp_path, kind, **wanted)
    if "masked" in how or "alpha_mask" in how:
        train = with_masks(tmp_path, train, are_files="masked" in how)
    with gradients() as expected:
        losses = _loop(pipe, tmp_path, train, *scripts)
    desk = Desk(tmp_path, tmp_path)
    with gradients() as found:
        desk.train(train, pipe)
    assert desk.losses == pytest.approx(losses, rel=1e-4)
    assert len(found) == len(expected) == STEPS
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.shape for one in ours] == [one.shape for one in theirs]
        length = math.sqrt(sum(float(one.square().sum()) for one in theirs))
        apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(ours, theirs, strict=True)))
        assert length > 0
        assert apart <= 1e-3 * length
