"""One file, one network: whatever its form and its names, the network computes what diffusers' own of it computes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from craft_protos.reasons import CraftError
from craftd.worker.lora.layer import held_bytes
from craftd.worker.models.component_file import load_component
from craftd.worker.quantized.layers import form_of
from torch import nn

from tests import packed_files, tiny_flows, tiny_models
from tests.packed_files import Tensors
from tests.worker import original_layout
from tests.worker.packed import packed_layers, unpacked
from tests.worker.test_single_file_flux import _narrow

FP32 = torch.float32
LDM = "model.diffusion_model."


def _of(kind: str) -> Callable[[], Any]:
    def made() -> Any:
        pipe = tiny_models._MAKERS[kind]()
        return getattr(pipe, "unet", None) or pipe.transformer

    return made


NETWORKS: dict[str, Callable[[], Any]] = {
    "sd": _of("sd2"),
    "sdxl": _of("sdxl-single"),
    "sd3": _of("sd3"),
    "flux": _of("flux"),
    "z-image": _of("z-image"),
}


def _z_image_names(tensors: Tensors) -> Tensors:
    """As its makers have them: queries, keys and values in one."""
    names = [
        ("all_final_layer.2-1.", "final_layer."),
        ("all_x_embedder.2-1.", "x_embedder."),
        (".attention.to_out.0.", ".attention.out."),
        (".attention.norm_k.", ".attention.k_norm."),
        (".attention.norm_q.", ".attention.q_norm."),
    ]
    made: Tensors = {}
    for key, one in tensors.items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)  # noqa: PLW2901
        made[key] = one
    for key in [key for key in made if key.endswith(".attention.to_q.weight")]:
        each = [made.pop(key.replace("to_q", name)) for name in ("to_q", "to_k", "to_v")]
        made[key.replace("to_q", "qkv")] = torch.cat(each)
    return made


def _original(kind: str, network: nn.Module, folder: Path, tensors: Tensors) -> Tensors:
    """With the names of its makers, without a prefix."""
    if kind == "z-image":
        return _z_image_names(tensors)
    if kind == "flux":
        return original_layout._flux_transformer(tensors)
    if kind == "sd3":
        return original_layout._sd3_transformer(tensors)
    (folder.parent / "unet").mkdir()
    (folder.parent / "unet/config.json").write_text(json.dumps(dict(network.config)))  # type: ignore[arg-type]
    packed_files.save(tensors, folder.parent / "unet/it.safetensors")
    return original_layout._unet(folder.parent)


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kind, its network, and the folder of its configuration."""
    torch.manual_seed(20)
    network = NETWORKS[request.param]().eval()
    folder = tmp_path / "component"
    network.save_config(folder)
    if request.param == "flux":
        _narrow(monkeypatch, network.config.num_attention_heads * network.config.attention_head_dim)
    return request.param, network, folder


def _loaded(network: Any, folder: Path, path: Path, precision: str = "", dtype: torch.dtype = FP32) -> Any:
    return load_component(path, folder, ("diffusers", type(network).__name__), dtype, precision)


def _assert_holds(network: nn.Module, expected: Tensors) -> None:
    """Each weight, packed or not, is what the file says."""
    held = {path: layer.dense_weight() for path, layer in packed_layers(network).items()}
    own = network.state_dict()
    for name, one in expected.items():
        path = name.removesuffix(".weight")
        found = held[path] if name.endswith(".weight") and path in held else own[name]
        assert torch.allclose(found, one.reshape(found.shape), atol=1e-6), name


