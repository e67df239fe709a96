"""What the front tells of a checkpoint from its tensors' names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
from craft_protos.reasons import CraftError
from craftd import modular, safetensors
from craftd.architectures import detect
from craftd.architectures.rows.folders import ANIMA
from craftd.architectures.rows.unets import SDXL
from craftd.models import checkpoint, choosing, prediction
from craftd.models.choosing import INDEX

from tests.daemon.safetensors import write_checkpoint


@pytest.mark.parametrize(
    ("kind", "name", "notes", "key"),
    [
        ("sd1", "dream.safetensors", {}, "sd1"),
        ("sd2", "v2.safetensors", {}, "sd2-v"),
        ("sd2", "512-base-ema.safetensors", {}, "sd2"),
        ("sd2", "x.safetensors", {"modelspec.prediction_type": "epsilon"}, "sd2"),
        ("sd2", "base.safetensors", {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd2-v"),
        ("sd2", "robot-12000steps.safetensors", {}, "sd2-v"),
        ("sdxl", "xl.safetensors", {}, "sdxl"),
        ("sdxl-vpred", "xl.safetensors", {}, "sdxl"),
        ("sdxl-diffusers", "xl.safetensors", {}, "sdxl"),
        ("sd3-medium", "sd3.safetensors", {}, "sd3-medium"),
        ("sd3.5-medium", "sd3.safetensors", {}, "sd3.5-medium"),
        ("sd3.5-large", "sd3.safetensors", {}, "sd3.5-large"),
        ("flux-dev", "flux.safetensors", {}, "flux-dev"),
        ("flux-schnell", "flux.safetensors", {}, "flux-schnell"),
        ("flux-dev", "flux1-dev-kontext_fp8.safetensors", {}, "flux-kontext"),
        ("sd1-inpainting", "sd-v1-5-inpainting.safetensors", {}, "sd1-inpainting"),
        ("sdxl-inpainting", "it.safetensors", {}, "sdxl-inpainting"),
        ("sdxl-refiner", "sd_xl_refiner_1.0.safetensors", {}, "sdxl-refiner"),
        ("fp8-scaled", "flux.safetensors", {}, "flux-dev"),
    ],
)
def test_what_it_is(tmp_path: Path, kind: str, name: str, notes: dict[str, str], key: str) -> None:
    path = write_checkpoint(tmp_path / name, kind, metadata=notes)
    header = safetensors.read(path)
    found = detect.of_checkpoint(header, name)
    predicts = prediction.of_checkpoint(header, name, said="", architecture=found.architecture)
    assert found.checkpoint.configurations_for(predicts.kind) == key
    assert checkpoint.read(path, name="it").refused == ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("sd1-edit", "the picture-editing variant of Stable Diffusion 1"),
        ("playground", "Playground v2.5"),
        ("flux-fill", "flux-fill without the VAE and the text encoder CLIP-L and the text encoder T5"),
        ("chroma", "Chroma"),
        ("auraflow", "AuraFlow"),
        ("lora", "a LoRA, not a model"),
        ("vae", "a VAE, not a whole model"),
        ("sd1-unet-alone", "sd1 without its vae and its text_encoder"),
        ("flux-dev-bare", "flux-dev without the VAE and the text encoder CLIP-L and the text encoder T5"),
        ("sd3.5-large-bare", "sd3.5-large without the VAE"),
        ("flux-diffusers-alone", "flux-schnell without its vae"),
    ],
)
def test_what_cannot_be_drawn_with_is_named(tmp_path: Path, kind: str, said: str) -> None:
    model = checkpoint.read(write_checkpoint(tmp_path / "it.safetensors", kind), name="it")
    assert model.refused == "UNSUPPORTED_MODEL"
    assert said in model.refused_why


def test_a_qwen_image_that_edits_is_told_by_its_name(tmp_path: Path) -> None:
    """Its tensors are those of the one that draws."""
    path = write_checkpoint(tmp_path / "qwen_image_edit_2511_fp8mixed.safetensors", "qwen-image-alone")
    assert "a Qwen-Image that edits" in checkpoint.read(path, name="it").refused_why


def test_the_worker_gets_configurations_and_vocabularies_beside_the_weights(tmp_path: Path) -> None:
    model = checkpoint.read(write_checkpoint(tmp_path / "it.safetensors", "sd3.5-medium"), name="it")
    paths = {file.path for file in model.files}
    assert {checkpoint.CHECKPOINT, INDEX, "tokenizer/vocab.json", "tokenizer_2/merges.txt"} <= paths
    assert not [path for path in paths if path.startswith(("text_encoder_3/", "tokenizer_3/"))]  # it has no T5
    assert {"tokenizer_3/tokenizer.json", "text_encoder_3/config.json"} <= {
        file.path
        for file in checkpoint.read(write_checkpoint(tmp_path / "t.safetensors", "sd3-medium"), name="t").files
    }
    assert (model.sizes.granularity, model.defaults.width, model.defaults.steps) == (16, 1024, 28)


def test_the_vocabularies_carried_inside_are_the_published_ones(tmp_path: Path) -> None:
    """The ids are those in the models' documentation."""
    import json

    words = checkpoint._CARRIED / "tokenizers"
    clip = json.loads((words / "clip/vocab.json").read_text())
    assert len(clip) == 49408
    assert [clip[f"{word}</w>"] for word in ("a", "photo", "of", "cat")] == [320, 1125, 539, 2368]
    assert (clip["<|startoftext|>"], clip["<|endoftext|>"]) == (49406, 49407)
    t5 = {
        piece: number
        for number, (piece, _) in enumerate(json.loads((words / "t5/tokenizer.json").read_text())["model"]["vocab"])
    }
    assert [t5[f"\u2581{word}"] for word in ("translate", "English", "to", "German")] == [13959, 1566, 12, 2968]


