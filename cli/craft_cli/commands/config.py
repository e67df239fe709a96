"""craft config: the settings, where they come from, and where everything lies."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any, get_type_hints

import typer
from craft_protos import config, files
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings, sections_of, variable_name

from craft_cli import completing, errors
from craft_cli.generate import output
from craft_cli.parsing import leaf, new_app

app = new_app(
    "Read and change settings. CRAFT_<SECTION>_<NAME> in the environment comes first.",
    examples=(
        "Examples:\n  craft config list\n  craft config set generate.sampler 'Euler a'\n"
        "  craft config set daemon.keep_alive_s 600\n  craft config path"
    ),
)

_KEY = typer.Argument(..., metavar="SECTION.NAME", help="A setting.", autocompletion=completing.settings)
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("get", **leaf("craft config get generate.model"))
def get(key: str = _KEY) -> None:
    """Print a setting's value."""
    section, name = _find(key)
    settings = config.load(config.find_paths().config_file)
    output.line(_shown(getattr(getattr(settings, section), name)))


@app.command("set", **leaf("craft config set generate.sampler 'Euler a'"))
def set_value(key: str = _KEY, value: str = typer.Argument(..., metavar="VALUE", help="Its new value.")) -> None:
    """Write a setting to the configuration file."""
    section, name = _find(key)
    path = config.find_paths().config_file
    written = config.read_file(path)
    written.setdefault(section, {})[name] = config.parse(value, section, name, key)
    _write(path, written)
    _say_restart(section, variable_name(section, name))


@app.command("unset", **leaf("craft config unset generate.sampler"))
def unset(key: str = _KEY) -> None:
    """Take a setting out of the configuration file: its default holds again."""
    section, name = _find(key)
    path = config.find_paths().config_file
    written = config.read_file(path)
    if written.get(section, {}).pop(name, None) is None:
        errors.say(f"craft: {key} is not set in {path}")
        return
    _write(path, {title: values for title, values in written.items() if values})
    _say_restart(section, variable_name(section, name))


@app.command("list", **leaf("craft config list --json | jq .limits"))
def list_settings(as_json: bool = _JSON) -> None:
    """List every setting, its value and where that comes from."""
    path = config.find_paths().config_file
    settings, written = config.load(path), config.read_file(path)
    if as_json:
        output.print_json(dataclasses.asdict(settings))
        return
    rows = []
    for key in names():
        section, name = _find(key)
        rows.append([key, _shown(getattr(getattr(settings, section), name)), _source(section, name, written)])
    for tier, limits in settings.tiers.items():
        shown = dataclasses.asdict(limits).items()
        rows += [[f"tiers.{tier}.{name}", _shown(value), "config.toml"] for name, value in shown]
    output.print_table(["setting", "value", "from"], rows)


@app.command("path", **leaf("craft config path"))
def path(as_json: bool = _JSON) -> None:
    """Show where configuration, data, state and socket lie."""
    paths = config.find_paths()
    places = {
        "config": str(paths.config_file),
        "data": str(paths.data_dir),
        "database": str(paths.database),
        "images": str(paths.images_dir),
        "models": str(paths.models_dir),
        "loras": str(paths.loras_dir),
        "state": str(paths.state_dir),
        "log": str(paths.log_file),
        "socket": str(paths.socket),
    }
    if as_json:
        output.print_json(places)
    else:
        output.print_table(["what", "where"], [[name, place] for name, place in places.items()])


def names() -> list[str]:
    """Every setting as section.name."""
    sections = sections_of(Settings)
    return [f"{section}.{name}" for section, schema in sections.items() for name in get_type_hints(schema)]


def _find(key: str) -> tuple[str, str]:
    """Section and name of a setting. Raises CONFIG_INVALID."""
    if key.startswith("tiers."):
        where = config.find_paths().config_file
        raise CraftError("CONFIG_INVALID", f"{key}: tiers are tables", f"write [tiers.NAME] into {where}")
    if key not in names():
        near = difflib.get_close_matches(key, names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see `craft config list`"
        raise CraftError("CONFIG_INVALID", f"there is no setting {key!r}", hint)
    section, _, name = key.partition(".")
    return section, name


def _source(section: str, name: str, written: dict[str, dict[str, Any]]) -> str:
    variable = variable_name(section, name)
    if variable in os.environ:
        return variable
    return "config.toml" if name in written.get(section, {}) else "default"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write(path: Path, written: dict[str, dict[str, Any]]) -> None:
    import tomli_w

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        output.write(path, tomli_w.dumps(written).encode(), force=True)
    except OSError as error:
        raise files.unwritable(path, error, "see CRAFT_CONFIG") from error


def _say_restart(section: str, variable: str) -> None:
    if variable in os.environ:
        errors.say(f"craft: {variable} in the environment still comes first")
    if section != "generate":
        errors.say("craft: a running daemon takes it up at its next start: craft daemon restart")
