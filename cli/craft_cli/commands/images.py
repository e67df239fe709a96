"""craft images: the pictures craft has made, and making them again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from craft_protos import files, formats
from craft_protos.reasons import CraftError

from craft_cli import completing
from craft_cli.confirming import confirm
from craft_cli.connection.session import Session
from craft_cli.generate import combining, loras, output, writing
from craft_cli.generate import spec as specs
from craft_cli.generate.inputs import STDIN, Pictures, Wish
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import images_pb2

app = new_app(
    "List, fetch and remove pictures; make one again from its file.",
    examples=(
        "Examples:\n  craft images list\n  craft images get 3f9a -o apple.png\n"
        "  craft images replay apple.png -o again.png\n  craft images verify apple.png\n"
        "  craft images prune --older-than 30d"
    ),
)

_ID = typer.Argument(
    ..., metavar="ID", help="A picture's id, or the beginning of it.", autocompletion=completing.images
)
_ID_OR_FILE = typer.Argument(
    ...,
    metavar="ID|FILE",
    help="A picture's id, the beginning of it, or a file; - for stdin.",
    autocompletion=completing.images,
)
_IDS = typer.Argument(
    ..., metavar="ID...", help="Pictures' ids, or the beginnings of them.", autocompletion=completing.images
)
_FILE = typer.Argument(..., metavar="FILE", help="A picture that craft made; - for stdin.")
_ANY_FILE = typer.Argument(..., metavar="FILE", help="A picture, of craft's or another program's; - for stdin.")
_OUT = typer.Option(None, "-o", "--output", metavar="PATH|PATTERN|-", help="Where it goes; as in craft generate.")
_FORCE = typer.Option(False, "-f", "--force", help="Overwrite what exists.")
_JSON = typer.Option(False, "--json", help="JSON on stdout.")
_VIEWER_S = 2.0  # in which one that cannot show a picture has ended
_QUIET = typer.Option(False, "-q", "--quiet", help="No progress.")
_MODEL = typer.Option("", "-m", "--model", help="Draw with another model.", autocompletion=completing.models)


_IMAGE = typer.Option(None, "-i", "--image", metavar="PATH|-|ID", help="What it was made from, if that is gone here.")
_MASK = typer.Option(None, "--mask", metavar="PATH|-|ID", help="Its mask, if that is gone here.")
_REFS = typer.Option(
    [], "--ref", metavar="PATH|-|ID", help="A picture that its model was shown, if that is gone here; all, in order."
)

_CONTROLS = typer.Option(
    [],
    "--control",
    metavar="KIND=PATH",
    help="A picture that a control model read, if that is gone here; all, in order.",
)


@app.command("list", **leaf("craft images list --job 3f9a", "craft images list -n 0 --json | jq -r '.[].id'"))
def list_images(
    job: str = typer.Option("", "--job", metavar="ID", help="Only this job's.", autocompletion=completing.jobs),
    limit: int = typer.Option(20, "-n", "--limit", help="How many, newest first; 0: all."),
    as_json: bool = _JSON,
) -> None:
    """List pictures, newest first."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    units.require_range(limit, "-n", 0)
    images = drawing.insist(Session(), lambda client: list(client.list_images(job, limit)))
    if as_json:
        output.print_json([shapes.image(image) for image in images])
        return
    output.print_table(
        ["id", "age", "size", "seed", "model", "prompt"],
        [
            [
                image.id,
                units.age_of(image.create_time.seconds),
                f"{image.width}x{image.height}",
                str(image.seed),
                image.model,
                image.prompt,
            ]
            for image in images
        ],
        none="no such pictures" if job else "no pictures yet; craft generate 'a red apple' makes one",
    )


@app.command("show", **leaf("craft images show 3f9a --json | jq .provenance", "craft images show ./apple.png"))
def show(picture: str = _ID_OR_FILE, as_json: bool = _JSON) -> None:
    """Show a picture and what is known of it: of one in craft's store, or what a file says of itself."""
    from craft_cli.generate import drawing, liking
    from craft_cli.render import shapes

    session = Session()
    if _is_file(picture):
        image = liking.described(picture)
    else:
        image = shapes.image(drawing.insist(session, lambda client: client.describe_image(picture)))
    if as_json:
        output.print_json(image)
        return
    if output.is_at_terminal() and picture != STDIN:
        from craft_cli.render import terminal

        terminal.show(Pictures(session).read(picture).data, even_in_tmux=False)
    recipe = image.pop("recipe", None)
    origin = image.pop("provenance") or {}
    origin = liking.shown(recipe) if recipe else {**origin, "loras": loras.shown(origin.get("loras") or [])}
    rows = [[name.replace("_", " "), output.cell(value)] for name, value in image.items() if name not in ("id", "file")]
    rows += [[name.replace("_", " "), output.cell(value)] for name, value in origin.items() if name not in image]
    output.print_table(["picture", str(image.get("id") or image.get("file"))], rows)


