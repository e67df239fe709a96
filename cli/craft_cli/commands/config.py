"""craft config: the settings, where they come from, and where everything lies."""

from __future__ import annotations

import dataclasses
import difflib
import os
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import typer
from craft_protos import config, files
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings, Settings, sections_of, variable_name

from craft_cli import completing, errors
from craft_cli.generate import output, writing
from craft_cli.parsing import leaf, new_app
from craft_cli.render import knobs

app = new_app(
    "Read and change settings. CRAFT_<SECTION>_<NAME> in the environment comes first.",
    examples=(
        "Examples:\n  craft config list\n  craft config set generate.sampler 'Euler a'\n"
        "  craft config set daemon.keep_alive_s 600\n  craft config edit\n  craft config path"
    ),
)

_KEY = typer.Argument(..., metavar="SECTION.NAME", help="A setting.", autocompletion=completing.settings)
_RESTART = "a running daemon takes it up at its next start: craft daemon restart"
_JSON = typer.Option(False, "--json", help="JSON on stdout.")


@app.command("get", **leaf("craft config get generate.model"))
def get(key: str = _KEY) -> None:
    """Print a setting's value."""
    section, name = _find(key)
    settings = config.load(config.find_paths().config_file)
    output.line(knobs.shown(getattr(getattr(settings, section), name)))


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


@app.command("list", **leaf("craft config list", "craft config list --json | jq .limits"))
def list_settings(as_json: bool = _JSON) -> None:
    """List every setting: value, unit, where that comes from, default, variable, meaning.

    In a pipe one a line, tabs between. --json has the values by section, and all of it under "settings".
    """
    path = config.find_paths().config_file
    settings, written = config.load(path), config.read_file(path)
    known = [knobs.described(*_find(key), settings, _source(*_find(key), written)) for key in names()]
    known += [one for tier, limits in settings.tiers.items() for one in knobs.of_tier(tier, limits)]
    if as_json:
        output.print_json({**dataclasses.asdict(settings), "settings": [dataclasses.asdict(one) for one in known]})
    elif output.is_at_terminal():
        for line in knobs.page(known, shutil.get_terminal_size().columns):
            output.line(line)
    else:
        for one in known:
            output.line("\t".join(map(errors.one_line, one.cells)))


@app.command("edit", **leaf("craft config edit", "EDITOR=nano craft config edit"))
def edit() -> None:
    """Open the configuration file in $VISUAL or $EDITOR; afterwards it is checked, and what is wrong named by its line.

    Where there is no file yet, a new one lists every setting with its default, as comments.
    """
    from craft_cli import editing

    path = config.find_paths().config_file
    before = config.faults(path) or config.load(path)
    editing.edit(path)
    if (after := config.load(path)) != before:
        is_daemons = not isinstance(before, Settings) or _without_generate(after) != _without_generate(before)
        errors.say("craft: the configuration has changed" + ("; " + _RESTART if is_daemons else ""))


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


def _without_generate(settings: Settings) -> Settings:
    return dataclasses.replace(settings, generate=GenerateSettings())


def _source(section: str, name: str, written: dict[str, dict[str, Any]]) -> str:
    variable = variable_name(section, name)
    if variable in os.environ:
        return variable
    return "config.toml" if name in written.get(section, {}) else "default"


def _write(path: Path, written: dict[str, dict[str, Any]]) -> None:
    import tomli_w

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.write(path, tomli_w.dumps(written).encode(), force=True)
    except OSError as error:
        raise files.unwritable(path, error, "see CRAFT_CONFIG") from error


def _say_restart(section: str, variable: str) -> None:
    if variable in os.environ:
        errors.say(f"craft: {variable} in the environment still comes first")
    if section != "generate":
        errors.say(f"craft: {_RESTART}")
