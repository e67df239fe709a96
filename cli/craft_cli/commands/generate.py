"""craft generate: from a prompt to a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from craft_protos import config, files, texts
from craft_protos.generate import GenerateRequest
from craft_protos.lora import has_tags
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import combining, enlarging, flags, foreign, inputs, output, presets, prompting, refining, slips
from craft_cli.generate import spec as specs
from craft_cli.generate.delivery import Manner, draw
from craft_cli.generate.epilog import EXAMPLES
from craft_cli.generate.inputs import STDIN, Pictures, Wish
from craft_cli.parsing import CONTEXT, SpokenCommand
from craft_cli.registering.named import Registrar

if TYPE_CHECKING:
    from craft_cli.generate.batching import Plan

_MAX_PROMPT_BYTES = 3 * 1024 * 1024  # what one message to the daemon holds
_NEW_SEEDS = 20

_WORDS = typer.Argument(None, metavar="PROMPT...", help="What to draw; - or nothing: read from stdin.")
_LORAS = typer.Option(
    [],
    "-l",
    "--lora",
    metavar="LORA[:WEIGHT]",
    help="A LoRA to apply, or its file or link, and how much (also te=, lbw=, start=, stop=: docs/loras.md).",
    autocompletion=completing.loras,
)
_REFS = typer.Option(
    [], "--ref", metavar="PATH|-|ID", help="A picture that the model is shown; may be repeated, in their order."
)
_CONTROLS = typer.Option(
    [], "--control", metavar="KIND=PATH[:SCALE]", help="A picture of where things are, such as canny=room.png:0.8."
)
_CONTROL_MODELS = typer.Option(
    [],
    "--control-model",
    metavar="NAME",
    help="What reads it: one for all, or one each.",
    autocompletion=completing.controls,
)

_SWEEPS = typer.Option(
    [], "--sweep", metavar="OPTION=A,B", help="The same picture with each of these values; may be repeated."
)

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Command(SpokenCommand):
    """Understands other programs' options, and words without quotes as one prompt."""

    flags = flags.GENERATE

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, presets.expanded(self, ctx, foreign.translated(enlarging.spelled_out(args))))


