"""craft models: what craft can draw with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from craft_protos.reasons import CraftError

from craft_cli import completing, errors, output, units
from craft_cli.parsing import leaf, new_app
from craft_cli.session import Session

if TYPE_CHECKING:
    from craft_protos import models_pb2

app = new_app(
    "Get, list, load and remove models.",
    examples=(
        "Examples:\n  craft models pull stabilityai/stable-diffusion-xl-base-1.0 --name sdxl\n"
        "  craft models pull ORG/NAME@v1.0 --plan\n"
        "  craft models add ~/checkpoints/dream.safetensors\n"
        "  craft models alias xl sdxl\n"
        "  craft models list --json | jq -r '.[].name'"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="A model's name or alias.", autocompletion=completing.models)
_NAMES = typer.Argument(..., metavar="NAME...", help="Models' names.", autocompletion=completing.models)
_CALLED = typer.Option("", "--name", help="What to call it; made from the source if not given.")
_PLAN = typer.Option(False, "--plan", help="Only say what would be downloaded.")
_QUIET = typer.Option(False, "-q", "--quiet", help="No progress.")
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("list", **leaf("craft models list --json | jq -r '.[].name'"))
def list_models(as_json: bool = _JSON) -> None:
    """List the models that are here."""
    from craft_cli import drawing, shapes

    models = drawing.insist(Session(), lambda client: client.list_models())
    if as_json:
        output.print_json([shapes.model(model) for model in models])
        return
    output.print_table(
        ["name", "architecture", "size", "precision", "default size", "loaded on", "LoRAs", "aliases"],
        [
            [
                model.name,
                model.refused or _architecture(model),
                units.size(model.size_bytes),
                model.precision,
                f"{model.defaults.width}x{model.defaults.height}",
                ", ".join(model.loaded_on),
                ", ".join(model.loras),
                ", ".join(model.aliases),
            ]
            for model in models
        ],
    )


def _architecture(model: models_pb2.Model) -> str:
    """A generic one's is its pipeline."""
    return model.pipeline if model.family == "generic" else model.architecture


@app.command("show", **leaf("craft models show pocket"))
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show one model."""
    from craft_cli import drawing, shapes

    model = shapes.model(drawing.insist(Session(), lambda client: client.get_model(name)))
    if as_json:
        output.print_json(model)
        return
    defaults = model.pop("defaults")
    rows = [[field, output.cell(value)] for field, value in model.items()]
    output.print_table(
        ["model", name], rows + [[f"default {field}", output.cell(value)] for field, value in defaults.items()]
    )


@app.command(
    "pull",
    **leaf(
        "craft models pull stabilityai/stable-diffusion-xl-base-1.0 --name sdxl",
        "craft models pull ORG/NAME@v1.0 --plan",
    ),
)
def pull(
    source: str = typer.Argument(
        ..., metavar="ORG/NAME[@REVISION][:FILE]", help="A repository of the model hub, or one file of it."
    ),
    *,
    name: str = _CALLED,
    plan: bool = _PLAN,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Download a model from the hub into the Hugging Face cache; what is there already is used.

    Only the files that are needed. An interrupted download goes on where it was.
    HF_HOME, HF_ENDPOINT and HF_TOKEN are the daemon's.
    """
    from craft_protos import models_pb2

    from craft_cli import pulling

    request = models_pb2.ImportModelRequest(hub=pulling.remote(source), name=name, plan_only=plan)
    _tell(pulling.run(Session(), request, quiet=quiet), as_json=as_json)


@app.command("add", **leaf("craft models add ~/checkpoints/dream.safetensors --name dream"))
def add(
    path: str = typer.Argument(..., metavar="PATH", help="A diffusers folder, or a .safetensors checkpoint."),
    *,
    name: str = _CALLED,
    plan: bool = _PLAN,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Use a model where it lies: nothing is copied."""
    from craft_protos import models_pb2

    from craft_cli import pulling

    session = Session()
    request = models_pb2.ImportModelRequest(path=pulling.local(path, session), name=name, plan_only=plan)
    _tell(pulling.run(session, request, quiet=quiet), as_json=as_json)


@app.command("rm", **leaf("craft models rm sdxl"))
def remove(names: list[str] = _NAMES) -> None:
    """Unload and forget models. What craft downloaded is deleted; what was linked stays where it lies."""
    client = Session().client
    for name in names:
        model = client.get_model(name)
        freed = client.delete_model(model.name)
        output.line(model.name)
        gone = f"deleted {units.size(freed)}" if freed else f"its files stay: {model.source}"
        errors.say(errors.one_line(f"craft: {model.name} is forgotten; {gone}"))


@app.command("alias", **leaf("craft models alias xl sdxl", "craft models alias xl --rm"))
def alias(
    alias: str = typer.Argument(..., metavar="ALIAS", help="The other name."),
    model: str = typer.Argument("", metavar="[MODEL]", help="The model.", autocompletion=completing.models),
    *,
    remove: bool = typer.Option(False, "--rm", help="Take the alias away."),
) -> None:
    """Give a model another name, or take it away. An alias that exists is moved."""
    if remove == bool(model):
        raise CraftError("USAGE", "an alias needs a model, or --rm", "craft models alias ALIAS MODEL")
    client = Session().client
    if remove:
        client.delete_alias(alias)
        output.line(alias)
    else:
        output.line(f"{alias}\t{client.set_alias(alias, model).name}")


@app.command("load", **leaf("craft models load sdxl --keep-alive 2h"))
def load(
    name: str = _NAME,
    keep_alive: str = typer.Option(
        "", "--keep-alive", help="How long it stays when idle: 90s, 2h; 0: not at all; -1: for ever."
    ),
) -> None:
    """Load a model into the device's memory, before anyone asks for it."""
    seconds = units.seconds(keep_alive, "--keep-alive") if keep_alive else None
    errors.remark(f"craft: loading {errors.one_line(name)}")
    model = Session().client.load_model(name, seconds)
    output.line(f"{model.name}\t{', '.join(model.loaded_on)}")


@app.command("unload", **leaf("craft models unload sdxl"))
def unload(name: str = _NAME) -> None:
    """Give a model's memory back."""
    output.line(Session().client.unload_model(name).name)


def _tell(event: models_pb2.ImportModelEvent, *, as_json: bool) -> None:
    from craft_cli import shapes

    if event.HasField("model"):
        output.print_json(shapes.model(event.model)) if as_json else output.line(event.model.name)
        return
    planned = event.progress
    if as_json:
        output.print_json({"plan": planned.doing, "download_bytes": planned.bytes_total})
    else:
        output.line(f"{errors.one_line(planned.doing)}, {units.size(planned.bytes_total)} to download")
