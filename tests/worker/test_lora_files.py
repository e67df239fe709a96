"""Every tensor of a LoRA's file is accounted for; what does not fit is refused, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos.reasons import CraftError
from craft_protos.worker_pb2 import ModelManifest
from craftd.worker.lora import match
from craftd.worker.lora.adapter import Adapter
from craftd.worker.lora.targets import Targets

from tests import tiny_loras
from tests.tiny_loras import Tensors
from tests.worker.client import WorkerProcess, pixels, provenance, submit
from tests.worker.loras import Make, put_lora, submit_with


@pytest.fixture
def read(tmp_path: Path, pipelines: Callable[[str], Any]) -> Callable[..., Adapter]:
    def from_tensors(kind: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> Adapter:
        file = tiny_loras.save(tensors, tmp_path / "it.safetensors", metadata)
        return match.read(file, Targets(pipelines(kind)), name="it", sha256="0" * 64, size_bytes=0)

    return from_tensors


@pytest.fixture
def plain(pipelines: Callable[[str], Any]) -> Tensors:
    """A good file for sd, kohya's form."""
    return tiny_loras.kohya(tiny_loras.random(pipelines("sd"), seed=1))


# What each tensor counts as


def test_every_tensor_of_a_good_file_is_used(read: Callable[..., Adapter], plain: Tensors) -> None:
    facts = read("sd", plain).facts
    assert (facts.matched, facts.total, facts.unmatched, facts.bucket) == (len(plain), len(plain), {}, 16)


@pytest.mark.parametrize(
    ("added", "unmatched"),
    [
        ({"lora_unet_nowhere.lora_down.weight": torch.ones(4, 4)}, 1),
        ({"lora_unet_nowhere.alpha": torch.tensor(1.0)}, 1),
        ({"lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0)}, 1),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.ones(4, 32, 1, 1)}, 1),
        ({"something": torch.ones(1)}, 1),
        ({f"lora_te_nowhere.lora_{part}.weight": torch.ones(4, 4) for part in ("up", "down")}, 2),
    ],
)
def test_what_has_no_place_is_unmatched(
    read: Callable[..., Adapter], plain: Tensors, added: Tensors, unmatched: int
) -> None:
    facts = read("sd", plain | added).facts
    assert (facts.matched, facts.total) == (len(plain), len(plain) + unmatched)
    assert set(facts.unmatched) == set(added)


def test_a_layer_twice_counts_once(read: Callable[..., Adapter], pipelines: Any, plain: Tensors) -> None:
    again = tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1))
    facts = read("sd", plain | again).facts
    assert (facts.matched, len(facts.unmatched)) == (len(plain), len(again))


def test_a_layer_of_another_shape_is_unmatched_as_a_whole(read: Callable[..., Adapter], plain: Tensors) -> None:
    path = next(key for key in plain if key.endswith("attn2_to_k.lora_down.weight"))
    facts = read("sd", plain | {path: torch.ones(4, 48)}).facts
    assert len(facts.unmatched) == 3
    assert path in facts.unmatched


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(read: Callable[..., Adapter], plain: Tensors, bad: float) -> None:
    name = sorted(plain)[-1]
    plain[name] = torch.full_like(plain[name], bad)
    with pytest.raises(CraftError) as caught:
        read("sd", plain)
    assert caught.value.reason == "NOT_FINITE"
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("x.oft_R.weight", "OFT"),
        ("x.ia3_l", "IA3"),
        ("x.bm.weight", "GLoRA"),
    ],
)
def test_other_kinds_are_refused_by_name(read: Callable[..., Adapter], key: str, kind: str) -> None:
    with pytest.raises(CraftError) as caught:
        read("sd", {key: torch.ones(1)})
    assert caught.value.reason == "UNSUPPORTED_LORA"
    assert kind in caught.value.message