@app.command(cls=Command, epilog=EXAMPLES, context_settings=CONTEXT)
def generate(
    words: list[str] = _WORDS,
    *,
    model: str = typer.Option(
        "", "-m", "--model", help="Model to draw with, or its file or link.", autocompletion=completing.models
    ),
    lora: list[str] = _LORAS,
    preset: str = typer.Option(
        "", "--preset", metavar="NAME", help="Options kept under a name.", autocompletion=completing.presets
    ),
    like: str = typer.Option(
        "", "--like", metavar="FILE|-", help="A picture, of any program, whose settings count where none are given."
    ),
    lora_missing: str = typer.Option(
        "", "--lora-missing", metavar="fail|skip", help="What to do where a LoRA fits in part only: fail."
    ),
    trigger_words: bool = typer.Option(False, "--trigger-words", help="Add the LoRAs' trigger words to the prompt."),
    count: int = typer.Option(1, "-n", "--count", help="Number of pictures; each has the next seed."),
    width: int = typer.Option(None, "-W", "--width", help="Pixels; the model's own size if not given."),
    height: int = typer.Option(None, "-H", "--height", help="Pixels; the model's own size if not given."),
    steps: int = typer.Option(None, "-s", "--steps", help="Denoising steps."),
    guidance: float = typer.Option(None, "-g", "--guidance", help="Guidance scale; 1 turns it off."),
    negative: str = typer.Option("", "--negative", help="What not to draw."),
    seed: int = typer.Option(None, "--seed", help="Same seed, same picture; random if not given."),
    clip_skip: int = typer.Option(
        None, "--clip-skip", metavar="N", help="Read the prompt at CLIP's Nth layer from its last; 1 is the last."
    ),
    guidance_rescale: float = typer.Option(
        None, "--guidance-rescale", metavar="0-1", help="Take back guidance's overexposure; 0.7 for v-prediction."
    ),
    prompt_syntax: str = prompting.SYNTAX,
    wildcards: bool = prompting.WILDCARDS,
    true_cfg: float = prompting.TRUE_CFG,
    original_size: str = typer.Option(
        None, "--original-size", metavar="WxH", help="The size that an SDXL takes the picture to have had."
    ),
    crop: str = typer.Option(None, "--crop", metavar="LEFT,TOP", help="How much of it an SDXL takes to be cropped."),
    image: str = typer.Option(None, "-i", "--image", metavar="PATH|-|ID", help="A picture that drawing begins from."),
    strength: float = typer.Option(
        None, "--strength", metavar="0-1", help="How much of it is drawn anew: 0.8; with a mask 1."
    ),
    fit: str = typer.Option(
        None, "--fit", metavar="crop|fill|stretch", help="How it comes to another shape than its own: crop."
    ),
    mask: str = typer.Option(None, "--mask", metavar="PATH|-|ID", help="Its white is drawn anew, its black stays."),
    mask_blur: float = typer.Option(None, "--mask-blur", metavar="PX", help="How soft the mask's edges are made: 4."),
    mask_grow: int = typer.Option(None, "--mask-grow", metavar="PX", help="The white grows by this, or shrinks."),
    mask_invert: bool = typer.Option(False, "--mask-invert", help="Its black is drawn anew, its white stays."),
    mask_padding: int = typer.Option(
        None, "--mask-padding", metavar="PX", help="Draw only what is around the white, with this much more."
    ),
    ref: list[str] = _REFS,
    upscale: float = enlarging.UPSCALE,
    upscaler: str = enlarging.UPSCALER,
    hires: float = enlarging.HIRES,
    hires_strength: float = enlarging.HIRES_STRENGTH,
    hires_steps: int = enlarging.HIRES_STEPS,
    refiner: str = refining.REFINER,
    refiner_switch: float = refining.SWITCH,
    control: list[str] = _CONTROLS,
    control_model: list[str] = _CONTROL_MODELS,
    control_steps: str = typer.Option(
        None, "--control-steps", metavar="FROM..TO", help="The share of the steps in which it counts: 0..1."
    ),
    sampler: str = typer.Option("", "--sampler", help="Such as Euler a.", autocompletion=completing.samplers),
    out: str = typer.Option(None, "-o", "--output", metavar="PATH|PATTERN|-", help="Where the picture goes."),
    file_format: str = typer.Option(
        "", "--format", help="png, jpeg or webp; else as -o is called.", autocompletion=completing.formats
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a picture on stdout."),
    plan: bool = typer.Option(False, "--plan", help="Say what would be done; draw nothing."),
    detach: bool = typer.Option(False, "--detach", help="Do not wait: print the job's id."),
    deterministic: bool = typer.Option(False, "--deterministic", help="Draw alone, so that every bit can be repeated."),
    batch: str = typer.Option(None, "--batch", metavar="FILE|-", help="A prompt or a JSON object a line; JSON out."),
    sweep: list[str] = _SWEEPS,
    yes: bool = typer.Option(False, "-y", "--yes", help="Register what -m and -l name by where it lies, unasked."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress."),
    show: bool = typer.Option(None, "--show/--no-show", help="The picture inside the terminal; --show: even in tmux."),
    preview: bool = typer.Option(
        None, "--preview/--no-preview", help="Each step's picture inside the terminal, while it is drawn."
    ),
) -> None:
    """Draw pictures from a prompt."""
    _refuse_clashes(batch=batch, sweep=sweep, detach=detach, as_json=as_json, show=show, out=out)
    others = {"--batch": batch, "--sweep": sweep, "--detach": detach, "--plan": plan, "-q": quiet}
    combining.refuse(
        {"--preview": preview, **others},
        *(("--preview", other, "it is the progress of one drawing: leave one of them out") for other in others),
    )
    prompt = " ".join(words) if words else None
    slips.look_at(prompt or "")
    wish = Wish(image, strength, fit, mask, mask_blur, mask_grow, mask_invert or None, mask_padding, tuple(ref) or None)
    wish = replace(
        wish, control=tuple(control) or None, control_model=tuple(control_model) or None, control_steps=control_steps
    )
    reads_stdin = STDIN in (batch, like, prompt or ("" if like else STDIN))
    combining.refuse(
        {"--like -": like == STDIN, "--batch -": batch == STDIN, "a prompt of -": prompt == STDIN},
        *(
            ("--like -", other, "stdin is read once: give one of them a file")
            for other in ("--batch -", "a prompt of -")
        ),
    )
    inputs.refuse_clashes(wish, reads_stdin=reads_stdin, is_batch=batch is not None, is_hires=hires is not None)
    session = Session()
    whole = config.load(session.paths.config_file)
    settings, most = whole.generate, whole.limits.max_count
    here = Registrar(session, is_agreed=yes, only_plan=plan, quiet=quiet)
    wanted = GenerateRequest(
        negative_prompt=negative,
        model=here.model(model),
        width=width,
        height=height,
        steps=steps,
        guidance_scale=guidance,
        seed=seed,
        count=count,
        sampler=sampler,
        format=_format(file_format, out, settings.format),
        deterministic=deterministic,
        loras=tuple(here.lora(one) for one in lora),
        lora_missing=specs.missing_name(lora_missing),
        trigger_words=trigger_words,
        clip_skip=clip_skip,
        guidance_rescale=guidance_rescale,
        **prompting.asked(prompt_syntax, wildcards, true_cfg),
        **specs.pair("--original-size", original_size, ("original_width", "original_height"), "1024x768"),
        **specs.pair("--crop", crop, ("crop_left", "crop_top"), "64,0"),
        refiner=refining.asked(refiner, refiner_switch),
        **enlarging.asked(upscale, upscaler, hires, hires_strength, hires_steps),
    )
    if like:
        from craft_cli.generate import liking

        wanted, wish = liking.like(session, like, wanted, wish)
        prompt = prompt if batch is not None else prompt or wanted.prompt or None
    wanted = prompting.with_settings(replace(wanted, sampler=wanted.sampler or settings.sampler), settings)
    wanted = specs.with_settings(wanted, settings)
    _tell_idle(wanted, prompt or "", has_missing=bool(lora_missing and not like), is_batch=batch is not None)
    specs.require_at_most(wanted, most)
    if batch is not None or sweep:
        from craft_cli.generate import sweeping
        from craft_cli.generate.batching import Plan

        _refuse_with_batch(batch, prompt, out)
        progress = sys.stderr if Manner(quiet=quiet).has_progress else None
        how = Plan(wanted, settings.model, out, force, detach, most, progress, wish, settings.sides)
        how = replace(how, sweep=sweeping.parse(sweep), is_one=batch is None, only_plan=plan, as_json=as_json)
        raise typer.Exit(_run_batch(session, batch, prompt, how))
    wanted = specs.with_default_model(replace(wanted, prompt=_prompt(prompt)), settings.model)
    pictures = Pictures(session, has_progress=Manner(quiet=quiet).has_progress)
    wanted = specs.with_sides(pictures.attach(wanted, wish), settings.sides)
    if plan or detach:
        pictures.send(wanted)
        _without_waiting(session, wanted, _target(wanted, out, force), as_json=as_json, plan=plan)
        return
    target = _target(wanted, out, force)
    if target.is_stdout:
        output.refuse_terminal()
    wanted = _claim(wanted, target)
    request = specs.request(wanted, lease=True)
    pictures.send(wanted)
    manner = Manner(as_json, quiet, show, settings.preview if preview is None else preview)
    if preview and not manner.has_previews:
        errors.say("craft: --preview: stderr is no terminal that shows pictures")
    draw(session, request, target, manner)


def _refuse_clashes(
    *, batch: str | None, sweep: list[str], detach: bool, as_json: bool, show: bool | None, out: str | None
) -> None:
    combining.refuse(
        {
            **{"--batch": batch, "--sweep": sweep, "--detach": detach, "--json": as_json, "--show": show},
            **{"-o": out, "-o -": out == output.STDOUT},
        },
        (
            "--detach",
            "-o",
            "the pictures stay with the daemon: craft jobs show JOB names them, craft images get ID -o PATH writes one",
        ),
        ("--detach", "--show", "there is nothing to show yet"),
        ("--json", "-o -", "both would go to stdout: give -o a file, or leave --json out"),
        ("--json", "--show", "stdout carries JSON"),
        ("--show", "-o -", "stdout carries the picture"),
        ("--batch", "--show", "stdout carries JSON"),
        ("--sweep", "--show", "there are several pictures: look at their files"),
        ("--sweep", "-o -", "there are several pictures: give -o a folder or a pattern such as '{steps}.png'"),
    )


def _tell_idle(wanted: GenerateRequest, prompt: str, *, has_missing: bool, is_batch: bool) -> None:
    """Say which options do nothing here; `has_missing`: --lora-missing was given, if only with its default."""
    if wanted.negative_prompt and wanted.guidance_scale == 1:
        errors.say("craft: --negative does nothing at --guidance 1, which turns guidance off")
    if not wanted.wildcards and (found := prompting.wildcard_in(prompt)):
        errors.say(f"craft: {found} is drawn as words; --wildcards takes one of its lines")
    if is_batch or wanted.loras or has_tags(prompt) or prompt in ("", output.STDOUT):
        return
    for option, is_given in (("--trigger-words", wanted.trigger_words), ("--lora-missing", has_missing)):
        if is_given:
            errors.say(f"craft: {option} does nothing without a LoRA: -l NAME")


def _format(option: str, out: str | None, default: str) -> str:
    """--format, else what the file is called, else the configured one. Raises USAGE where they disagree."""
    extension = output.extension_of(out)
    if not option:
        return specs.format_name(extension or default)
    name = specs.format_name(option)
    output.require_format(out, name)
    return name


def _target(wanted: GenerateRequest, out: str | None, force: bool) -> output.Target:
    target = output.target(out, many=wanted.count > 1, file_format=wanted.format, force=force)
    if target.is_stdout and wanted.count > 1:
        raise CraftError("USAGE", "-o - takes one picture, not several", "give -o a pattern such as '{seed}.png'")
    return target


def _claim(wanted: GenerateRequest, target: output.Target) -> GenerateRequest:
    """The spec with a seed whose file names are free. Raises OUTPUT_* where no other seed would help."""
    for attempt in range(_NEW_SEEDS):
        seeded = specs.with_seed(wanted)
        try:
            target.check(output.pictures(seeded))
        except CraftError as error:
            if error.reason != "OUTPUT_EXISTS" or wanted.seed is not None or attempt == _NEW_SEEDS - 1:
                raise
            continue
        return seeded
    raise AssertionError("unreachable")


def _prompt(argument: str | None) -> str:
    """The argument, or stdin for `-` or where stdin is a pipe."""
    if argument not in (None, "-"):
        assert argument is not None
        return texts.unmarked(argument)
    if sys.stdin is None or (argument is None and sys.stdin.isatty()):
        raise CraftError("USAGE", "what shall be drawn?", "craft generate 'a red apple'")
    data = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
    if len(data) > _MAX_PROMPT_BYTES:
        raise CraftError("MESSAGE_TOO_BIG", f"prompt: more than {_MAX_PROMPT_BYTES} bytes on stdin", "shorten it")
    try:
        return texts.decoded(data).strip("\r\n")
    except UnicodeDecodeError as error:
        raise CraftError("BAD_DATA", "prompt: stdin is not UTF-8 text", "convert it with iconv") from error


def _without_waiting(
    session: Session, wanted: GenerateRequest, target: output.Target, *, as_json: bool, plan: bool
) -> None:
    from craft_cli.generate import drawing, planning

    seeded = specs.with_seed(wanted)
    request = specs.request(seeded, lease=False)
    if plan:
        planning.show(drawing.insist(session, lambda client: client.plan_job(request)), seeded, target, as_json)
        return
    job = drawing.submit(session, request)
    if as_json:
        output.print_json({"job": job.id})
    else:
        output.line(job.id)


def _refuse_with_batch(batch: str | None, prompt: str | None, out: str | None) -> None:
    clash = "a prompt" if prompt is not None else "-o -" if out == output.STDOUT else ""
    if batch is not None and clash:
        raise CraftError("USAGE", f"--batch does not go with {clash}", "see `craft generate --help`")


def _run_batch(session: Session, batch: str | None, prompt: str | None, how: Plan) -> int:
    """The exit code. Without a batch the prompt is its only line."""
    from craft_cli.generate.batching import Batch

    how.target(how.defaults)  # a bad pattern is found before any line
    if batch is None:
        return Batch(session, how).run([json.dumps({"prompt": _prompt(prompt)}).encode()])
    with _open_batch(batch) as lines:
        return Batch(session, how).run(lines)


def _open_batch(name: str) -> AbstractContextManager[Iterable[bytes]]:
    if name == "-":
        if sys.stdin is None:
            raise CraftError("NO_INPUT", "stdin is closed", "give --batch a file")
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise files.unreadable(name, error, "give --batch a file, or -") from error
