"""`make pocket`: every stage in order; each goes on where it was stopped.

Stages: tokenizer, autoencoder, latents, words, reading, diffusion, decoder, export. `--stage` runs one.
Every ten minutes a stage keeps what it has; on a machine that others use, let it be idle's:
`chrt -i 0 nice -n 19 python -m training.pocket --threads 1 --work FOLDER`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
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
from training.pocket.autoencoder import AutoencoderRecipe
from training.pocket.concepts import HERE
from training.pocket.decoder import DecoderRecipe
from training.pocket.diffusion import DiffusionRecipe
from training.pocket.reading import ReadingRecipe
from training.pocket.words import WordsRecipe

STAGES = ("tokenizer", "autoencoder", "latents", "words", "reading", "diffusion", "decoder", "export")
SHIPPED = HERE.parents[1] / "daemon" / "craftd" / "pocket"


def main() -> None:
    options = _parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.from_shipped:
        shipped.to_checkpoints(SHIPPED, options.work)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for stage in STAGES if options.stage == "all" else (options.stage,):
        _run(stage, options, device)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.pocket", description=__doc__)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument(
        "--from-shipped", action="store_true", help="overwrite the checkpoints with the shipped weights"
    )
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where checkpoints lie")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the exported folder")
    parser.add_argument("--shards", type=int, default=40, help="of 2,000 cached views each")
    parser.add_argument("--first-shard", type=int, default=0, help="so that several processes can share the making")
    parser.add_argument("--steps", type=int, default=DiffusionRecipe.steps, help="of the diffusion stage")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=DiffusionRecipe.learning_rate,
        help="of the diffusion stage, at its highest; half of it, or less, goes on from trained weights",
    )
    parser.add_argument("--words-steps", type=int, default=WordsRecipe.steps)
    parser.add_argument("--reading-steps", type=int, default=ReadingRecipe.steps)
    parser.add_argument("--decoder-steps", type=int, default=DecoderRecipe.steps)
    parser.add_argument("--autoencoder-steps", type=int, default=AutoencoderRecipe.steps)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    return parser.parse_args()


def _run(stage: str, options: argparse.Namespace, device: torch.device) -> None:
    work: Path = options.work
    match stage:
        case "tokenizer":
            tokenizer.write(work / "tokenizer")
        case "autoencoder":
            autoencoder.train(work, replace(AutoencoderRecipe(), steps=options.autoencoder_steps), device)
        case "latents":
            latents.make_shards(
                work / "latents", _trained_vae(work, device), range(options.first_shard, options.shards), 7, device
            )
        case "words":
            words_recipe = replace(WordsRecipe(), steps=options.words_steps)
            words.train(work, _tokenizer(work), _trained_vae(work, device), words_recipe, device)
        case "reading":
            reading_recipe = replace(ReadingRecipe(), steps=options.reading_steps)
            reading.train(work, words.trained(work, _tokenizer(work)), _tokenizer(work), reading_recipe, device)
        case "diffusion":
            recipe = replace(DiffusionRecipe(), steps=options.steps, learning_rate=options.learning_rate)
            diffusion.train(work, _tokenizer(work), _scale(work), recipe, device)
        case "decoder":
            decoder_recipe = replace(DecoderRecipe(), steps=options.decoder_steps)
            decoder.train(work, _trained_vae(work, device), _drawer(work, device), decoder_recipe, device)
        case "export":
            export.export(trained_pipeline(work), work / "tokenizer", options.out)


def trained_pipeline(work: Path) -> export.StableDiffusionPipeline:
    """What the checkpoints in `work` make, in full precision on the CPU."""
    tokens = _tokenizer(work)
    vae = decoder.with_decoder(work, _trained_vae(work, torch.device("cpu")))
    return export.assemble(export.with_scale(vae, _scale(work)), diffusion.trained(work, tokens), tokens)


def _drawer(work: Path, device: torch.device) -> decoder.Drawer:
    tokens = _tokenizer(work)
    networks = diffusion.trained(work, tokens).to(device, memory_format=torch.channels_last)
    return decoder.Drawer(networks.unet, networks.text_encoder, tokens, _scale(work))


def _scale(work: Path) -> float:
    return export.latent_scale(latents.load_shard(work / "latents", 0).latents)


def _tokenizer(work: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def _trained_vae(work: Path, device: torch.device) -> AutoencoderTiny:
    vae = autoencoder.build()
    checkpoint.resume(work / "autoencoder.pt", vae=vae)
    return vae.to(device, memory_format=torch.channels_last).eval()


if __name__ == "__main__":
    main()