# Names of layers


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@pytest.mark.parametrize("form", [tiny_loras.kohya, tiny_loras.sgm, tiny_loras.peft], ids=lambda form: form.__name__)
def test_every_layer_of_a_unet_has_its_names(
    read: Callable[..., Adapter], pipelines: Any, kind: str, form: Callable[..., Tensors]
) -> None:
    everything = tiny_loras.random(pipelines(kind), seed=2, conv=True, wanted=lambda _path: True)
    if form is tiny_loras.sgm:
        in_blocks = ("down_blocks", "mid_block", "up_blocks")
        everything = {key: change for key, change in everything.items() if key[1].startswith(in_blocks)}
    adapter = read(kind, form(everything))
    assert not adapter.facts.unmatched
    assert set(adapter.deltas["unet"]) == {path for _component, path in everything}


def test_flux_in_its_own_names(read: Callable[..., Adapter], pipelines: Any) -> None:
    """One layer of the original is three of diffusers', or four; the last one's halves are swapped."""
    layers = dict(pipelines("flux").transformer.named_modules())
    inner = layers["single_transformer_blocks.0.proj_mlp"].out_features
    features = layers["x_embedder"].out_features
    shapes = {
        "double_blocks_0_img_attn_qkv": (features, 3 * features),
        "double_blocks_0_txt_mlp_2": (layers["transformer_blocks.0.ff_context.net.2"].in_features, features),
        "single_blocks_0_linear1": (features, 3 * features + inner),
        "final_layer_adaLN_modulation_1": (features, 2 * features),
    }
    tensors: Tensors = {}
    for name, (inputs, outputs) in shapes.items():
        tensors[f"lora_unet_{name}.lora_down.weight"] = torch.randn(4, inputs)
        tensors[f"lora_unet_{name}.lora_up.weight"] = torch.randn(outputs, 4)
        tensors[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    adapter = read("flux", tensors)
    assert not adapter.facts.unmatched
    deltas = adapter.deltas["transformer"]
    assert len(deltas) == 3 + 1 + 4 + 1
    linear1 = tensors["lora_unet_single_blocks_0_linear1.lora_up.weight"]
    assert torch.equal(deltas["single_transformer_blocks.0.proj_mlp"].up, linear1[3 * features :])
    assert torch.equal(deltas["single_transformer_blocks.0.attn.to_k"].up, linear1[features : 2 * features])
    final = tensors["lora_unet_final_layer_adaLN_modulation_1.lora_up.weight"]
    assert torch.equal(deltas["norm_out.linear"].up, torch.cat([final[features:], final[:features]]))
    assert {delta.scale for delta in deltas.values()} == {0.5}


def test_a_form_that_only_diffusers_knows_is_traced_through_its_converter(
    read: Callable[..., Adapter], pipelines: Any
) -> None:
    """XLabs' attention processors; one tensor that its converter cannot place is still found."""
    features = pipelines("flux").transformer.x_embedder.out_features
    tensors: Tensors = {}
    for name, outputs in (("qkv_lora1", 3 * features), ("proj_lora1", features), ("proj_lora2", features)):
        tensors[f"double_blocks.0.processor.{name}.down.weight"] = torch.randn(4, features)
        tensors[f"double_blocks.0.processor.{name}.up.weight"] = torch.randn(outputs, 4)
    adapter = read("flux", tensors)
    assert (adapter.facts.matched, adapter.facts.unmatched) == (6, {})
    assert len(adapter.deltas["transformer"]) == 5
    wrong = {f"double_blocks.7.processor.proj_lora1.{part}.weight": torch.randn(4, 4) for part in ("down", "up")}
    assert set(read("flux", tensors | wrong).facts.unmatched) == set(wrong)


def test_locon_in_tucker_form(read: Callable[..., Adapter], pipelines: Any) -> None:
    conv = pipelines("sd").unet.mid_block.resnets[0].conv1
    torch.manual_seed(8)
    down, mid, up = torch.randn(4, 32, 1, 1), torch.randn(4, 4, 3, 3), torch.randn(32, 4, 1, 1)
    name = "lora_unet_mid_block_resnets_0_conv1"
    parts = {f"{name}.lora_{part}.weight": value for part, value in (("down", down), ("mid", mid), ("up", up))}
    delta = read("sd", parts).deltas["unet"]["mid_block.resnets.0.conv1"]
    x = torch.randn(1, 32, 8, 8)
    conv2d = torch.nn.functional.conv2d
    expected = conv2d(conv2d(conv2d(x, down), mid, padding=conv.padding), up)
    found = conv2d(conv2d(x, delta.down, padding=conv.padding), delta.up[..., None, None])
    assert torch.allclose(found, expected, atol=1e-3)


Renamed = Callable[[str], str]
NAMES: dict[str, tuple[str, str, Renamed]] = {
    "an adapter that diffusers named": (
        "sd",
        "unet",
        lambda key: key.replace("_A.", "_A.default_0.").replace("_B.", "_B.default_0."),
    ),
    "an adapter called style-1": (
        "sd",
        "unet",
        lambda key: key.replace("_A.", "_A.style-1.").replace("_B.", "_B.style-1."),
    ),
    "peft's UNet": ("sd", "unet", lambda key: key.replace("unet.", "base_model.model.", 1)),
    "peft's text encoder": ("sd", "text_encoder", lambda key: key.replace("text_encoder.", "base_model.model.", 1)),
    "ComfyUI's": ("sdxl", "unet", lambda key: key.replace("unet.", "diffusion_model.", 1)),
    "a checkpoint's": ("sdxl", "unet", lambda key: key.replace("unet.", "model.diffusion_model.", 1)),
    "LyCORIS' wrapper's": ("sd", "unet", lambda key: _flat("lycoris", key.removeprefix("unet."))),
    "kohya's for transformers": (
        "sd3",
        "transformer",
        lambda key: _flat("lora_transformer", key.removeprefix("transformer.")),
    ),
    "a network's own": ("flux", "transformer", lambda key: key.removeprefix("transformer.")),
}


def _flat(prefix: str, key: str) -> str:
    path, _, part = key.partition(".lora_")
    return f"{prefix}_{path.replace('.', '_')}.lora_{part}"


@pytest.mark.parametrize("name", NAMES)
def test_names_that_programs_give(read: Callable[..., Adapter], pipelines: Any, name: str) -> None:
    """Every layer is found where it is, whatever it is called."""
    kind, component, renamed = NAMES[name]
    made = tiny_loras.random(pipelines(kind), seed=2, components=[component])
    adapter = read(kind, {renamed(key): tensor for key, tensor in tiny_loras.text_model_peft(made).items()})
    assert (adapter.facts.unmatched, set(adapter.deltas)) == ({}, {component})
    for (_, path), change in made.items():
        assert torch.equal(adapter.deltas[component][path].down, change.down)


@pytest.mark.parametrize("prefix", ["unet.", "model.diffusion_model.", "base_model.model.", ""])
def test_original_names_behind_any_prefix(read: Callable[..., Adapter], pipelines: Any, prefix: str) -> None:
    features = pipelines("sdxl").unet.get_submodule("down_blocks.1.attentions.0.proj_in").in_channels
    path = f"{prefix}input_blocks.3.1.proj_in"
    tensors = {f"{path}.lora_A.weight": torch.randn(4, features), f"{path}.lora_B.weight": torch.randn(features, 4)}
    adapter = read("sdxl", tensors)
    assert (adapter.facts.unmatched, list(adapter.deltas["unet"])) == ({}, ["down_blocks.1.attentions.0.proj_in"])


def test_two_adapters_of_one_layer_are_not_guessed_between(read: Callable[..., Adapter], pipelines: Any) -> None:
    one = tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1))
    two = {key.replace(".weight", ".other.weight"): tensor for key, tensor in one.items()}
    facts = read("sd", one | two).facts
    assert set(facts.unmatched) == set(two)
    assert "a second change of" in facts.unmatched[next(iter(two))]