@app.command("open", **leaf("craft images open 3f9a", "craft images open ./apple.png"))
def open_picture(picture: str = _ID_OR_FILE) -> None:
    """Open a picture in the system's viewer."""
    from craft_cli.generate import drawing

    if picture == STDIN:
        raise CraftError("USAGE", "what comes from stdin cannot be opened", "give a picture's id, or its file")
    session, path = Session(), Path(picture)
    if not _is_file(picture):
        image = drawing.insist(session, lambda client: client.describe_image(picture))
        path = Path(tempfile.mkdtemp(prefix="craft-")) / f"{image.id}.{formats.FORMATS[_format_of(image)].extension}"
        writing.write(path, drawing.fetch(session, image), force=False)
    elif missing := files.why_not(path):
        raise CraftError(missing.reason, missing.message, missing.hint)
    if not _is_opened(path):
        if not _is_file(picture):
            shutil.rmtree(path.parent)
        hint = f"set a viewer for it (xdg-mime on Linux), or: craft images get {picture}"
        raise CraftError("OUTPUT_FAILED", f"nothing here opens {path.suffix} files", hint)
    output.line(path)


def _is_opened(path: Path) -> bool:
    """Says whether the system has a viewer for it. One that is still there after a moment shows it."""
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    try:
        null = subprocess.DEVNULL
        viewer = subprocess.Popen([opener, str(path)], stdin=null, stdout=null, stderr=null)
        return viewer.wait(_VIEWER_S) == 0
    except subprocess.TimeoutExpired:
        return True
    except OSError:
        return False


def _is_file(picture: str) -> bool:
    """A file, rather than the id of a picture in the store."""
    return picture == STDIN or "/" in picture or "." in picture or Path(picture).is_file()


@app.command("get", **leaf("craft images get 3f9a -o apple.png", "craft images get 3f9a -o - | magick - apple.gif"))
def get(image_id: str = _ID, out: str = _OUT, force: bool = _FORCE) -> None:
    """Fetch a picture's file; without -o to ./SLUG-SEED.png."""
    from craft_cli.generate import drawing

    session = Session()
    if out == output.STDOUT:
        output.refuse_terminal()
    image = drawing.insist(session, lambda client: client.describe_image(image_id))
    target = output.target(out, many=False, file_format=_format_of(image), force=force)
    path = target.path(_picture(image))
    target.check([_picture(image)])
    data = drawing.fetch(session, image)
    if target.is_stdout:
        output.write_stdout(data)
        return
    writing.write(path, data, force=force)
    output.line(path)


@app.command("rm", **leaf("craft images rm 3f9a"))
def remove(image_ids: list[str] = _IDS) -> None:
    """Remove pictures from craft's store; files that were fetched stay."""
    from craft_cli.generate import drawing

    session = Session()
    for image_id in image_ids:
        image = drawing.insist(session, lambda client, wanted=image_id: client.describe_image(wanted))  # type: ignore[misc]
        session.client.delete_image(image.id)
        output.line(image.id)


