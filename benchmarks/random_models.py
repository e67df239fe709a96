"""Models of real sizes with random weights: what a step costs does not depend on what the weights say."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TEXT: dict[str, Any] = {  # of a language model's width, and not of its depth
    "vocab_size": 300,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 128,
}
_ARCHITECTURES = Path(__file__).parent.parent / "daemon" / "craftd" / "architectures"


def stable_diffusion() -> Path:
    """A folder in the sizes of Stable Diffusion 1.5, 4.3 GB; kept for the next time."""
    folder = Path(tempfile.gettempdir()) / f"craft-benchmark-sd1-{os.getuid()}"
    if (folder / "model_index.json").exists():
        return folder
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    place = _ARCHITECTURES / "sd1"
    shutil.copytree(place, folder, ignore=shutil.ignore_patterns("model_index.json"), dirs_exist_ok=True)
    shutil.copytree(_ARCHITECTURES / "tokenizers" / "clip", folder / "tokenizer", dirs_exist_ok=True)
    torch.manual_seed(1)
    unet: Any = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(place / "unet"))
    unet.save_pretrained(folder / "unet")
    del unet
    vae: Any = AutoencoderKL.from_config(AutoencoderKL.load_config(place / "vae"))
    vae.save_pretrained(folder / "vae")
    CLIPTextModel(CLIPTextConfig.from_pretrained(place / "text_encoder")).save_pretrained(folder / "text_encoder")
    shutil.copy(place / "model_index.json", folder)
    return folder


def published(architecture: str, device: str, precision: str) -> Path:
    """A folder of that architecture in its published sizes, made on the device, where it takes seconds; kept."""
    folder = _place(architecture)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            _make(_ARCHITECTURES / architecture, Path(beside) / "made", device, precision)
            (Path(beside) / "made").rename(folder)
    return folder


def forget(architecture: str) -> None:
    """Remove what `published` has kept."""
    shutil.rmtree(_place(architecture), ignore_errors=True)


def _place(architecture: str) -> Path:
    return Path(tempfile.gettempdir()) / f"craft-benchmark-published-{architecture}-{os.getuid()}"


def _make(place: Path, folder: Path, device: str, precision: str) -> None:
    import diffusers
    import torch
    import transformers
    from craftd.worker.process.device import DTYPES

    libraries: dict[str, Any] = {"diffusers": diffusers, "transformers": transformers}
    shutil.copytree(place, folder)
    torch.manual_seed(1)
    for part, named in json.loads((place / "model_index.json").read_text()).items():
        if part.startswith("tokenizer"):
            _put_tokenizer(named[1], folder / part)
        elif (place / part / "config.json").exists():
            kind = getattr(libraries[named[0]], named[1])
            with torch.device(device):
                if named[0] == "diffusers":
                    network = kind.from_config(kind.load_config(place / part))
                else:
                    network = kind(kind.config_class.from_pretrained(place / part))
            network.to(DTYPES[precision]).save_pretrained(folder / part)


def _put_tokenizer(kind: str, folder: Path) -> None:
    from tests import tiny_flows

    known = {"CLIPTokenizer": "clip", "T5TokenizerFast": "t5"}
    if kind in known:
        shutil.copytree(_ARCHITECTURES / "tokenizers" / known[kind], folder, dirs_exist_ok=True)
    else:
        tiny_flows.tokenizer().save_pretrained(folder)


def xl_of_parts() -> tuple[Path, Path, Path]:
    """A narrow SDXL in half precision, as it is published: a folder of 2.2 GB, and two of parts with one UNet each.

    Its text encoders take more than what is called at each step, as those of Z-Image in 8 bits and of FLUX.1 do.
    """
    root = Path(tempfile.gettempdir()) / f"craft-benchmark-parts-{os.getuid()}"
    folder, first, second = root / "folder", root / "first", root / "second"
    if not (second / "model_index.json").exists():
        _make_xl(folder)
        for number, place in enumerate((first, second)):
            _as_parts(folder, place, is_own=bool(number))
    return folder, first, second


def _make_xl(folder: Path) -> None:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    place = _ARCHITECTURES / "sdxl"
    shutil.copytree(place, folder, dirs_exist_ok=True)
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(_ARCHITECTURES / "tokenizers" / "clip", folder / part, dirs_exist_ok=True)
    torch.manual_seed(1)
    narrow = {"block_out_channels": [160, 320, 640], "transformer_layers_per_block": [1, 1, 2]}
    unets: Any = UNet2DConditionModel
    unets.from_config({**unets.load_config(place / "unet"), **narrow}).half().save_pretrained(folder / "unet")
    vaes: Any = AutoencoderKL
    vaes.from_config(vaes.load_config(place / "vae")).half().save_pretrained(folder / "vae")
    for part, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        made: Any = kind
        made(CLIPTextConfig.from_pretrained(place / part)).half().save_pretrained(folder / part)


def _as_parts(folder: Path, place: Path, *, is_own: bool) -> None:
    """Each network's file alone; `is_own`: the UNet's is another one."""
    shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors", "model_index.json"))
    for path in folder.glob("*/*.safetensors"):
        component = place / path.parent.name / "component.safetensors"
        component.symlink_to(path)
        if is_own and path.parent.name == "unet":
            component.unlink()
            shutil.copy(path, component)
            with component.open("r+b") as file:  # one number of it
                file.seek(-2, os.SEEK_END)
                file.write(b"\0\0")
    shutil.copy(folder / "model_index.json", place)


def wide(kind: str) -> Path:
    """One block of each kind of a transformer in its published width, with its own autoencoder's; kept."""
    folder = Path(tempfile.gettempdir()) / f"craft-benchmark-wide-{kind}-{os.getuid()}"
    if not folder.exists():
        import torch

        torch.manual_seed(1)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            _WIDE[kind]().save_pretrained(Path(beside) / kind)
            (Path(beside) / kind).rename(folder)
    return folder