# What changes nothing, and what is no change of a layer


def test_a_layer_of_rank_0_is_no_change(read: Callable[..., Adapter], plain: Tensors) -> None:
    path = "lora_unet_mid_block_attentions_0_proj_in"
    nothing = {f"{path}.lora_down.weight": torch.ones(0, 32, 1, 1), f"{path}.lora_up.weight": torch.ones(32, 0, 1, 1)}
    adapter = read("sd", plain | nothing | {f"{path}.alpha": torch.tensor(1.0)})
    assert adapter.facts.unmatched == {}
    assert set(adapter.deltas["unet"]) == set(read("sd", plain).deltas["unet"])


def test_a_bundled_embedding_is_one_while_the_lora_is_used(
    worker: WorkerProcess, sd: ModelManifest, files: Path, tmp_path: Path, plain: Tensors
) -> None:
    """As the LoRA and a file of the embedding draw together; what is for another text encoder is named."""
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    lora, embedding = (
        put_lora(tiny_loras.save(one, tmp_path / f"{name}.safetensors"), files)
        for name, one in (("alone", plain), ("sks", {"emb_params": vectors}))
    )
    other = plain | {"bundle_emb.sks.string_to_param.*": vectors}
    bundle = put_lora(tiny_loras.save(other, tmp_path / "bundle.safetensors"), files)
    prompt = {"prompt": "a cat, sks"}
    (expected,) = worker.draw(submit_with(sd, [(lora, 0.8), (embedding, 1.0)], **prompt))
    (drawn,), (without,) = (worker.draw(submit_with(sd, [(one, 0.8)], **prompt)) for one in (bundle, lora))
    assert np.abs(pixels(drawn) - pixels(expected)).max() <= 1
    assert np.abs(pixels(drawn) - pixels(without)).max() > 4
    of_t5 = tiny_loras.save(plain | {"bundle_emb.sks.t5": vectors}, tmp_path / "t5.safetensors")
    failed = worker.fail(submit_with(sd, [(put_lora(of_t5, files), 1.0)]))
    assert failed.error.reason == "LORA_MISMATCH"
    assert "the bundled embedding 'sks', which craft does not apply" in failed.error.message


