"""Half precision, and networks that grow on from smaller ones, compute what they did before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn

from training.pocket import autoencoder, checkpoint, shipped
from training.pocket.model import build_unet
from training.pocket.precision import fast, fast_dtype

CPU = torch.device("cpu")


def _small_unet(channels: tuple[int, int, int] = (32, 96, 192)) -> UNet2DConditionModel:
    torch.manual_seed(1)
    known = {key: value for key, value in build_unet().config.items() if not key.startswith("_")}
    return UNet2DConditionModel(**(known | {"block_out_channels": channels}))


def _asked(unet: UNet2DConditionModel) -> Tensor:
    drawn = torch.Generator().manual_seed(2)
    noisy, text = torch.randn(2, 8, 16, 16, generator=drawn), torch.randn(2, 77, 256, generator=drawn)
    predicted: Tensor = unet(noisy, torch.tensor([100, 800]), encoder_hidden_states=text).sample
    return predicted


def test_a_denoiser_of_twice_the_width_predicts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_NOISE", 0.0)
    small = _small_unet((48, 96, 96))
    with torch.inference_mode():
        before, after = _asked(small), _asked(shipped.widened(small))
    assert torch.allclose(after, before, atol=1e-4)


def test_where_levels_grow_unlike_each_other_it_predicts_nearly_the_same() -> None:
    """Group norms over a skip take other channels together then; with a channel in a wrong place it would be 1."""
    small = _small_unet()
    with torch.inference_mode():
        before, after = _asked(small), _asked(shipped.widened(small))
    assert F.mse_loss(after, before) < 0.25 * before.var()


def test_a_decoder_that_got_deeper_draws_exactly_the_same() -> None:
    torch.manual_seed(3)
    derived = "block_out_channels"
    known = {key: value for key, value in autoencoder.build().config.items() if key[0] != "_" and key != derived}
    shallow = AutoencoderTiny(**(known | {"num_decoder_blocks": (3, 3, 2, 1, 0)}))
    deep = shipped.deepened(shallow)
    assert len(deep.decoder.layers) > len(shallow.decoder.layers)
    latents = torch.randn(1, 8, 4, 4)
    with torch.inference_mode():
        assert torch.equal(deep.decoder(latents), shallow.decoder(latents))


def test_the_fast_type_gives_nearly_the_same_gradients_in_full_precision() -> None:
    unet = _small_unet()
    exact = _gradient(unet, is_fast=False)
    quick = _gradient(unet, is_fast=True)
    assert quick.dtype == torch.float32
    assert F.cosine_similarity(exact, quick, dim=0) > 0.98
    if fast_dtype(CPU) == torch.bfloat16:
        assert not torch.equal(exact, quick)


def _gradient(unet: nn.Module, *, is_fast: bool) -> Tensor:
    unet.zero_grad()
    if is_fast:
        with fast(CPU):
            predicted = _asked(unet)
    else:
        predicted = _asked(unet)
    predicted.float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])


def test_an_autosave_is_due_once_an_interval() -> None:
    assert not checkpoint.Autosave(interval_s=1000).is_due()
    always = checkpoint.Autosave(interval_s=0)
    assert always.is_due() and always.is_due()
