"""craft lora: adapters that pictures are drawn with."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.commands import train as training
from craft_cli.connection.session import Session
from craft_cli.generate import few_steps, output
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import loras_pb2

app = new_app(
    "Train, add, list and edit LoRAs. A LoRA goes by its id, name, file name or the beginning of its sha256.",
    examples=(
        "Examples:\n  craft lora add watercolor.safetensors --weight 0.8\n"
        "  craft lora add some-org/watercolor-lora:v2.safetensors --name watercolor\n"
        "  craft generate 'a red apple' -l watercolor:0.6\n"
        "  craft lora list --model pocket --json | jq -r '.[].name'"
    ),
)

_LORA = typer.Argument(..., metavar="LORA", help="Id, name, sha256 or file name.", autocompletion=completing.loras)
_LORAS = typer.Argument(..., metavar="LORA...", help="Ids, names or hashes.", autocompletion=completing.loras)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")
_LONGEST_NOTE = 200
_FORMS = ("peft", "kohya", "comfyui")


@app.command(
    "add",
    **leaf(
        "craft lora add watercolor.safetensors --weight 0.8",
        "craft lora add some-org/watercolor-lora:v2.safetensors --name watercolor",
    ),
)
def add(
    source: str = typer.Argument(
        ..., metavar="PATH|ORG/NAME[:FILE]|LINK", help="A .safetensors file, one on the hub, or one of Civitai."
    ),
    *,
    name: str = typer.Option("", "--name", help="What to call it; as its file is called if not given."),
    weight: float = typer.Option(None, "--weight", help="How much of it, where a picture does not say; 1."),
    trigger: str = typer.Option("", "--trigger", help="Its trigger words; those in its file if not given."),
    as_json: bool = _JSON,
    quiet: bool = typer.Option(False, "-q", "--quiet", help="No progress."),
) -> None:
    """Add a LoRA: a file is used where it lies, and sent where the daemon is on another machine.

    Of Civitai: its page, its download link, civitai:ID@VERSION or its AIR identifier; CIVITAI_TOKEN is shown there.
    """
    from craft_cli.registering import importing
    from craft_cli.render import shapes

    session = Session()
    header = importing.header(source, session, name=name, weight=weight, trigger=trigger)
    lora = importing.add(session, source, header, quiet=quiet)
    if as_json:
        output.print_json(shapes.whole_lora(lora))
        _tell_kept(lora, name=name, weight=weight, trigger=trigger)
        return
    output.line(lora.name)
    _tell_kept(lora, name=name, weight=weight, trigger=trigger)
    if not quiet:
        _tell(lora)


@app.command("list", **leaf("craft lora list --model pocket --json | jq -r '.[].name'"))
def list_loras(
    model: str = typer.Option(
        "", "-m", "--model", help="Only those that fit this model.", autocompletion=completing.models
    ),
    as_json: bool = _JSON,
) -> None:
    """List LoRAs."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    loras = drawing.insist(Session(), lambda client: client.list_loras(model))
    if as_json:
        output.print_json([shapes.lora(lora) for lora in loras])
        return
    is_told = any(not lora.shared for lora in loras)
    output.print_table(
        ["id", "name", "base", "rank", "weight", "size", "trigger words", *(["for"] if is_told else [])],
        [
            [
                lora.id,
                lora.name,
                lora.base or "?",
                str(lora.rank),
                f"{lora.weight:g}",
                units.size(lora.size_bytes),
                lora.trigger,
                *(["all" if lora.shared else lora.owner] if is_told else []),
            ]
            for lora in loras
        ],
        none="no such LoRAs" if model else "no LoRAs yet; craft lora add FILE registers one",
    )