@pytest.mark.parametrize("prefix", ["", LDM, "diffusion_model."])
@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_numbers_in_both_layouts(case: Any, tmp_path: Path, layout: str, prefix: str) -> None:
    kind, network, folder = case
    own: Tensors = network.state_dict()
    named = own if layout == "diffusers" else _original(kind, network, folder, own)
    path = packed_files.save({prefix + name: one for name, one in named.items()}, tmp_path / "it.safetensors")
    loaded = _loaded(network, folder, path)
    assert not packed_layers(loaded)
    _assert_holds(loaded, own)
    half = _loaded(network, folder, path, dtype=torch.bfloat16)
    assert {one.dtype for one in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("form", ["cast", "scale_weight", "weight_scale"])
@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_fp8_stays_fp8_and_means_what_it_says(case: Any, tmp_path: Path, layout: str, form: str) -> None:
    kind, network, folder = case
    own: Tensors = network.state_dict()
    named = own if layout == "diffusers" else _original(kind, network, folder, own)
    given = packed_files.cast(named) if form == "cast" else packed_files.scaled(named, form, LDM)
    loaded = _loaded(network, folder, packed_files.save(given, tmp_path / "it.safetensors"))
    meant = {name.removeprefix(LDM): one for name, one in packed_files.dense(given).items()}
    if layout == "original":  # what diffusers' own loading makes of what the file stands for
        plain = packed_files.save(meant, tmp_path / "plain.safetensors")
        meant = _loaded(network, folder, plain).state_dict()
    _assert_holds(loaded, meant)
    assert form_of(loaded) == "fp8 e4m3"
    assert held_bytes([loaded]) < held_bytes([network]) * 0.7


@pytest.mark.parametrize("kind_of_blocks", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_gguf_stays_packed_and_means_what_it_says(case: Any, tmp_path: Path, layout: str, kind_of_blocks: str) -> None:
    kind, network, folder = case
    own: Tensors = network.state_dict()
    named = own if layout == "diffusers" else _original(kind, network, folder, own)
    meant = packed_files.write_gguf(named, tmp_path / "it.gguf", kind_of_blocks)
    loaded = _loaded(network, folder, tmp_path / "it.gguf")
    if layout == "original":
        plain = packed_files.save(meant, tmp_path / "plain.safetensors")
        meant = _loaded(network, folder, plain).state_dict()
    _assert_holds(loaded, meant)
    assert form_of(loaded) == kind_of_blocks


def test_precisions_pack_what_came_as_numbers(case: Any, tmp_path: Path) -> None:
    _, network, folder = case
    own: Tensors = network.state_dict()
    path = packed_files.save(own, tmp_path / "it.safetensors")
    for precision, form in (("fp8", "fp8 e4m3"), ("int8", "int8")):
        loaded = _loaded(network, folder, path, precision)
        assert form_of(loaded) == form
        for name, layer in packed_layers(loaded).items():
            weight = own[f"{name}.weight"]
            most = weight.abs().flatten(1).amax(dim=1).view(-1, *[1] * (weight.ndim - 1))
            error = (layer.dense_weight() - weight).abs()
            assert (error <= (weight.abs() / 15 + most / 448 if precision == "fp8" else most / 250)).all(), name
        assert not [name for name in packed_layers(loaded) if re.search("norm_out|pos_embed", name)]


K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS")


@pytest.mark.parametrize("kind", K_QUANTS)
def test_every_kind_of_blocks_means_what_the_gguf_package_makes_of_it(kind: str) -> None:
    """Random blocks: the package cannot write all of them."""
    import numpy as np
    from craftd.gguf import BLOCKS
    from craftd.worker.quantized.weight import BlockForm, PackedWeight
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    numbers, size = BLOCKS[kind]
    rows, blocks = 6, 3
    data = np.random.default_rng(4).integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,)}.get(kind, (0, 2) if kind in _WITH_LEAST else (0,))
    for place in scales:  # fp16 of a usual size
        data[..., place : place + 2] = (
            np.random.default_rng(place).normal(0, 0.02, (rows, blocks)).astype(np.float16)[..., None].view(np.uint8)
        )
    packed = data.reshape(rows, -1)
    expected = torch.from_numpy(dequantize(packed, GGMLQuantizationType[kind]).copy())
    weight = PackedWeight(BlockForm(kind), torch.from_numpy(packed), (rows, blocks * numbers))
    assert torch.allclose(weight.dense(torch.float32), expected, rtol=1e-5, atol=1e-6)
    half = weight.dense(torch.bfloat16).float()
    assert (half - expected).abs().max() <= expected.abs().max() / 64


_WITH_LEAST = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


def test_a_text_encoder_in_fp8(tmp_path: Path) -> None:
    folder = tiny_models.cached("flux") / "text_encoder_2"
    own = original_layout._part(tiny_models.cached("flux"), "text_encoder_2")
    given = packed_files.scaled(own)
    loaded = load_component(
        packed_files.save(given, tmp_path / "t5.safetensors"), folder, ("transformers", "T5EncoderModel"), FP32
    )
    plain = transformers.T5EncoderModel.from_pretrained(folder).eval()
    plain.load_state_dict(packed_files.dense(given), strict=False)
    ids = torch.tensor([[3, 5, 7, 1]])
    with torch.inference_mode():
        assert torch.allclose(loaded(ids)[0], plain(ids)[0], atol=1e-5)
    assert form_of(loaded) == "fp8 e4m3"
    assert not [name for name in packed_layers(loaded) if name.endswith(".wo")]  # kept as transformers keeps it


