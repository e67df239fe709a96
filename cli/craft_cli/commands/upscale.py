"""craft upscale: pictures, larger."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import typer
from craft_protos.generate import MOST_UPSCALE, GenerateRequest, Upscale
from craft_protos.reasons import CraftError, invalid

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import flags, output
from craft_cli.generate import spec as specs
from craft_cli.generate.delivery import Manner, draw
from craft_cli.generate.inputs import STDIN, Pictures, Wish
from craft_cli.parsing import CONTEXT, SpokenCommand

_EXAMPLES = """\b
Examples:
  craft upscale apple.png
  craft upscale apple.png --scale 2 -o large.webp
  craft upscale *.png -o large/
  craft upscale 3f9a4c0e --upscaler lanczos
  cat apple.png | craft upscale -o - | magick - apple.gif

Files go where -o says, or into this folder: apple.png becomes apple-upscaled.png.
"""

_FILES = typer.Argument(None, metavar="PATH|-|ID...", help="Pictures: files, stdin, or ids of craft's own.")

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


class Command(SpokenCommand):
    flags = flags.GENERATE | dict.fromkeys(("upscale", "upscale.scale"), "--scale")


@app.command(cls=Command, epilog=_EXAMPLES, context_settings=CONTEXT)
def upscale(
    files: list[str] = _FILES,
    *,
    scale: float = typer.Option(
        None,
        "--scale",
        metavar="TIMES",
        help=f"So many times as wide and high, up to {MOST_UPSCALE}; the upscaler's own.",
    ),
    upscaler: str = typer.Option(
        "",
        "--upscaler",
        metavar="NAME",
        help="The only one that was added, else craft's own; lanczos: none.",
        autocompletion=completing.models,
    ),
    out: str = typer.Option(None, "-o", "--output", metavar="PATH|DIR/|-", help="Where they go."),
    file_format: str = typer.Option(
        "", "--format", help="png, jpeg or webp; else as -o is called.", autocompletion=completing.formats
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a picture on stdout."),
    plan: bool = typer.Option(False, "--plan", help="Say what would be done; do nothing."),
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress."),
    show: bool = typer.Option(None, "--show/--no-show", help="The pictures inside the terminal; --show: even in tmux."),
) -> None:
    """Enlarge pictures. Nothing is drawn, and no model is needed but an upscaler."""
    if not files and (sys.stdin is None or sys.stdin.isatty()):
        raise CraftError("USAGE", "which pictures?", "craft upscale apple.png")
    files = files or [STDIN]
    if scale is not None and (complaint := specs.complaint(Upscale, "scale", scale)):
        raise invalid("upscale.scale", complaint)
    name = specs.format_name(file_format or output.extension_of(out) or "png")
    if file_format:
        output.require_format(out, name)
    session, manner = Session(), Manner(as_json=as_json, quiet=quiet, show=show)
    pictures = Pictures(session, has_progress=manner.has_progress)
    targets = [_target(file, out, name, is_one=len(files) == 1, force=force) for file in files]
    wanted = GenerateRequest(format=name, seed=0, upscale=Upscale(upscaler, scale))

    def enlarge(one: tuple[str, output.Target]) -> None:
        file, target = one
        asked = replace(pictures.attach(wanted, Wish(image=file, strength=0.0)), model="")
        if plan:
            _plan(session, pictures, asked, target, as_json=as_json)
            return
        if target.is_stdout:
            output.refuse_terminal()
        target.check(output.pictures(asked))
        pictures.send(asked)
        draw(session, specs.request(asked, lease=True), target, manner)

    if code := errors.of_each(list(zip(files, targets, strict=True)), enlarge, as_json=as_json):
        raise typer.Exit(code)


def _plan(
    session: Session, pictures: Pictures, asked: GenerateRequest, target: output.Target, *, as_json: bool
) -> None:
    from craft_cli.generate import drawing, planning

    pictures.send(asked)
    request = specs.request(asked, lease=False)
    planning.show(drawing.insist(session, lambda client: client.plan_job(request)), asked, target, as_json)


def _target(file: str, out: str | None, file_format: str, *, is_one: bool, force: bool) -> output.Target:
    """Where a picture of that file goes. Raises USAGE where several would go to one place."""
    stem = "stdin" if file == STDIN else Path(file).stem
    named = output.named(f"{stem}-upscaled", out, file_format=file_format, force=force)
    if named is not None:
        return named
    if not is_one:
        raise CraftError("USAGE", f"-o {out} takes one picture, not several", "give -o a folder: -o large/")
    return output.target(out, many=False, file_format=file_format, force=force)
