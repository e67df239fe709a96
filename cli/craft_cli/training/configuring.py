"""A training's options from a file: craft's own by their names, and those of kohya's scripts (kohya.py says of each).

The file's options stand before those of the command line, which win. What is not known, or means nothing here, is said.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from craft_protos import files
from craft_protos.reasons import CraftError

from craft_cli import errors
from craft_cli.training import kohya
from craft_cli.training.kohya import Table

OPTION = "--config"
_MOST_BYTES = 1 << 20
_MOST_SUBSETS = 100
_SECTIONS = ("general", "datasets")
_NOT_OF_A_FILE = (OPTION, "--help", "--resume")


@dataclass
class _Found:
    """The options of a file, and the key that each comes from."""

    path: Path
    options: dict[str, kohya.Words] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, key: str, option: str, value: kohya.Words) -> None:
        """Raises USAGE where another key has said something else."""
        if option in kohya.ADDED and option in self.options:
            value = (*self.options[option], *value)
        elif self.options.setdefault(option, value) != value:
            raise self.wrong(f"{key} contradicts {self.keys[option]}", "leave one of them out")
        self.options[option], self.keys[option] = value, key

    def wrong(self, why: str, hint: str) -> CraftError:
        return CraftError("USAGE", f"{files.shown(self.path)}: {why}", hint)


def expanded(command: Any, ctx: Any, args: Sequence[str]) -> list[str]:
    """The words of a command line behind those of the file that they name. Raises NO_INPUT, USAGE."""
    if not any(word.partition("=")[0] == OPTION for word in args):
        return list(args)
    params = {one.opts[0]: one for one in command.get_params(ctx) if one.opts[0].startswith("-")}
    flags = {flag: one for one in params.values() for flag in (*one.opts, *one.secondary_opts)}
    given, _, _ = command.make_parser(ctx).parse_args(list(args))
    if not given.get("config_file"):
        return list(args)
    found = read(Path(given["config_file"]), flags)
    for note in found.notes:
        errors.say(errors.one_line(f"craft: {found.path.name}: {note}"))
    own = {option: value for option, value in found.options.items() if flags[option].name not in given}
    return [*(word for option, value in own.items() for word in _words(option, value)), *args]


def read(path: Path, flags: Mapping[str, Any]) -> _Found:
    """`flags`: the command's parameters. Raises NO_INPUT, FILE_FORBIDDEN, USAGE."""
    found = _Found(path)
    told = _parsed(path)
    plain = _flat(told, found)
    if isinstance(named := plain.pop("dataset_config", None), str):
        told = {name: value for name, value in _parsed(Path(named)).items() if name in _SECTIONS} | told
    is_kohyas = any(key in plain for key in ("network_dim", "network_module"))
    for key, value in plain.items():
        _take(found, key, value, flags, plain)
    if is_kohyas and "network_train_unet_only" not in plain and "--te" not in found.options:
        found.notes.append(
            "network_train_unet_only is not in it: give --te for the text encoder, as kohya's scripts do"
        )
    for key, value in _of_subsets(told, found).items():
        _take(found, key, value, flags, {})
    return found


def _take(found: _Found, key: str, value: Any, flags: Mapping[str, Any], beside: Table) -> None:
    flag = f"--{key.replace('_', '-')}"
    if flag in _NOT_OF_A_FILE:
        raise found.wrong(f"{key} cannot stand in a file", "give it on the command line")
    try:
        if flag in flags and key not in kohya.MEANT:
            found.take(key, *_own(flag, value, flags[flag]))
            return
        for option, words in kohya.options(key, value, beside):
            found.take(key, option, words)
    except kohya.Nothing as nothing:
        found.notes.append(f"{key}: {nothing}")
    except ValueError as error:
        raise found.wrong(f"{key}: {error}", "change it, or leave it out") from error


def _own(flag: str, value: Any, param: Any) -> tuple[str, kohya.Words]:
    if isinstance(value, bool) != bool(getattr(param, "is_flag", False)):
        raise ValueError(f"must be {'true or false' if param.is_flag else 'a number or a text'}, not {value!r}")
    if isinstance(value, bool):
        off = next(iter(param.secondary_opts), "")
        if not value and not off:
            raise kohya.Nothing("is so anyway")
        return (flag, ()) if value else (off, ())
    if isinstance(value, list) and not (param.multiple or param.name == "folders"):
        raise ValueError("is a list, and takes one value")
    return flag, kohya.words(value)


def _words(option: str, value: kohya.Words) -> list[str]:
    return [f"{option}={one}" for one in value] if value else [option]


def _parsed(path: Path) -> dict[str, Any]:
    if missing := files.why_not(path):
        raise CraftError(missing.reason, missing.message, f"{OPTION} names a TOML file")
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise CraftError(
                "USAGE", f"{files.shown(path)} is no file of at most {_MOST_BYTES} bytes", "name a TOML file"
            )
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise files.unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise CraftError("USAGE", f"{files.shown(path)}: not valid TOML: {error}", "mend the file") from error


def _flat(told: Table, found: _Found) -> dict[str, Any]:
    """Keys of all sections, which mean nothing to kohya's scripts, but for those of data sets."""
    plain: dict[str, Any] = {}
    for key, value in told.items():
        if key in _SECTIONS:
            continue
        for name, one in value.items() if isinstance(value, dict) else ((key, value),):
            if plain.setdefault(name, one) != one:
                raise found.wrong(f"{name} stands there twice", "leave one of them out")
    return plain


def _of_subsets(told: Table, found: _Found) -> dict[str, Any]:
    """Reads what the data sets' subsets have in common, and their folders. Raises USAGE where they differ."""
    common: dict[str, Any] | None = None
    folders: list[str] = []
    for subset in _subsets(told, found):
        folder, repeats = subset.pop("image_dir", None), subset.pop("num_repeats", 1)
        if subset.pop("is_reg", False):
            raise found.wrong("is_reg: craft draws pictures of the class itself", "give --class-prompt, leave it out")
        if isinstance(folder, str) and isinstance(repeats, int):
            folders.append(f"{repeats}:{folder}")
        common = subset if common is None else common
        for key in sorted({*subset, *common}):
            if subset.get(key) != common.get(key):
                raise found.wrong(f"{key} differs between subsets", "craft has one for all of a training")
    return (common or {}) | ({"folder": folders} if folders else {})


def _subsets(told: Table, found: _Found) -> Iterator[dict[str, Any]]:
    general, datasets = told.get("general", {}), told.get("datasets", [])
    if not isinstance(general, dict) or not isinstance(datasets, list):
        raise found.wrong("general must be a table, datasets a list of tables", "write [general], [[datasets]]")
    if not datasets and general:
        datasets = [{}]
    count = 0
    for dataset in datasets:
        inside = dataset.get("subsets", [{}]) if isinstance(dataset, dict) else None
        if not isinstance(inside, list) or not all(isinstance(one, dict) for one in inside):
            raise found.wrong("datasets' subsets must be tables", "write [[datasets.subsets]]")
        for one in inside:
            count += 1
            if count > _MOST_SUBSETS:
                raise found.wrong(f"more than {_MOST_SUBSETS} subsets", "take fewer")
            yield general | {key: value for key, value in dataset.items() if key != "subsets"} | one
