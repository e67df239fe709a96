"""Presets of few-step LoRAs: by the names that their makers give them, and options that the command takes."""

from __future__ import annotations

import pytest
from craft_cli.commands import presets as command
from craft_cli.generate import few_steps, presets
from craft_protos import samplers
from craft_protos.reasons import CraftError


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("lcm-lora-sdxl", "lcm"),
        ("pytorch_lora_weights LCM.safetensors", "lcm"),
        ("sdxl_lightning_4step_lora.safetensors", "lightning-4"),
        ("Hyper-SDXL-8steps-lora.safetensors", "hyper-8"),
        ("Hyper-SD15-12steps-CFG-lora.safetensors", "hyper-cfg-12"),
        ("Hyper-FLUX.1-dev-16steps-lora.safetensors", "hyper-flux-16"),
        ("dmd2_sdxl_4step_lora.safetensors", "dmd2"),
        ("alimama-creative/FLUX.1-Turbo-Alpha@main:it", "flux-turbo-alpha"),
        ("Hyper-SDXL-1step-lora.safetensors", ""),
        ("hypersd", ""),
        ("Lightning over Helcmat", ""),
        ("watercolor", ""),
    ],
)
def test_names(name: str, preset: str) -> None:
    assert few_steps.of(["it", name]) == preset
    assert bool(few_steps.note(["it", name])) == bool(preset)


@pytest.mark.parametrize("name", few_steps.PRESETS)
def test_the_command_takes_them(name: str) -> None:
    told = presets.read(name, command.generate())
    assert not any(presets._complaint(command.generate(), option, value) for option, value in told.items())
    assert "sampler" not in told or samplers.canonical(str(told["sampler"])) == told["sampler"]
    with pytest.raises(CraftError, match="comes with craft"):
        presets.remove(name)


def test_dmd2_is_drawn_at_the_timesteps_that_it_was_trained_for() -> None:
    from craftd.worker.families.samplers import build, spread
    from diffusers import EulerDiscreteScheduler

    own = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    scheduler = build(samplers.canonical(str(few_steps.PRESETS["dmd2"]["sampler"])), own)
    spread(scheduler, 4)
    assert [round(float(one)) for one in scheduler.timesteps] == [999, 749, 499, 249]
