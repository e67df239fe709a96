"""Validation's losses are a plain loop's over pictures that are not learned from; samples are drawn as lines say."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from craft_protos import train_samples
from craft_protos.reasons import CraftError
from diffusers import DDPMScheduler
from PIL import Image

from tests.worker.test_training_truth import _ids, _latents
from tests.worker.trained import Desk, ask, from_checkpoint, turns

pytestmark = pytest.mark.usefixtures("quick_samples")

Pipelines = Callable[[str], Any]
SHORT = {"steps": 4, "sizes": ((64, 64),) * 5, "validation": 2.0, "validate_every": 2}


def _validated(desk: Desk) -> list[tuple[int, float]]:
    told = [frame.step for frame in desk.of("training")]
    return [(one.step, one.validation_loss) for one in told if one.HasField("validation_loss")]


def test_its_loss_is_that_of_a_plain_loop(tmp_path: Path, pipelines: Pipelines) -> None:
    """At a learning rate of next to nothing the model is what it was."""
    desk, pipe = Desk(tmp_path, tmp_path), pipelines("sd")
    train = ask(tmp_path, learning_rate=1e-9, **SHORT)
    desk.train(train, pipe)
    found = _validated(desk)
    assert [step for step, _ in found] == [2, 4]
    scheduler, latents = DDPMScheduler.from_config(pipe.scheduler.config), _latents(pipe, tmp_path, train)
    losses = []
    for number, place in enumerate(sorted(train.training.held_out(5))):
        generator = torch.Generator().manual_seed((train.training.seed ^ 0x7A11DA7E) + number)
        for _ in range(4):
            noise = torch.randn(latents[place].shape, generator=generator)
            timestep = torch.randint(0, 1000, (1,), generator=generator)
            with torch.no_grad():
                text = pipe.text_encoder(_ids(pipe.tokenizer, [train.training.caption(train.pictures[place])]))[0]
                output = pipe.unet(scheduler.add_noise(latents[place], noise, timestep), timestep, text).sample
            losses.append(float(((output - noise) ** 2).mean()))
    assert [loss for _, loss in found] == pytest.approx([np.mean(losses)] * 2, rel=1e-4)


def test_nothing_is_learned_from_what_is_kept(tmp_path: Path, pipelines: Pipelines) -> None:
    """Validation changes no step, put aside or not."""
    pipe = pipelines("sd")
    train = ask(tmp_path, checkpoint_every=2, **SHORT)
    kept = train.training.held_out(5)
    assert len(kept) == 2
    others = [one for i, one in enumerate(train.pictures) if i not in kept]
    desks = [Desk(tmp_path, tmp_path) for _ in range(3)]
    made = desks[0].train(train, pipe)
    plain = replace(train, pictures=tuple(others), spec=replace(train.training, validation=0.0, validate_every=0))
    desks[1].train(plain, pipe)
    learned = [
        [one.step.loss for one in desk.of("training") if not one.step.HasField("validation_loss")] for desk in desks
    ]
    assert learned[0] == learned[1] and len(learned[0]) == 4
    run = desks[2].begin(train, pipe)
    for count in turns(run):
        if count in (12, 15, 18):
            run.put_aside()
            run.attach(pipe)
    assert desks[2].of("lora")[-1].sha256 == made.sha256
    assert _validated(desks[2]) == _validated(desks[0])
    again = Desk(tmp_path, tmp_path)
    assert again.train(from_checkpoint(train, desks[0].of("checkpoint")[0]), pipe).sha256 == made.sha256
    assert _validated(again) == _validated(desks[0])[1:]


def test_lines_of_a_prompt_file_are_drawn_as_they_say(tmp_path: Path, pipelines: Pipelines) -> None:
    desk = Desk(tmp_path, tmp_path)
    prompts = ("a cat --w 100 --h 70 --d 7 --s 2 --l 3.5 --n a dog", "a cat --ss euler_a")
    desk.train(ask(tmp_path, steps=1, sample_prompts=prompts), pipelines("sd"))
    samples = [one.sample for one in desk.of("sample")]
    assert [(one.prompt, one.seed) for one in samples] == [(prompts[0], 7), (prompts[1], 5)]
    assert Image.open(io.BytesIO(samples[0].data)).size == (96, 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a --w 512 --n b, c", {"prompt": "a", "width": 512, "negative_prompt": "b, c"}),
        ("a -- b --x 3 --weird", {"prompt": "a -- b --x 3 --weird"}),
        ("a --ss ddim --D 4", {"prompt": "a", "seed": 4, "ignored": ("--ss ddim",)}),
        ("a --w wide", None),
        ("a --s 0", None),
        (f"a --l {'9' * 5000}", None),
    ],
)
def test_what_stands_behind_a_prompt(text: str, expected: dict[str, Any] | None) -> None:
    if expected is None:
        with pytest.raises(CraftError, match="sample_prompts"):
            train_samples.parse(text)
    else:
        assert train_samples.parse(text) == train_samples.SamplePrompt(**expected)