@app.command("prune", **leaf("craft images prune --older-than 30d --dry-run", "craft images prune --keep 100 --force"))
def prune(
    older_than: str = typer.Option("", "--older-than", metavar="AGE", help="Those older than 90s, 5m, 2h, 30d, 1w."),
    keep: int = typer.Option(None, "--keep", metavar="N", help="All but the newest N."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only list their ids."),
    force: bool = typer.Option(False, "-f", "--force", help="Do not ask."),
) -> None:
    """Remove old pictures from craft's store; files that were fetched stay."""
    from craft_cli.generate import drawing

    if not older_than and keep is None:
        raise CraftError("USAGE", "which pictures?", "give --older-than 30d, --keep 100, or both")
    units.require_range(keep or 0, "--keep", 0)
    age_s = units.age_s(older_than, "--older-than") if older_than else 0.0
    session = Session()
    images = drawing.insist(session, lambda client: list(client.list_images("", 0)))[keep or 0 :]
    doomed = [image for image in images if units.age_s_of(image.create_time.seconds) >= age_s]
    if doomed and not dry_run and not force:
        size = units.size(sum(image.size_bytes for image in doomed))
        confirm(f"remove {units.counted(len(doomed), 'pictures')}, {size}?", "nothing was removed")
    for image in doomed:
        if not dry_run:
            session.client.delete_image(image.id)
        output.line(image.id)


@app.command("replay", **leaf("craft images replay apple.png -o again.png"))
def replay(
    file: str = _ANY_FILE,
    *,
    out: str = _OUT,
    file_format: str = typer.Option("", "--format", help="png, jpeg or webp; else as it was, or as -o is called."),
    model: str = _MODEL,
    image: str = _IMAGE,
    mask: str = _MASK,
    ref: list[str] = _REFS,
    control: list[str] = _CONTROLS,
    force: bool = _FORCE,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Make a picture again from what its file says; another program's is drawn after."""
    from craft_cli.generate import liking, remaking
    from craft_cli.generate.delivery import Manner, draw

    combining.refuse({"--json": as_json, "-o -": out == output.STDOUT}, ("--json", "-o -", "both would go to stdout"))
    if out == output.STDOUT:
        output.refuse_terminal()
    source, session = liking.read(file), Session()
    wish = Wish(image=image, mask=mask, refs=tuple(ref) or None, control=tuple(control) or None)
    if source.own is None:
        spec = liking.again(session, source, model, wish)
    else:
        spec = remaking.again(session, source.own, model, wish)
    extension = file_format or output.extension_of(out)
    if extension:
        spec = replace(spec, format=specs.format_name(extension))
    output.require_format(out, spec.format)
    target = output.target(out, many=False, file_format=spec.format, force=force)
    target.check(output.pictures(spec))
    draw(session, specs.request(spec, lease=True), target, Manner(as_json=as_json, quiet=quiet))


@app.command("verify", **leaf("craft images verify apple.png", "craft images verify apple.png --tolerance 0 --json"))
def verify(
    file: str = _FILE,
    *,
    tolerance: int = typer.Option(1, "--tolerance", metavar="N", help="Count N/255 in any channel as the same."),
    model: str = _MODEL,
    image: str = _IMAGE,
    mask: str = _MASK,
    ref: list[str] = _REFS,
    control: list[str] = _CONTROLS,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Make a picture again and compare: identical, within N/255, or different (exit 1)."""
    from craft_cli.generate import remaking
    from craft_cli.generate.delivery import Manner

    units.require_range(tolerance, "--tolerance", 0, 255)
    original = remaking.read_original(file)
    session = Session()
    wish = Wish(image=image, mask=mask, refs=tuple(ref) or None, control=tuple(control) or None)
    spec = remaking.again(session, original.provenance, model, wish)
    verdict = remaking.verify(session, original, spec, tolerance, Manner(quiet=quiet))
    if as_json:
        output.print_json({"file": file, **verdict.as_dict()})
    elif verdict.result != "different":
        output.line("identical" if verdict.result == "identical" else f"within {verdict.max_difference}/255")
    if verdict.result == "different":
        changed = "; ".join(f"{what}: {then} then, {now} now" for what, (then, now) in verdict.differences.items())
        message = f"{original.name}: different, by up to {verdict.max_difference}/255"
        hint = f"what changed: {changed}" if changed else "model, device and versions are the same: was it edited?"
        if (kept := _kept_in(verdict.differences)) is not None:
            hint += f"; craft models edit {spec.model} --precision {kept} keeps them as they were"
        raise CraftError("DIFFERENT", message, hint)


def _kept_in(differences: dict[str, list[str]]) -> str | None:
    """The precision that the model's weights were kept in, where that is another now and can be asked for."""
    then = differences["weights"][0].partition(" ")[0] if "weights" in differences else "unchanged"
    return {"": "auto", "fp8": "fp8", "int8": "int8"}.get(then)


def _picture(image: images_pb2.Image) -> output.Picture:
    return output.Picture(image.prompt, image.seed, image.index, image.index + 1, image.id, image.job_id)


def _format_of(image: images_pb2.Image) -> str:
    found = formats.of_media_type(image.media_type)
    assert found is not None, image.media_type
    return found.name