@pytest.mark.parametrize("form", ["cast", "scaled"])
@pytest.mark.parametrize("kind", ["qwen25_vl", "qwen3_vl"])
def test_a_language_model_that_sees_stays_fp8_by_the_published_names(tmp_path: Path, kind: str, form: str) -> None:
    """Its words' layers behind `model.`, what sees behind `visual.`, as ComfyUI's files have them."""
    torch.manual_seed(8)
    network = getattr(tiny_flows, kind)()
    network.config.save_pretrained(tmp_path / kind)
    inner = network.model if hasattr(network, "model") else network
    own = {f"model.{key}": one for key, one in inner.language_model.state_dict().items()}
    own |= {f"visual.{key}": one for key, one in inner.visual.state_dict().items()}
    own |= {"lm_head.weight": network.lm_head.weight} if hasattr(network, "lm_head") else {}
    given = (packed_files.scaled if form == "scaled" else packed_files.cast)(own)
    path = packed_files.save(given, tmp_path / f"{kind}.safetensors")
    loaded = load_component(path, tmp_path / kind, ("transformers", type(network).__name__), FP32)
    words = {name: one for name, one in packed_layers(loaded).items() if "language_model" in name}
    assert len(words) == 2 * 7 and form_of(loaded) == "fp8 e4m3"  # of two blocks, attention and feed-forward
    ids = torch.tensor([[3, 5, 7, 1]])
    with torch.inference_mode():
        drawn, meant = (one(ids, output_hidden_states=True).hidden_states for one in (loaded, unpacked(loaded)))
        assert torch.allclose(drawn[-1], meant[-1], atol=1e-5)
    dense = packed_files.dense(given)
    held = next(one for name, one in words.items() if name.endswith("layers.1.mlp.up_proj"))
    assert torch.allclose(held.dense_weight(), dense["model.layers.1.mlp.up_proj.weight"], atol=1e-6)


def test_an_autoencoder_is_never_packed(tmp_path: Path) -> None:
    folder = tiny_models.cached("sd") / "vae"
    tensors = original_layout._part(tiny_models.cached("sd"), "vae")
    path = packed_files.save(packed_files.cast(tensors), tmp_path / "vae.safetensors")
    loaded = load_component(path, folder, ("diffusers", "AutoencoderKL"), FP32, "fp8")
    assert not packed_layers(loaded)
    original = packed_files.save(original_layout._vae(tiny_models.cached("sd")), tmp_path / "original.safetensors")
    same = load_component(original, folder, ("diffusers", "AutoencoderKL"), FP32)
    _assert_holds(same, {name: tensors[name] for name in same.state_dict()})


def _refused(path: Path, folder: Path, kind: str = "FluxTransformer2DModel") -> CraftError:
    with pytest.raises(CraftError) as refused:
        load_component(path, folder, ("diffusers", kind), FP32)
    return refused.value


def test_what_does_not_belong_together_is_named(tmp_path: Path) -> None:
    folder = tiny_models.cached("flux") / "transformer"
    own = original_layout._part(tiny_models.cached("flux"), "transformer")
    name, scaled = "transformer_blocks.0.attn.to_q", packed_files.scaled(own)

    def refused(tensors: Tensors) -> tuple[str, str]:
        error = _refused(packed_files.save(tensors, tmp_path / "it.safetensors"), folder)
        return error.reason, error.message

    assert refused({key: one for key, one in own.items() if name not in key})[0] == "CORRUPT_FILE"
    reason, message = refused(own | {"controlnet.weight": torch.zeros(2, 2)})
    assert reason == "UNSUPPORTED_MODEL" and "controlnet.weight" in message
    reason, message = refused(own | {f"{name}.weight": torch.zeros(4, 4)})
    assert reason == "UNSUPPORTED_MODEL" and "is 4x4, not 32x32" in message
    for tensors, expected in (
        ({key: one for key, one in scaled.items() if key != f"{name}.scale_weight"}, "CORRUPT_FILE"),
        ({key: one for key, one in scaled.items() if key != f"{name}.weight"}, "CORRUPT_FILE"),
        (scaled | {f"{name}.scale_weight": torch.tensor(float("nan"))}, "NOT_FINITE"),
        (scaled | {f"{name}.scale_weight": torch.zeros(3)}, "UNSUPPORTED_MODEL"),
        (scaled | {f"{name}.scale_weight": torch.zeros(4, 8)}, "UNSUPPORTED_MODEL"),
    ):
        assert refused(tensors)[0] == expected
    other = json.dumps({"format": "nvfp4"}).encode()
    reason, message = refused(own | {f"{name}.comfy_quant": torch.tensor(list(other), dtype=torch.uint8)})
    assert reason == "UNSUPPORTED_MODEL" and "nvfp4" in message