@app.command("show", **leaf("craft lora show watercolor"))
def show(lora: str = _LORA, as_json: bool = _JSON) -> None:
    """Show one LoRA: what it is for, its trigger words, and the hashes that other programs know it by."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    found = drawing.insist(Session(), lambda client: client.get_lora(lora))
    known = shapes.whole_lora(found)
    if as_json:
        output.print_json(known)
        return
    if found.preview and output.is_at_terminal():
        from craft_cli.render import terminal

        terminal.show(found.preview, even_in_tmux=False)
    metadata, fits, notes = known.pop("metadata"), known.pop("fits"), known.pop("notes")
    rows = [[_NAMES.get(field, field.replace("_", " ")), output.cell(value)] for field, value in known.items()]
    rows += [["note", note] for note in (*notes, few_steps.note((found.name, found.file_name, found.source))) if note]
    rows += [[f"in {fit['model']}", _in_model(fit)] for fit in fits]
    output.print_table(["LoRA", known["id"]], rows + [[key, _note(str(value))] for key, value in metadata.items()])


@app.command(
    "convert",
    **leaf(
        "craft lora convert watercolor --to peft -o watercolor-peft.safetensors",
        "craft lora convert it.safetensors --to comfyui -o it-comfyui.safetensors",
    ),
)
def convert(
    lora: str = typer.Argument(
        ..., metavar="LORA|FILE", help="A file, or a LoRA of this machine.", autocompletion=completing.loras
    ),
    *,
    form: str = typer.Option(
        ..., "--to", metavar="FORM", help="peft (diffusers), kohya or comfyui.", autocompletion=completing.lora_forms
    ),
    out: str = typer.Option(..., "-o", "--output", metavar="FILE", help="The new file."),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite what exists."),
) -> None:
    """Write a LoRA's file in the names that other programs read."""
    from craft_cli.connection.autostart import require_daemon_package
    from craft_cli.registering import converting

    if form not in _FORMS:
        raise CraftError("USAGE", f"--to {form} is no form", f"take {', '.join(_FORMS)}")
    output.require_name(out, "-o")
    if out == output.STDOUT:
        raise CraftError("USAGE", "-o -: weights are written to a file", "name it")
    require_daemon_package()
    output.line(converting.convert(_file_of(lora), Path(out), "--convert", form, force=force))


def _file_of(lora: str) -> Path:
    """The file itself, or that of a registered LoRA where it lies on this machine."""
    from craft_cli.generate import drawing

    if files.is_there(lora) and not files.is_folder(lora):
        return Path(lora)
    found = drawing.insist(Session(), lambda client: client.get_lora(lora))
    if not files.is_there(found.source):
        hint = "give the file itself: craft lora convert FILE"
        raise CraftError("NO_INPUT", f"the file of {found.name} is not on this machine, or is kept by the daemon", hint)
    return Path(found.source)


@app.command("edit", **leaf("craft lora edit watercolor --weight 0.6 --trigger 'wtrclr style'"))
def edit(
    lora: str = _LORA,
    *,
    name: str = typer.Option(None, "--name", help="What to call it from now on."),
    weight: float = typer.Option(None, "--weight", help="How much of it, where a picture does not say."),
    trigger: str = typer.Option(None, "--trigger", help="Its trigger words; '' for none."),
    as_json: bool = _JSON,
) -> None:
    """Change a LoRA's name, weight or trigger words."""
    from craft_protos import loras_pb2

    from craft_cli.render import shapes

    if name is None and weight is None and trigger is None:
        raise CraftError("USAGE", "what shall be changed?", "give --name, --weight or --trigger")
    request = loras_pb2.UpdateLoraRequest(lora=lora, name=name, weight=weight, trigger=trigger)
    changed = _updated(Session(), request)
    if as_json:
        output.print_json(shapes.whole_lora(changed))
    else:
        output.line(changed.name)


@app.command("share", **leaf("craft lora share watercolor"))
def share(loras: list[str] = _LORAS) -> None:
    """Let every key draw with LoRAs, as with those that an admin adds. For admins."""
    _set_shared(loras, is_shared=True)


@app.command("unshare", **leaf("craft lora unshare watercolor"))
def unshare(loras: list[str] = _LORAS) -> None:
    """Leave LoRAs to their owners: no other key sees them any more. For admins."""
    _set_shared(loras, is_shared=False)