# Metadata


def test_metadata_is_no_configuration(read: Callable[..., Adapter], plain: Tensors) -> None:
    """A pattern that would run for hours, a depth that ends the parser, a number that is none."""
    hostile = [
        json.dumps({"unet.target_modules": "(a+)+$" * 50, "unet.lora_alpha": "nan", "unet.r": 10**30}),
        "[" * 100_000,
        '{"unet.lora_alpha": -1}',
        "x" * 2_000_000,
    ]
    for text in hostile:
        adapter = read("sd", plain, {"lora_adapter_metadata": text})
        assert {delta.scale for delta in adapter.deltas["unet"].values()} == {1.0}


def test_an_alpha_that_diffusers_saved_beside_the_tensors_counts(read: Callable[..., Adapter], pipelines: Any) -> None:
    tensors = tiny_loras.peft(tiny_loras.random(pipelines("sd"), seed=1, rank=4))
    for metadata, scale in (({"unet.lora_alpha": 8}, 2.0), ({"unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0)):
        adapter = read("sd", tensors, {"lora_adapter_metadata": json.dumps(metadata)})
        assert {delta.scale for delta in adapter.deltas["unet"].values()} == {scale}


# Through the worker


def test_a_lora_for_another_base_is_a_mismatch_with_both_names(
    worker: WorkerProcess, models: dict[str, ModelManifest], make: Make
) -> None:
    lora = make("flux", "of-flux", seed=3)
    for skip in (False, True):
        failed = worker.fail(submit_with(models["sd"], [(lora, 1.0)], skip=skip))
        assert failed.error.reason == "LORA_MISMATCH"
        assert "flux-of-flux" in failed.error.message and "model sd" in failed.error.message
        assert "0 of " in failed.error.message


def test_a_lora_that_fits_in_part_is_drawn_only_if_asked_to(
    worker: WorkerProcess, sd: ModelManifest, files: Path, tmp_path: Path, plain: Tensors
) -> None:
    whole = put_lora(tiny_loras.save(plain, tmp_path / "whole.safetensors"), files)
    extra = {f"lora_unet_nowhere.lora_{part}.weight": torch.ones(4, 4) for part in ("down", "up")}
    part = put_lora(tiny_loras.save(plain | extra, tmp_path / "part.safetensors"), files)
    failed = worker.fail(submit_with(sd, [(part, 1.0)]))
    assert failed.error.reason == "LORA_MISMATCH"
    assert f"{len(plain)} of {len(plain) + 2} tensors" in failed.error.message
    assert "lora_unet_nowhere.lora_down.weight" in failed.error.message
    drawn, expected = worker.draw(submit_with(sd, [(part, 1.0)], "a", skip=True), submit_with(sd, [(whole, 1.0)], "b"))
    (told,) = provenance(drawn)["loras"]
    assert (told["matched"], told["total"]) == (len(plain), len(plain) + 2)
    assert abs(pixels(drawn) - pixels(expected)).max() <= 1


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"", b"\xff" * 64])
def test_a_file_that_is_none(
    worker: WorkerProcess, sd: ModelManifest, files: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    failed = worker.fail(submit_with(sd, [(put_lora(tmp_path / "bad.safetensors", files), 1.0)]))
    assert (failed.error.reason, "bad" in failed.error.message) == ("CORRUPT_FILE", True)
    worker.draw(submit(sd))


@pytest.mark.parametrize(("sha256", "reason"), [("0" * 64, "CORRUPT_FILE"), ("../secret", "UNSAFE_PATH")])
def test_a_file_that_is_not_in_the_store(
    worker: WorkerProcess, sd: ModelManifest, make: Make, sha256: str, reason: str
) -> None:
    sent = submit_with(sd, [(make("sd", "stored", seed=4), 1.0)])
    sent.dispatch.files[0].sha256 = sha256
    assert worker.fail(sent).error.reason == reason


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weights_are_numbers(worker: WorkerProcess, sd: ModelManifest, make: Make, weight: float) -> None:
    failed = worker.fail(submit_with(sd, [(make("sd", "stored", seed=4), weight)]))
    assert failed.error.reason == "INVALID_FIELD"


def test_what_the_files_say_of_their_loras(worker: WorkerProcess, sd: ModelManifest, make: Make) -> None:
    import io

    from PIL import Image

    lora = make("sd", "stored", seed=4)
    (image,) = worker.draw(submit_with(sd, [(lora, 0.8)]))
    text = Image.open(io.BytesIO(image.data)).info["parameters"]
    assert text.startswith("a red cat <lora:sd-stored:0.8>\n")
    assert f'Lora hashes: "sd-stored: {lora.file.sha256[:10]}"' in text


# Pipelines that bring their own loop


def test_a_pipeline_with_loras_of_diffusers(
    worker: WorkerProcess,
    models: dict[str, ModelManifest],
    pipelines: Callable[[str], Any],
    truth: Any,
    make: Make,
) -> None:
    """Two jobs of different LoRAs take turns step by step, and the pipeline is itself again."""
    from tests.worker.families import draw
    from tests.worker.loras import diffusers_draws

    loras = [
        [(make("lcm", f"own{i}", tiny_loras.text_model_peft, seed=200 + i, components=["unet", "text_encoder"]), 0.8)]
        for i in range(2)
    ]
    images = worker.draw(*(submit_with(models["lcm"], one, f"job{i}", sampler="") for i, one in enumerate(loras)))
    for image, one in zip(images, loras, strict=True):
        expected = diffusers_draws(pipelines("lcm"), one, truth, "lcm", sampler="")
        assert abs(pixels(image) - expected).max() <= 2
        assert abs(expected - truth("lcm", sampler="")).max() > 4
    assert abs(draw(worker, models["lcm"], sampler="") - truth("lcm", sampler="")).max() <= 1


def test_a_pipeline_without_loras_says_so(worker: WorkerProcess, models: dict[str, ModelManifest], make: Make) -> None:
    failed = worker.fail(submit_with(models["pixart"], [(make("sd", "stored", seed=4), 1.0)], sampler=""))
    assert failed.error.reason == "UNSUPPORTED_LORA"
    assert "PixArtAlphaPipeline" in failed.error.message
