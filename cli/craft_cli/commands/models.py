"""craft models: what craft can draw with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from craft_protos.reasons import CraftError

from craft_cli import completing, errors
from craft_cli.connection.session import Session
from craft_cli.generate import output
from craft_cli.generate.flags import spoken
from craft_cli.parsing import leaf, new_app
from craft_cli.render import units

if TYPE_CHECKING:
    from craft_protos import models_pb2

app = new_app(
    "Get, list, load and remove models.",
    examples=(
        "Examples:\n  craft models pull stabilityai/stable-diffusion-xl-base-1.0 --name sdxl\n"
        "  craft models pull ORG/NAME@v1.0 --plan\n"
        "  craft models pull z-image-turbo --plan\n"
        "  craft models add ~/checkpoints/dream.safetensors\n"
        "  craft models import-folder ~/ComfyUI/models --plan\n"
        "  craft models alias xl sdxl\n"
        "  craft models list --json | jq -r '.[].name'"
    ),
)

_NAME = typer.Argument(..., metavar="NAME", help="A model's name or alias.", autocompletion=completing.models)
_NAMES = typer.Argument(..., metavar="NAME...", help="Models' names.", autocompletion=completing.models)
_CALLED = typer.Option("", "--name", help="What to call it; made from the source if not given.")
_PLAN = typer.Option(False, "--plan", help="Only say what would be downloaded.")
_PREDICTION = typer.Option(
    "",
    "--prediction",
    help="What it predicts: epsilon (noise), v, v-zero-snr, or auto: as its file says.",
)
_TEXT_ENCODERS = typer.Option(
    [], "--text-encoder", metavar="FILE|NAME", help="A text encoder in a file of its own; once for each."
)
_VAE = typer.Option("", "--vae", metavar="FILE|NAME", help="A VAE in a file of its own.")
_WORDS = typer.Argument(None, metavar="[WORDS]", help="All must be somewhere in it.")
_PRECISION = typer.Option(
    "",
    "--precision",
    help="What it is kept in while it is loaded: fp32, bf16, fp16, fp8, int8, or auto: as the worker computes.",
)
_QUIET = typer.Option(False, "-q", "--quiet", help="No progress.")
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("list", **leaf("craft models list --json | jq -r '.[].name'", "craft models list --parts"))
def list_models(
    parts: bool = typer.Option(False, "--parts", help="The parts: text encoders, VAEs and control models."),
    as_json: bool = _JSON,
) -> None:
    """List the models that are here, or the parts and the models that use them."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    session = Session()
    if parts:
        _list_parts(drawing.insist(session, lambda client: client.list_parts()), as_json=as_json)
        return
    models = drawing.insist(session, lambda client: client.list_models())
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
                f"{model.precision} as {model.memory_precision}" if model.memory_precision else model.precision,
                f"{model.defaults.width}x{model.defaults.height}",
                ", ".join(model.loaded_on),
                ", ".join(model.loras),
                ", ".join(model.aliases),
            ]
            for model in models
        ],
    )


def _list_parts(parts: list[models_pb2.Part], *, as_json: bool) -> None:
    from craft_cli.render import shapes

    if as_json:
        output.print_json([shapes.part(part) for part in parts])
        return
    output.print_table(
        ["name", "kind", "size", "used by", "source"],
        [
            [part.name, part.kind, units.size(part.size_bytes), ", ".join(part.used_by) or "nothing", part.source]
            for part in parts
        ],
        none="no parts yet; craft models add FILE registers a text encoder, a VAE or a ControlNet",
    )


def _architecture(model: models_pb2.Model) -> str:
    """A generic one's is its pipeline."""
    return model.pipeline if model.family == "generic" else model.architecture


@app.command("show", **leaf("craft models show pocket"))
def show(name: str = _NAME, as_json: bool = _JSON) -> None:
    """Show one model, or a part."""
    from craft_cli.generate import drawing
    from craft_cli.render import shapes

    session = Session()
    part = next((one for one in drawing.insist(session, lambda client: client.list_parts()) if one.name == name), None)
    if part is not None:
        _show_part(shapes.part(part), as_json=as_json)
        return
    model = shapes.model(drawing.insist(session, lambda client: client.get_model(name)))
    if as_json:
        output.print_json(model)
        return
    defaults = model.pop("defaults")
    rows = [[field, output.cell(value)] for field, value in model.items()]
    output.print_table(
        ["model", name], rows + [[f"default {field}", output.cell(value)] for field, value in defaults.items()]
    )