@app.command("rm", **leaf("craft lora rm watercolor"))
def remove(loras: list[str] = _LORAS) -> None:
    """Forget LoRAs. A file that was used where it lies stays there; one that was sent is deleted."""
    from craft_cli.generate import drawing

    session = Session()
    for lora in loras:
        found = drawing.insist(session, lambda client, lora=lora: client.get_lora(lora))  # type: ignore[misc]
        session.client.delete_lora(found.id)
        output.line(found.name)


def _set_shared(loras: list[str], *, is_shared: bool) -> None:
    from craft_protos import loras_pb2

    session = Session()
    for lora in loras:
        output.line(_updated(session, loras_pb2.UpdateLoraRequest(lora=lora, shared=is_shared)).name)


def _updated(session: Session, request: loras_pb2.UpdateLoraRequest) -> loras_pb2.Lora:
    from craft_cli.generate import drawing

    return drawing.insist(session, lambda client: client.update_lora(request))


_TRAIN: dict[str, Any] = leaf(*training.EXAMPLES) | {"cls": training.Command}
app.command("train", **_TRAIN)(training.train)

_NAMES = {
    "trigger": "trigger words",
    "autov2": "AutoV2 hash",
    "ss_hash": "kohya's hash",
    "adapts_text_encoder": "text encoder",
    "has_conv": "convolutions",
    "is_dora": "DoRA",
    "size_bytes": "size",
}


def _note(text: str) -> str:
    """Of the file's metadata, which may hold whole pictures: `--json` has all of it."""
    return text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE]}… ({len(text)} characters)"


def _in_model(fit: dict[str, Any]) -> str:
    """How it fits there, and which networks it changes."""
    from craft_cli.generate import loras

    networks = ", ".join(f"{count} of the {name}" for name, count in fit["layers"].items())
    return f"{loras.fitness(fit)}; layers changed: {networks}" if networks else loras.fitness(fit)


def _tell_fits(fits: list[dict[str, Any]]) -> None:
    """Models that it fits, in whole or in part, else that it fits none."""
    told = [fit for fit in fits if fit["fits"] or fit["matched"]]
    for fit in told:
        errors.say(errors.one_line(f"craft: in {fit['model']}: {_in_model(fit)}"))
        if not fit["fits"]:
            errors.say(errors.one_line(f"craft: {fit['why_not']}"))
    if fits and not told and all(fit["total"] is not None or fit["why_not"] for fit in fits):
        errors.say("craft: it fits none of the models that are here: craft models list")


def _tell_kept(lora: loras_pb2.Lora, *, name: str, weight: float | None, trigger: str) -> None:
    """A LoRA that was registered already keeps its own settings; this says which of the asked ones it did not take."""
    is_other = weight is not None and not math.isclose(weight, lora.weight, rel_tol=1e-6)
    asked = [
        *([f"--name {shlex.quote(name)}"] if name and name != lora.name else []),
        *([f"--weight {weight:g}"] if is_other else []),
        *([f"--trigger {shlex.quote(trigger)}"] if trigger and trigger != lora.trigger else []),
    ]
    if asked:
        errors.say(f"craft: it is here already, as {lora.name}: craft lora edit {lora.id} {' '.join(asked)}")


def _tell(lora: loras_pb2.Lora) -> None:
    """On stderr, what a user wants to know next."""
    base = lora.base or "a model that its file does not name"
    errors.say(errors.one_line(f"craft: for {base}, rank {lora.rank}, {lora.layers} layers"))
    from craft_cli.render import shapes

    for note in lora.notes:
        errors.say(errors.one_line(f"craft: {note}"))
    _tell_fits([shapes.lora_fit(fit) for fit in lora.fits])
    if lora.trigger:
        errors.say(errors.one_line(f"craft: trigger words: {lora.trigger}"))
    elif tags := lora.metadata.get("ss_tag_frequency"):
        errors.say(errors.one_line(f"craft: it names no trigger words; its pictures were most often tagged {tags}"))
