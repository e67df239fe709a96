"""pocket's training stages, in small: tokenizer, optimizer, shards, resuming."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from training.pocket import (
    autoencoder,
    checkpoint,
    decoder,
    diffusion,
    export,
    latents,
    reading,
    shipped,
    tokenizer,
    words,
)
from training.pocket.__main__ import _drawer, trained_pipeline
from training.pocket.concepts import COLORS, concepts
from training.pocket.model import build_text_encoder, build_unet
from training.pocket.muon import Muon, orthogonalised, split_parameters

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.write(folder)
    return CLIPTokenizer.from_pretrained(folder)


def test_each_word_of_the_captions_is_one_token(tokens: CLIPTokenizer) -> None:
    known = {word for c in concepts() for word in c.name.split() if word.isalpha()} | set(COLORS)
    assert not [word for word in known if len(tokens.tokenize(word)) != 1]


def test_any_text_has_tokens(tokens: CLIPTokenizer) -> None:
    text = "zyxq ümlaut 猫 2000"
    ids = tokens(text).input_ids
    assert tokens.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("shape", [(8, 64), (64, 8), (16, 16)])
def test_orthogonalised_evens_out_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.5 and values.max() < 1.3


def test_muon_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    layer, truth = torch.nn.Linear(8, 8), torch.randn(8, 8)
    optimizer = Muon(*split_parameters(layer), lr=0.02)
    for _ in range(300):
        x = torch.randn(32, 8)
        loss = (layer(x) - x @ truth.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.fixture(autouse=True)
def few_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding every icon takes longer than all the rest here."""
    some = torch.randn(len(concepts()), words.CODE_SIZE, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(words, "codes", lambda vae, device: some)


@pytest.fixture(autouse=True)
def small_denoiser(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's own computes longer than all the rest here."""
    known = {key: value for key, value in build_unet().config.items() if not key.startswith("_")}
    small = known | {"block_out_channels": (32, 32, 32), "time_embedding_dim": 64}
    for module in (diffusion, shipped):
        monkeypatch.setattr(module, "build_unet", lambda: UNet2DConditionModel(**small))


def _small_stages(folder: Path, steps: int) -> diffusion.Networks:
    vae = autoencoder.train(folder, autoencoder.AutoencoderRecipe(steps=2, pictures=4, batch=2, crop=64), CPU)
    latents.make_shards(folder / "latents", vae, range(1), seed=1, device=CPU)
    tokens = tokenizer.write(folder / "tokenizer")
    words.train(folder, tokens, vae, words.WordsRecipe(steps=2, captions=4), CPU)
    reading_recipe = reading.ReadingRecipe(steps=2, phrases=4)
    reading.train(folder, words.trained(folder, tokens), tokens, reading_recipe, CPU)
    scale = export.latent_scale(latents.load_shard(folder / "latents", 0).latents)
    recipe = replace(diffusion.DiffusionRecipe(), steps=steps, captions=2)
    return diffusion.train(folder, tokens, scale, recipe, CPU)


def test_stages_run_and_go_on_where_they_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD_VIEWS", 16)
    _small_stages(tmp_path, 2)
    _small_stages(tmp_path, 3)
    state = checkpoint.resume(tmp_path / "diffusion.pt")
    assert state.step == 3


def test_the_export_is_a_folder_that_diffusers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(latents, "SHARD_VIEWS", 16)
    _small_stages(tmp_path, 1)
    export.export(trained_pipeline(tmp_path), tmp_path / "tokenizer", tmp_path / "out")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    image = pipe("a red apple", num_inference_steps=2, width=256, height=256).images[0]
    assert image.size == (256, 256)


def test_training_goes_on_from_an_exported_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD_VIEWS", 16)
    before = _small_stages(tmp_path / "first", 1)
    export.export(trained_pipeline(tmp_path / "first"), tmp_path / "first" / "tokenizer", tmp_path / "out")
    shipped.to_checkpoints(tmp_path / "out", tmp_path / "second")
    after = diffusion.trained(tmp_path / "second", CLIPTokenizer.from_pretrained(tmp_path / "second" / "tokenizer"))
    for name, weight in before.unet.state_dict().items():
        assert torch.allclose(weight, after.unet.state_dict()[name], atol=1e-2), name


def test_the_decoder_alone_learns_and_goes_on_and_is_what_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "SHARD_VIEWS", 16)
    _small_stages(tmp_path, 1)
    before = trained_pipeline(tmp_path).vae.state_dict()
    recipe = decoder.DecoderRecipe(steps=2, pictures=2, crop=2, warm=1)
    for steps in (2, 3):
        vae = checkpointed_vae(tmp_path)
        decoder.train(tmp_path, vae, _drawer(tmp_path, CPU), replace(recipe, steps=steps), CPU)
    assert checkpoint.resume(tmp_path / "decoder.pt").step == 3
    after = trained_pipeline(tmp_path).vae.state_dict()
    moved = {name.split(".")[0] for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {"decoder"}


def checkpointed_vae(folder: Path) -> AutoencoderTiny:
    vae = autoencoder.build()
    checkpoint.resume(folder / "autoencoder.pt", vae=vae)
    return vae


def test_other_words_come_to_be_read_as_the_taught_ones_are(tokens: CLIPTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(4)
    taught = build_text_encoder(tokens)
    recipe = reading.ReadingRecipe(steps=1, phrases=16, whole_every=100)
    one = reading._pair(tokens, recipe, 32, random.Random(9))
    student = reading.train(tmp_path, copy.deepcopy(taught), tokens, recipe, CPU)
    before = sum(reading._errors(student, taught, one, CPU))
    student = reading.train(tmp_path, copy.deepcopy(taught), tokens, replace(recipe, steps=40), CPU)
    assert sum(reading._errors(student, taught, one, CPU)) < 0.8 * before


def test_a_phrase_and_its_caption_agree_where_names_end_and_after_both(tokens: CLIPTokenizer) -> None:
    pair = reading._pair(tokens, reading.ReadingRecipe(phrases=8), 32, random.Random(1))
    assert len(pair.name_rows) >= 8
    names = {name for c in concepts() for name in (c.name, *c.aliases)}
    for row, end in zip(pair.name_rows, pair.plain_ends, strict=True):
        assert tokens.decode(pair.plain[row, 1 : end + 1]).endswith(tuple(names))
    for row in range(8):
        after = pair.is_after[row]
        assert set(pair.written[row, after].tolist()) == {tokens.eos_token_id} == set(pair.plain[row, after].tolist())


def test_words_learn_what_things_look_like(tokens: CLIPTokenizer, tmp_path: Path) -> None:
    vae, recipe = autoencoder.build(), words.WordsRecipe(steps=1, captions=16, whole_every=100)
    words.train(tmp_path, tokens, vae, recipe, CPU)
    before = _code_error(tmp_path, tokens)
    words.train(tmp_path, tokens, vae, replace(recipe, steps=60), CPU)
    assert _code_error(tmp_path, tokens) < 0.9 * before


def test_of_two_things_the_sum_is_read_and_which_name_comes_first(tokens: CLIPTokenizer) -> None:
    teacher = words._Teacher(tokens, words.WordsRecipe(captions=32, unknown_word_share=0), random.Random(5))
    lesson = teacher.lesson(24)
    two = (lesson.things >= 0).all(1)
    assert 8 < int(two.sum()) < 24
    assert torch.equal(lesson.layout[:, 3] == 1, two)
    for row, thing, order in zip(lesson.name_rows, lesson.name_things, lesson.name_orders, strict=True):
        assert lesson.things[row, order] == thing
    truth = words.codes(autoencoder.build(), CPU)
    wanted = words.sums(truth, lesson.things)
    one, both = lesson.things[~two][0], lesson.things[two][0]
    assert torch.equal(wanted[~two][0], truth[one[0]])
    assert torch.allclose(wanted[two][0], (truth[both[0]] + truth[both[1]]) / 2**0.5)


def _code_error(folder: Path, tokens: CLIPTokenizer) -> float:
    """Of twenty names that stand alone."""
    reader = words.Reader(tokens)
    checkpoint.resume(folder / "words.pt", reader=reader)
    some = concepts()[:20]
    ids = tokens([c.name for c in some], padding="max_length", max_length=24, return_tensors="pt").input_ids
    with torch.inference_mode():
        states = reader.text_encoder(ids).last_hidden_state[:, -1]
        read = reader.codes(states)
    truth = words.codes(autoencoder.build(), CPU)[[c.index for c in some]]
    return float((read - truth).square().mean())
