"""Presets: options of `craft generate` under a name, each a TOML file beside the configuration."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from craft_protos import config, files
from craft_protos.files import shown
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.generate import few_steps, flags, foreign, writing
from craft_cli.generate.few_steps import Value

OPTION = "--preset"
_NAME = r"[A-Za-z0-9][\w.-]{0,63}"
_WHAT_IS_DRAWN = frozenset(flags.GENERATE.values())


def names() -> list[str]:
    """All that there are, in order."""
    return sorted(path.stem for path in _folder().glob("*.toml") if re.fullmatch(_NAME, path.stem))


def expanded(command: Any, ctx: Any, args: Sequence[str]) -> list[str]:
    """The words of a command line behind those of the preset that they name; options given beside it win.

    Raises NO_INPUT, CONFIG_INVALID.
    """
    if not any(word.startswith(OPTION) for word in args):
        return list(args)
    given = _given(command, ctx, args)
    name = given.get("preset")
    if not name:
        return list(args)
    own = {option: value for option, value in read(name, command).items() if _field(option) not in given}
    words = _words(own)
    errors.remark(errors.one_line(f"craft: preset {name}: {' '.join(words) or 'nothing is left of it'}"))
    return [*words, *args]


def read(name: str, command: Any) -> dict[str, Value]:
    """A preset's options without their dashes, checked against the command's. Raises NO_INPUT, CONFIG_INVALID."""
    import tomllib

    if name in few_steps.PRESETS and not _path(name).is_file():
        return dict(few_steps.PRESETS[name])
    path = _existing(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
        told = tomllib.loads(text)
    except OSError as error:
        raise files.unreadable(path, error, "see that you may read it") from error
    except (ValueError, RecursionError) as error:
        raise CraftError("CONFIG_INVALID", f"{shown(path)}: not valid TOML: {error}", _way_out(name)) from error
    for option, value in told.items():
        if complaint := _complaint(command, option, value):
            raise CraftError("CONFIG_INVALID", f"{shown(path)}:{_line_of(text, option)}: {complaint}", _way_out(name))
    return told


def save(name: str, args: Sequence[str], command: Any, *, force: bool) -> Path:
    """The options of a command line under a name. Raises USAGE, OUTPUT_EXISTS."""
    import tomli_w

    with command.make_context(f"craft preset save {name}", list(args), resilient_parsing=False) as ctx:
        given = _given(command, ctx, expanded(command, ctx, foreign.translated(args)))
        if ctx.params.get("words"):
            message = f"a preset has no prompt: {' '.join(ctx.params['words'])!r}"
            raise CraftError("USAGE", message, "leave it out: it is said when the preset is used")
        known = {one.name: one for one in command.get_params(ctx)}
        kept = {}
        for field in (one for one in known if one in given):
            if (option := known[field].opts[-1]) in _WHAT_IS_DRAWN:
                kept[option.removeprefix("--")] = ctx.params[field]
            elif field not in ("preset", "force"):
                raise CraftError(
                    "USAGE", f"{option} says nothing of what is drawn", f"leave it out, and give it beside {OPTION}"
                )
    if not kept:
        raise CraftError("USAGE", "a preset of no options", f"craft preset save {name} --steps 30 --guidance 5")
    path = _path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writing.write(path, tomli_w.dumps(kept).encode(), force=force or bool(given.get("force")))
    except CraftError as error:
        if error.reason == "OUTPUT_EXISTS":
            raise CraftError("OUTPUT_EXISTS", f"there is a preset {name!r} already", "--force overwrites it") from error
        raise
    return path


def remove(name: str) -> None:
    """Raises NO_INPUT."""
    if name in few_steps.PRESETS and not _path(name).is_file():
        raise CraftError("NO_INPUT", f"the preset {name} comes with craft", "one of your own may have its name")
    path = _existing(name)
    try:
        path.unlink()
    except OSError as error:
        raise files.unwritable(path, error) from error


def line(options: Mapping[str, Value]) -> str:
    """The options as one would type them."""
    import shlex

    return shlex.join(_words(options))


def _given(command: Any, ctx: Any, args: Sequence[str]) -> dict[str, Any]:
    """The options that stand on a command line, by the parameters' names."""
    values, _, _ = command.make_parser(ctx).parse_args(list(args))
    options = {one.name for one in command.get_params(ctx) if one.opts[0].startswith("-")}
    return {name: value for name, value in values.items() if name in options}


def _words(options: Mapping[str, Value]) -> list[str]:
    words: list[str] = []
    for option, value in options.items():
        if isinstance(value, bool):
            words += [f"--{option}"] if value else []
        else:
            words += [f"--{option}={one}" for one in (value if isinstance(value, list) else [value])]
    return words


def _complaint(command: Any, option: str, value: Any) -> str:
    """Why a line of a file will not do, "" if it will."""
    if f"--{option}" not in _WHAT_IS_DRAWN:
        near = difflib.get_close_matches(option, _options(), n=1, cutoff=0.5)
        return f"no such option: {option!r}; " + (
            f"did you mean {near[0]}?" if near else f"known: {', '.join(_options())}"
        )
    is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if not (is_list or isinstance(value, (str, int, float))):
        return f"{option} must be a text, a number, true or false, or a list of texts"
    try:
        with command.make_context("craft generate", _words({option: value}), resilient_parsing=False):
            return ""
    except typer.TyperException as error:
        return f"{option}: {errors.one_line(error.message).rstrip('.')}"


def _options() -> Iterable[str]:
    return sorted(option.removeprefix("--") for option in _WHAT_IS_DRAWN)


def _field(option: str) -> str:
    """The parameter's name in the command's function."""
    return {"format": "file_format"}.get(option, option.replace("-", "_"))


def _existing(name: str) -> Path:
    path = _path(name)
    if not path.is_file():
        near = difflib.get_close_matches(name, [*names(), *few_steps.PRESETS], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see `craft presets list`"
        raise CraftError("NO_INPUT", f"there is no preset {name!r}", hint)
    return path


def _path(name: str) -> Path:
    if not re.fullmatch(_NAME, name):
        message = f"{errors.one_line(name)[:80]!r} is no preset's name"
        raise CraftError("USAGE", message, "take letters, digits, dots, dashes and underscores, 64 at most")
    return _folder() / f"{name}.toml"


def _folder() -> Path:
    return config.find_paths().config_file.parent / "presets"


def _line_of(text: str, option: str) -> int:
    name = re.escape(option)
    found = re.search(rf'(?m)^[ \t]*("?{name}"?[ \t]*=|\[[ \t]*"?{name})', text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _way_out(name: str) -> str:
    return f"edit the file, or remove it: craft presets rm {name}"