def _show_part(part: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(part)
    else:
        output.print_table(["part", part["name"]], [[field, output.cell(value)] for field, value in part.items()])


@app.command(
    "pull",
    **leaf(
        "craft models pull stabilityai/stable-diffusion-xl-base-1.0 --name sdxl",
        "craft models pull ORG/NAME@v1.0 --plan",
    ),
)
def pull(
    source: str = typer.Argument(
        ...,
        metavar="NAME|ORG/NAME[@REVISION][:FILE]|LINK",
        help="A short name (craft models search), a repository of the model hub or one file of it, or its page.",
    ),
    *,
    name: str = _CALLED,
    prediction: str = _PREDICTION,
    text_encoders: list[str] = _TEXT_ENCODERS,
    vae: str = _VAE,
    precision: str = _PRECISION,
    plan: bool = _PLAN,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Download a model from the hub into the Hugging Face cache; what is there already is used.

    --plan says what that takes: the download, the disk and, of a short name, memory, licence and terms.
    Only the files that are needed. An interrupted download goes on where it was.
    HF_HOME, HF_ENDPOINT and HF_TOKEN are the daemon's.
    Of Civitai: its page, its download link, civitai:ID@VERSION or its AIR identifier; CIVITAI_TOKEN is shown there.
    """
    from craft_protos import models_pb2

    from craft_cli.registering import civitai, pulling, telling

    session = Session()
    civitai.require_model(source)
    request = models_pb2.ImportModelRequest(
        hub=pulling.remote(source, session),
        name=name,
        plan_only=plan,
        prediction=prediction,
        precision=precision,
        text_encoders=[pulling.part(one, session) for one in text_encoders],
        vae=pulling.part(vae, session) if vae else "",
    )
    telling.tell(pulling.run(session, request, quiet=quiet), name, precision, as_json=as_json)


@app.command("add", **leaf("craft models add ~/checkpoints/dream.safetensors --name dream"))
def add(
    path: str = typer.Argument(
        ..., metavar="PATH", help="A diffusers folder, a .safetensors checkpoint, a transformer alone, or a part."
    ),
    *,
    name: str = _CALLED,
    prediction: str = _PREDICTION,
    text_encoders: list[str] = _TEXT_ENCODERS,
    vae: str = _VAE,
    precision: str = _PRECISION,
    plan: bool = _PLAN,
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Use a model where it lies: nothing is copied.

    A transformer alone draws with text encoders and a VAE that are registered, lie beside it or in ComfyUI's folders
    around it, or are named. A text encoder or a VAE alone is registered as a part.
    """
    from craft_protos import models_pb2

    from craft_cli.registering import pulling, telling

    session = Session()
    request = models_pb2.ImportModelRequest(
        path=pulling.local(path, session),
        name=name,
        plan_only=plan,
        prediction=prediction,
        precision=precision,
        text_encoders=[pulling.part(one, session) for one in text_encoders],
        vae=pulling.part(vae, session) if vae else "",
    )
    telling.tell(pulling.run(session, request, quiet=quiet), name, precision, as_json=as_json)


@app.command("search", **leaf("craft models search turbo", "craft models search --json | jq -r '.[].name'"))
def search(
    words: list[str] = _WORDS,
    as_json: bool = _JSON,
) -> None:
    """List the models that craft knows by a short name."""
    from craft_cli.generate import drawing
    from craft_cli.registering import plans

    found = drawing.insist(Session(), lambda client: client.search_catalogue(" ".join(words or [])))
    if as_json:
        output.print_json([plans.entry_shape(entry) for entry in found])
        return
    output.print_table(
        ["name", "model", "architecture", "download", "license", "repository"],
        [
            [one.name, one.title, one.architecture, units.size(one.download_bytes), one.license, one.repository]
            for one in found
        ],
        none="no model that craft knows by a short name; craft models pull ORG/NAME takes any of the hub",
    )


@app.command(
    "import-folder", **leaf("craft models import-folder ~/ComfyUI/models --plan", "craft models import-folder D --yes")
)
def import_folder(
    path: str = typer.Argument(..., metavar="PATH", help="The folder of models of ComfyUI, A1111 or Forge."),
    *,
    plan: bool = typer.Option(False, "--plan", help="Only say what is there."),
    yes: bool = typer.Option(False, "-y", "--yes", help="Do not ask."),
    as_json: bool = _JSON,
    quiet: bool = _QUIET,
) -> None:
    """Use the models, parts and LoRAs of another program where they lie: nothing is copied or deleted."""
    from craft_cli.registering import folders, pulling

    session = Session()
    whole = pulling.local(path, session)
    folders.run(session, whole, plan_only=plan, is_agreed=yes, as_json=as_json, quiet=quiet)


@app.command(
    "edit",
    **leaf(
        "craft models edit dream --prediction v",
        "craft models edit dream --precision fp8",
        "craft models edit dream --vae sdxl_vae",
        "craft models edit dream --vae own",
    ),
)
def edit(
    name: str = _NAME,
    *,
    prediction: str = _PREDICTION,
    precision: str = _PRECISION,
    text_encoders: list[str] = _TEXT_ENCODERS,
    vae: str = typer.Option("", "--vae", metavar="FILE|NAME|own", help="Another VAE; own: the model's own again."),
    as_json: bool = _JSON,
) -> None:
    """Say what a model predicts and what it is kept in; or give it other parts."""
    from craft_protos import models_pb2

    from craft_cli.generate import drawing
    from craft_cli.registering import pulling
    from craft_cli.render import shapes

    if not (prediction or precision or text_encoders or vae):
        hint = "give --prediction, --precision, --vae or --text-encoder: craft models edit --help"
        raise CraftError("USAGE", "nothing to change", hint)
    session = Session()
    request = models_pb2.UpdateModelRequest(
        name=name,
        prediction=prediction or None,
        precision=precision or None,
        text_encoders=[pulling.part(one, session) for one in text_encoders],
        vae=pulling.part(vae, session) if vae and vae != "own" else vae,
    )
    with spoken({"prediction": "--prediction", "precision": "--precision", "vae": "--vae", "name": "NAME"}):
        model = drawing.insist(session, lambda client: client.update_model(request))
    if as_json:
        output.print_json(shapes.model(model))
        return
    if prediction:
        output.line(f"{model.name}\tprediction\t{model.prediction}\t{model.prediction_evidence}")
    if precision:
        output.line(f"{model.name}\tprecision\t{model.memory_precision or 'what the worker computes in'}")
    for used in model.parts if text_encoders or vae else ():
        output.line(f"{model.name}\t{used.component}\t{used.part}")


@app.command("rm", **leaf("craft models rm sdxl"))
def remove(names: list[str] = _NAMES) -> None:
    """Unload and forget models, or parts that none uses. What craft downloaded is deleted; what was linked stays."""
    from craft_cli.generate import drawing

    session = Session()
    parts = {part.name: part for part in drawing.insist(session, lambda client: client.list_parts())}
    for name in names:
        found = parts.get(name) or session.client.get_model(name)
        freed = session.client.delete_model(found.name)
        output.line(found.name)
        gone = f"deleted {units.size(freed)}" if freed else f"its files stay: {found.source}"
        errors.say(errors.one_line(f"craft: {found.name} is forgotten; {gone}"))


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
    from craft_cli.generate import drawing

    session = Session()
    if remove:
        session.client.delete_alias(alias)
        output.line(alias)
    else:
        changed = drawing.insist(session, lambda client: client.set_alias(alias, model))
        output.line(f"{alias}\t{changed.name}")


@app.command("load", **leaf("craft models load sdxl --keep-alive 2h"))
def load(
    name: str = _NAME,
    keep_alive: str = typer.Option(
        "", "--keep-alive", help="How long it stays when idle: 90s, 2h; 0: not at all; -1: for ever."
    ),
) -> None:
    """Load a model into the device's memory, before anyone asks for it."""
    from craft_cli.generate import drawing

    seconds = units.seconds(keep_alive, "--keep-alive") if keep_alive else None
    errors.remark(f"craft: loading {errors.one_line(name)}")
    model = drawing.insist(Session(), lambda client: client.load_model(name, seconds))
    output.line(f"{model.name}\t{', '.join(model.loaded_on)}")


@app.command("unload", **leaf("craft models unload sdxl"))
def unload(name: str = _NAME) -> None:
    """Give a model's memory back."""
    from craft_cli.generate import drawing

    output.line(drawing.insist(Session(), lambda client: client.unload_model(name)).name)
