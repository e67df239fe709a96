"""`craft lora train --config`: craft's own names and kohya's. What means nothing is named; what cannot be, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from craft_cli.commands import train
from craft_cli.training import configuring, kohya
from craft_protos.reasons import CraftError
from typer._click.core import Context
from typer.main import get_command


def _command() -> Any:
    app = typer.Typer()
    app.command(cls=train.Command)(train.train)
    return get_command(app)


def _expanded(path: Path, text: str, *more: str) -> list[str]:
    path.write_text(text)
    command = _command()
    given = ["rex", "--config", str(path), *more]
    return configuring.expanded(command, Context(command), given)[: -len(given)]


KOHYAS = """
[any_section]
pretrained_model_name_or_path = "pocket"
network_module = "networks.lora"
network_dim = 8
network_alpha = 4
network_args = ["algo=locon", "conv_dim=4", "conv_alpha=2", "dora_wd=True"]
learning_rate = 1e-3
unet_lr = 1e-4
text_encoder_lr = [5e-5, 5e-5]
optimizer_type = "AdamWScheduleFree"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
lr_scheduler = "constant_with_warmup"
lr_warmup_steps = 0.1
max_train_steps = 1000
timestep_sampling = "shift"
discrete_flow_shift = 3.1
mixed_precision = "bf16"
made_up = 1
[general]
shuffle_caption = true
flip_aug = false
[[datasets]]
resolution = [512, 512]
batch_size = 3
[[datasets.subsets]]
image_dir = "a b"
num_repeats = 10
[[datasets.subsets]]
image_dir = "c"
"""


def test_kohyas_file_becomes_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = _expanded(tmp_path / "it.toml", KOHYAS, "--batch", "7")
    assert found == [
        *("--model=pocket", "--rank=8", "--alpha=4", "--network=lora", "--conv-rank=4", "--dora"),
        *("--lr=0.0001", "--te-lr=5e-05", "--te", "--optimizer=schedule-free"),
        *("--optimizer-arg=weight_decay=0.1", "--optimizer-arg=betas=0.9,0.99", "--schedule=constant", "--warmup=100"),
        *("--steps=1000", "--timestep-sampling=logit-normal", "--timestep-shift=3.1", "--shuffle-tags"),
        *("--resolution=512", "--folder=10:a b", "--folder=1:c"),
    ]
    said = capsys.readouterr().err
    assert [line.split(": ")[2] for line in said.splitlines()] == ["learning_rate", "mixed_precision", "made_up"]


def test_own_names_and_a_data_sets_own_file(tmp_path: Path) -> None:
    (tmp_path / "sets.toml").write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "a"\nnum_repeats = 2\n')
    text = f'rank = 4\ncheckpoint-every = 5\nsample = ["a", "b"]\ndataset_config = "{tmp_path / "sets.toml"}"\n'
    found = _expanded(tmp_path / "it.toml", f"{text}gradient_checkpointing = true\nflip = true\nnoise_offset = 0.1\n")
    assert found == [
        *("--rank=4", "--checkpoint-every=5", "--sample=a", "--sample=b", "--gradient-checkpointing", "--flip"),
        *("--noise-offset=0.1", "--folder=2:a"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("network_dim = 4\nrank = 8", "rank contradicts network_dim"),
        ("train_batch_size = 4\n[[datasets]]\nbatch_size = 2", "batch_size contradicts train_batch_size"),
        (
            '[[datasets]]\n[[datasets.subsets]]\nflip_aug = true\n[[datasets.subsets]]\nimage_dir = "a"',
            "flip_aug differs",
        ),
        ('optimizer_type = "DAdaptation"', "'DAdaptation' is not here"),
        ("resolution = [512, 768]", "one number"),
        ("rank = [1, 2]", "takes one value"),
        ("flip = 1", "true or false"),
        ("resume = true", "cannot stand in a file"),
        ('network_args = ["algo=boft"]', "algo=boft is not here"),
        ('network_dim = 4\nnetwork_args = ["conv_dim=4", "conv_alpha=4"]', "conv_alpha / conv_dim must be"),
        ("network_dropout = 0.1", "drops nothing"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("datasets = 3", "a list of tables"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CraftError, match=said) as error:
        _expanded(tmp_path / "it.toml", text)
    assert error.value.reason == "USAGE" and error.value.hint


def test_a_file_that_is_none(tmp_path: Path) -> None:
    command = _command()
    for path, reason in ((tmp_path / "none", "NO_INPUT"), (tmp_path, "USAGE")):
        with pytest.raises(CraftError) as error:
            configuring.expanded(command, Context(command), ["rex", f"--config={path}"])
        assert error.value.reason == reason


def test_what_kohyas_arguments_mean_are_options(tmp_path: Path) -> None:
    known = {flag for one in _command().get_params(Context(_command())) for flag in one.opts}
    assert {meant for meant in kohya.MEANT.values() if isinstance(meant, str) and meant.startswith("--")} <= known
