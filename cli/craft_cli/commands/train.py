"""craft lora train: from pictures, of a folder or of craft's own, to a LoRA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from craft_protos import config, files
from craft_protos.reasons import CraftError
from craft_protos.train import SCHEDULES, TrainRequest

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import combining, flags, output
from craft_cli.parsing import SpokenCommand
from craft_cli.training import options

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

    from craft_cli.training.folders import Part

EXAMPLES = (
    'craft lora train rex ./rex --trigger "rex dog" -m pocket',
    'craft lora train rex ./rex --trigger "rex dog" --sample "rex dog in snow" --sample-every 100',
    'craft lora train rex ./rex --folder 3:./rex-again --trigger "rex dog" --masks ./masks',
    "craft lora train rex --config rex.toml",
    'craft lora train rex ./rex --trigger "rex dog" --plan',
    'craft lora train rex --images 3f9a4c0e,7c2b91d4,b80e63fa --trigger "rex dog"',
    "craft lora train rex --resume",
)

_IMAGES = typer.Option(
    [],
    "--images",
    metavar="ID[,ID...]",
    help="Pictures that craft has made, captioned by their prompts; may be repeated.",
    autocompletion=completing.images,
)
_FOLDERS = typer.Option(
    [],
    "--folder",
    metavar="[REPEATS:]FOLDER",
    help="Another one; 3:it takes its pictures three times an epoch; may be repeated.",
)
_SAMPLES = typer.Option([], "--sample", metavar="PROMPT", help="Draw this meanwhile; may be repeated.")


class Command(SpokenCommand):
    flags = flags.TRAIN

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        from craft_cli.training import configuring

        return super().parse_args(ctx, configuring.expanded(self, ctx, args))


@options.offered
def train(
    name: str = typer.Argument(..., metavar="NAME", help="What the LoRA is to be called."),
    folder: str = typer.Argument(
        None, metavar="FOLDER", help="Pictures, with captions if there are any: it.txt beside it.png, metadata.jsonl."
    ),
    *,
    images: list[str] = _IMAGES,
    folders: list[str] = _FOLDERS,
    masks: str = typer.Option(
        "", "--masks", metavar="FOLDER", help="Masks called as their pictures: what is black does not count."
    ),
    model: str = typer.Option("", "-m", "--model", help="Model to train it for.", autocompletion=completing.models),
    trigger: str = typer.Option("", "--trigger", help="Words that call it up; the caption of pictures without one."),
    rank: int = typer.Option(None, "--rank", help="How much it can hold: 1 to 256."),
    alpha: float = typer.Option(None, "--alpha", help="Its strength is alpha / rank; as the rank if not given."),
    steps: int = typer.Option(None, "--steps", help="Optimizer steps."),
    epochs: int = typer.Option(None, "--epochs", help="Instead of --steps: how often each picture is seen."),
    lr: float = typer.Option(None, "--lr", help="Learning rate."),
    schedule: str = typer.Option(
        "", "--schedule", metavar="NAME", help=f"Of the learning rate: {', '.join(SCHEDULES)}."
    ),
    warmup: int = typer.Option(None, "--warmup", help="Steps until the learning rate is reached."),
    batch: int = typer.Option(None, "--batch", help="Pictures a step."),
    accumulate: int = typer.Option(None, "--accumulate", help="Batches a step: as a larger --batch, in less memory."),
    resolution: int = typer.Option(None, "--resolution", help="Pixels: the side of the square that pictures fill."),
    te: bool = typer.Option(False, "--te", help="Train the text encoder too."),
    base: str = typer.Option(
        "", "--from", metavar="LORA", help="Begin with this LoRA.", autocompletion=completing.loras
    ),
    dora: bool = typer.Option(False, "--dora", help="Train a DoRA: direction and magnitude apart."),
    sample: list[str] = _SAMPLES,
    sample_file: str = typer.Option(
        "",
        "--sample-prompts",
        metavar="FILE",
        help="A --sample a line; kohya's --w, --h, --d, --s, --l, --n behind it.",
    ),
    sample_every: int = typer.Option(0, "--sample-every", metavar="STEPS", help="0: only at the end."),
    class_prompt: str = typer.Option(
        "", "--class-prompt", help="What the thing is, such as a dog: keeps the model from forgetting others."
    ),
    class_pictures: int = typer.Option(0, "--class-pictures", help="How many of the class are drawn first."),
    prior_weight: float = typer.Option(None, "--prior-weight", help="How much the class counts; 1."),
    ema: float = typer.Option(None, "--ema", metavar="DECAY", help="Keep a running mean of the weights: 0.999."),
    min_snr: float = typer.Option(None, "--min-snr", metavar="GAMMA", help="Weigh steps by their noise; 0: not."),
    caption_dropout: float = typer.Option(None, "--caption-dropout", help="Part of steps without a caption: 0.05."),
    flip: bool = typer.Option(False, "--flip", help="Mirror pictures at random; not for faces or letters."),
    seed: int = typer.Option(None, "--seed", help="Same seed, same LoRA; random if not given."),
    checkpointing: bool = typer.Option(
        None, "--gradient-checkpointing/--no-gradient-checkpointing", help="Less memory, more time."
    ),
    checkpoint_every: int = typer.Option(
        0, "--checkpoint-every", metavar="STEPS", show_default=False, help="How much a crash may cost."
    ),
    file_format: str = typer.Option("", "--format", metavar="peft|kohya", help="The file's layout: peft."),
    config_file: str = typer.Option(
        "",
        "--config",
        metavar="FILE",
        help="Options from a TOML file: craft's own names, or kohya's; those beside it win.",
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the last training of that name, or with that job."),
    when_idle: bool = typer.Option(False, "--when-idle", help="Only while nothing is drawn."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Leave out what cannot be trained on."),
    plan: bool = typer.Option(False, "--plan", help="Send the pictures and say what would be done; train nothing."),
    detach: bool = typer.Option(False, "--detach", help="Do not wait: print the job's id."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object an event on stdout."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress."),
    **rows: Any,
) -> None:
    """Train a LoRA on a folder of pictures. Ctrl-C cancels; --resume goes on from the last checkpoint."""
    from craft_cli.generate.delivery import Manner
    from craft_cli.training import training

    if steps is not None and epochs is not None:
        raise CraftError("USAGE", "--steps does not go with --epochs", "give one of them")
    if prior_weight is not None and not class_prompt and not resume:
        raise CraftError("USAGE", "--prior-weight: of which class?", "give --class-prompt 'a dog', say")
    combining.refuse(
        {"--resume": resume, "--skip-bad": skip_bad},
        ("--resume", "--skip-bad", "the pictures were sent when it began"),
    )
    sample = [*sample, *(_prompts(sample_file) if sample_file else [])]
    if sample_every and not sample:
        raise CraftError("USAGE", "--sample-every: what shall be drawn?", "give --sample 'a prompt'")
    asked = TrainRequest(
        name=name,
        model=model,
        trigger=trigger,
        rank=_count(rank, "--rank"),
        alpha=alpha,
        steps=_count(steps, "--steps"),
        epochs=_count(epochs, "--epochs"),
        learning_rate=lr,
        learning_rate_schedule=schedule.lower(),
        warmup_steps=_count(warmup, "--warmup"),
        batch_size=_count(batch, "--batch"),
        gradient_accumulation=_count(accumulate, "--accumulate"),
        resolution=_count(resolution, "--resolution"),
        train_text_encoder=te,
        dora=dora,
        base_lora=base,
        sample_prompts=tuple(sample),
        sample_every=_count(sample_every, "--sample-every") or 0,
        class_prompt=class_prompt,
        class_pictures=_count(class_pictures, "--class-pictures") or 0,
        prior_weight=prior_weight,
        ema_decay=ema,
        min_snr_gamma=min_snr,
        caption_dropout=caption_dropout,
        flip=flip,
        seed=_seed(seed),
        gradient_checkpointing=checkpointing,
        checkpoint_every=_count(checkpoint_every, "--checkpoint-every") or 0,
        format=file_format.lower(),
        when_idle=when_idle,
        **options.chosen(rows),
    )
    session, manner = Session(), Manner(as_json=as_json, quiet=quiet)
    if resume:
        asked = _resumed(asked, bool(folder or folders or masks or images))
    else:
        asked = replace(asked, model=model or config.load(session.paths.config_file).generate.model)
        parts = _parts(folder, folders, masks)
        _require_pictures(folder, images, bool(parts), name)
        dataset = training.send(session, asked, parts, images, skip_bad=skip_bad, manner=manner, is_tried=plan)
        asked = replace(asked, dataset=dataset)
    request = training.request(asked)
    if plan:
        _print_plan(training.plan(session, request), as_json=as_json)
    elif detach:
        job_id = training.submit(session, request)
        output.print_json({"job": job_id}) if as_json else output.line(job_id)
    else:
        training.attend(session, request, manner)


def _prompts(path: str) -> list[str]:
    """Reads the sample prompts of a file; what of a line means nothing here is told on stderr."""
    from craft_protos import train_samples

    from craft_cli.training import captions

    text = captions.text_of(Path(path), "--sample-prompts")
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not found:
        raise CraftError("BAD_DATA", f"{path} holds no prompts", "write one a line")
    for sentence in train_samples.ignored(found):
        errors.say(errors.one_line(f"craft: {sentence}"))
    return found


def _parts(folder: str | None, more: list[str], masks: str) -> list[Part]:
    """The folders to be read. Raises USAGE."""
    from craft_cli.training import folders

    found = [folders.asked(text) for text in [*([folder] if folder else []), *more]]
    if masks and not found:
        raise CraftError("USAGE", "--masks: of which pictures?", "give their folder")
    return [replace(one, masks=Path(masks) if masks else None) for one in found]


def _resumed(asked: TrainRequest, has_pictures: bool) -> TrainRequest:
    hint = f"craft lora train {asked.name} --resume"
    if has_pictures:
        raise CraftError("USAGE", "--resume takes the pictures that it had", hint)
    told = {field for field, value in vars(asked).items() if value != getattr(TrainRequest, field)}
    if given := [flag for field, flag in flags.TRAIN.items() if field in told - {"name", "when_idle"}]:
        raise CraftError("USAGE", f"--resume goes on as it began: leave out {', '.join(given)}", hint)
    return TrainRequest(resume=asked.name, when_idle=asked.when_idle)


def _require_pictures(folder: str | None, images: list[str], has_folders: bool, name: str) -> None:
    if folder and images and not files.is_folder(folder):
        hint = f"several ids have commas between: --images {','.join([*images, folder])}"
        raise CraftError("NO_INPUT", f"{folder} is no folder", hint)
    if not has_folders and not images:
        hint = f"craft lora train {name} FOLDER --trigger 'a few words', or --images ID for craft's own"
        raise CraftError("USAGE", "which pictures?", hint)


def _count(number: int | None, option: str) -> int | None:
    """What a message can hold; the daemon knows the limits."""
    from craft_cli.render import units

    if number is not None:
        units.require_range(number, option, 0)
    return number


def _seed(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed < 2**53:
        raise CraftError("USAGE", f"--seed must be from 0 to {2**53 - 1}, not {seed}", "leave it out for a new one")
    return seed


def _print_plan(message: jobs_pb2.JobPlan, *, as_json: bool) -> None:
    from craft_cli.generate import planning
    from craft_cli.render import shapes, units

    known = shapes.train_plan(message)
    if as_json:
        output.print_json(known)
        return
    spec = shapes.train(message.train)
    weights = "not known yet"
    if known["need_bytes"]:
        weights = f"{units.size(known['need_bytes'])} of {units.size(known['device_bytes'])} for the weights alone"
    loading = "in memory" if message.model_loaded else f"{message.load_bytes / 1e6:.0f} MB to load"
    output.print_table(
        ["plan", ""],
        [
            *[
                [field.replace("_", " "), output.cell(value)]
                for field, value in spec.items()
                if value not in ("", None, [])
            ],
            ["device", f"{message.device or 'not known yet'} (model: {loading})"],
            ["memory", weights],
            *planning.time_rows(known["pace"], "training for this model"),
            *([["the LoRA's file", f"about {units.size(known['lora_bytes'])}"]] if known["lora_bytes"] else []),
            ["trainings ahead", str(message.queue_position)],
            *[["", note] for note in message.notes],
        ],
    )
