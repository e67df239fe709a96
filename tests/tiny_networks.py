"""The parts of tiny random models: networks of a few thousand weights, and tokenizers with a handful of words."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

FEATURES = 32
_MERGES = [("a", "n"), ("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]


def unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    blocks |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    config: dict[str, Any] = {"cross_attention_dim": FEATURES, "in_channels": 4} | blocks | more
    unet = UNet2DConditionModel(
        sample_size=8,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=8,
        **config,
    )
    return unet.eval()


def autoencoder_kl(latent_channels: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        **more,
    )
    return vae.eval()


def autoencoder_tiny() -> Any:
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    )
    vae.decoder.layers[-1].weight.data *= 4  # else everything is nearly black
    vae.decoder.layers[-1].bias.data += 0.5
    return vae.eval()


def text_encoder() -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel(clip_config()).eval()


def text_encoder_with_projection(features: int = FEATURES) -> Any:
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(clip_config(projection_dim=features, hidden_size=features)).eval()


def t5_encoder(features: int, vocab_size: int = 300) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=vocab_size, d_model=features, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval()


def clip_config(**more: Any) -> Any:
    from transformers import CLIPTextConfig

    known = tokenizer()
    config: dict[str, Any] = {"hidden_size": FEATURES} | more
    return CLIPTextConfig(
        vocab_size=len(known),
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        bos_token_id=known.bos_token_id,
        eos_token_id=known.eos_token_id,
        pad_token_id=known.pad_token_id,
        **config,
    )


def tokenizer(**more: Any) -> Any:
    """CLIP's byte-pair encoding with a vocabulary of letters and a few words."""
    from transformers import CLIPTokenizer

    characters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*characters, *(f"{character}</w>" for character in characters), *("".join(pair) for pair in _MERGES)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {token: i for i, token in enumerate([*tokens, *words])}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in _MERGES)
        )
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **more)


def t5_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(code): code - 29 for code in range(32, 127)}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=letters, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=120
    )