def test_what_a_converter_would_leave_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_models.cached("flux") / "transformer"
    config = json.loads((folder / "config.json").read_text())
    _narrow(monkeypatch, config["num_attention_heads"] * config["attention_head_dim"])
    own = original_layout._flux_transformer(original_layout._part(tiny_models.cached("flux"), "transformer"))
    packed_files.save(own | {"redux_up.weight": torch.zeros(2, 2)}, tmp_path / "it.safetensors")
    error = _refused(tmp_path / "it.safetensors", folder)
    assert error.reason == "UNSUPPORTED_MODEL" and "redux_up.weight" in error.message


def test_a_kind_of_blocks_that_nothing_unpacks_is_named(tmp_path: Path) -> None:
    """TQ2_0 is of language models."""
    torch.manual_seed(1)
    packed_files.write_gguf({"a.weight": torch.randn(2, 256)}, tmp_path / "it.gguf", "TQ2_0")
    error = _refused(tmp_path / "it.gguf", tiny_models.cached("flux") / "transformer")
    assert error.reason == "UNSUPPORTED_MODEL" and "TQ2_0" in error.message
    assert diffusers.__version__  # whose functions unpack


def _llama_names(tensors: Tensors, architecture: str, blocks: int) -> Tensors:
    """By the gguf package's own table."""
    import gguf

    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, architecture), blocks)
    made: Tensors = {}
    for key, one in tensors.items():
        stem, _, last = key.rpartition(".")
        made[f"{names.get_name(stem)}.{last}"] = one
    return made


def test_a_t5_from_a_gguf_file(tmp_path: Path) -> None:
    """Of version 1.1, which is the one that pictures are drawn with: its feed-forward layers have gates."""
    torch.manual_seed(8)
    sides = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    plain = transformers.T5EncoderModel(transformers.T5Config(**sides, feed_forward_proj="gated-gelu")).eval()
    plain.config.save_pretrained(tmp_path / "t5")
    keys = [key for key in plain.state_dict() if "embed_tokens" not in key]
    named = _llama_names({key: plain.state_dict()[key] for key in keys}, "T5ENCODER", 2)
    meant = packed_files.write_gguf(named, tmp_path / "t5.gguf", "Q8_0", "t5encoder")
    loaded = load_component(tmp_path / "t5.gguf", tmp_path / "t5", ("transformers", "T5EncoderModel"), FP32)
    of = dict(zip(named, keys, strict=True))
    plain.load_state_dict({of[key]: one for key, one in meant.items()}, strict=False)
    ids = torch.tensor([[3, 5, 7, 1]])
    with torch.inference_mode():
        assert torch.allclose(loaded(ids)[0], plain(ids)[0], atol=1e-5)
    assert form_of(loaded) == "Q8_0"


def test_a_qwen3_from_a_gguf_file(tmp_path: Path) -> None:
    torch.manual_seed(8)
    config = transformers.Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    plain = transformers.Qwen3Model(config).eval()
    plain.config.save_pretrained(tmp_path / "qwen")
    own = {f"model.{key}": one for key, one in plain.state_dict().items()}
    named = _llama_names(own, "QWEN3", 2)
    meant = packed_files.write_gguf(named, tmp_path / "qwen.gguf", "Q4_0", "qwen3")
    loaded = load_component(tmp_path / "qwen.gguf", tmp_path / "qwen", ("transformers", "Qwen3Model"), FP32)
    of = dict(zip(named, plain.state_dict(), strict=True))
    plain.load_state_dict({of[key]: one for key, one in meant.items()})
    ids = torch.tensor([[3, 5, 7, 1]])
    with torch.inference_mode():
        assert torch.allclose(loaded(ids)[0], plain(ids)[0], atol=1e-5)
    assert form_of(loaded) == "Q4_0"