def _z_image() -> Any:
    from diffusers import ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    from tests import tiny_flows

    pipe = tiny_flows.z_image()
    config = Qwen3Config(**_TEXT, hidden_size=2560, num_hidden_layers=2)
    pipe.register_modules(
        transformer=ZImageTransformer2DModel(n_layers=1, n_refiner_layers=1).eval(),
        text_encoder=Qwen3Model(config).eval(),
        vae=_autoencoder_kl("flux-dev"),
    )
    return pipe


def _flux2() -> Any:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from tests import tiny_flows

    pipe = tiny_flows.flux2()
    transformer = Flux2Transformer2DModel(
        num_layers=1, num_single_layers=1, num_attention_heads=24, joint_attention_dim=3 * 2560, guidance_embeds=False
    )
    config = Qwen3Config(**_TEXT, hidden_size=2560, num_hidden_layers=27)
    pipe.register_modules(
        transformer=transformer.eval(), text_encoder=Qwen3ForCausalLM(config).eval(), vae=AutoencoderKLFlux2().eval()
    )
    return pipe


def _qwen_image() -> Any:
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

    from tests import tiny_flows

    pipe = tiny_flows.qwen_image()
    transformer = QwenImageTransformer2DModel(num_layers=1, joint_attention_dim=tiny_flows.FEATURES)
    pipe.register_modules(transformer=transformer.eval(), vae=AutoencoderKLQwenImage().eval())
    return pipe


def _krea2() -> Any:
    from diffusers import AutoencoderKLQwenImage, Krea2Transformer2DModel

    from tests import tiny_flows

    pipe = tiny_flows.krea2()
    transformer = Krea2Transformer2DModel(
        num_layers=1,
        text_hidden_dim=tiny_flows.FEATURES,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=48,
    )
    pipe.register_modules(transformer=transformer.eval(), vae=AutoencoderKLQwenImage().eval())
    return pipe


def _autoencoder_kl(architecture: str) -> Any:
    from diffusers import AutoencoderKL

    vae: Any = AutoencoderKL.from_config(AutoencoderKL.load_config(_ARCHITECTURES / architecture / "vae"))
    return vae.eval()


_WIDE: dict[str, Callable[[], Any]] = {
    "z-image": _z_image,
    "flux2": _flux2,
    "qwen-image": _qwen_image,
    "krea2": _krea2,
}