_INDEX = {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
_INDEX |= {"tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": ["x", "Y"], "image_encoder": [None, None]}
_UNET = ["config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"]


def _chosen(files: list[str], *, prefers_half: bool) -> set[str]:
    names = [INDEX, "tokenizer/vocab.json", "tokenizer/merges.txt", *(f"unet/{name}" for name in files)]
    return set(choosing.of_repository(names, _INDEX, SDXL, prefers_half=prefers_half)) - set(names[:3])


def test_one_precision_is_chosen() -> None:
    others = ["diffusion_pytorch_model.bin", "model.onnx", "flax_model.msgpack", "flax_config.json", "x.safetensors.md"]
    assert _chosen(_UNET + others, prefers_half=False) == {"unet/config.json", f"unet/{_UNET[1]}"}
    assert _chosen(_UNET + others, prefers_half=True) == {"unet/config.json", f"unet/{_UNET[2]}"}
    assert _chosen(_UNET[:2], prefers_half=True) == {"unet/config.json", f"unet/{_UNET[1]}"}
    assert _chosen([_UNET[0], _UNET[2]], prefers_half=False) == {"unet/config.json", f"unet/{_UNET[2]}"}


def test_shards_come_with_their_own_index() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    halves = [name.replace("model-", "model.fp16-") for name in shards]
    indexes = ["model.safetensors.index.json", "model.safetensors.index.fp16.json"]
    everything = [*shards, *halves, *indexes]
    assert _chosen(everything, prefers_half=False) == {f"unet/{name}" for name in [*shards, indexes[0]]}
    assert _chosen(everything, prefers_half=True) == {f"unet/{name}" for name in [*halves, indexes[1]]}


def test_parts_that_are_only_pickles_are_refused_before_anything_is_fetched() -> None:
    with pytest.raises(CraftError) as caught:
        _chosen(["config.json", "diffusion_pytorch_model.bin"], prefers_half=False)
    assert caught.value.reason == "UNSAFE_FORMAT"


def test_a_modular_repository_s_parts_are_fetched_or_said_to_lie_elsewhere() -> None:
    def part(name: str) -> list[object]:
        spec = {"pretrained_model_name_or_path": "x/y", "subfolder": name, "type_hint": ["diffusers", "It"]}
        return [None, None, spec]

    index = {"_class_name": "AnimaModularPipeline", "transformer": part("transformer"), "tokenizer": part("tokenizer")}
    files = [modular.INDEX, "transformer/config.json", f"transformer/{_UNET[1]}", "block.py"]
    whole = choosing.of_repository([*files, "tokenizer/vocab.json"], index, ANIMA, prefers_half=False)
    assert set(whole) == {*files[1:3], "tokenizer/vocab.json"}
    with pytest.raises(CraftError, match=r"its tokenizer lies elsewhere: in 'x/y'"):
        choosing.of_repository(files, index, ANIMA, prefers_half=False)
