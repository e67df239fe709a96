"""The configuration: the only reader of the environment and of TOML. `settings.py` is its schema.

Each setting comes from, in this order: the environment (`CRAFT_<SECTION>_<NAME>`),
`config.toml`, the default. A key that is unknown, ill-typed or out of its range
is an error that names file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from craft_protos import texts
from craft_protos.files import shown
from craft_protos.frozen import dataclass
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.rules import Rule
from craft_protos.settings import TIERS, Settings, TierSettings, sections_of, variable_name

if TYPE_CHECKING:
    from platformdirs import PlatformDirs


_TIER_NAME = r"[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True)
class Client:
    """What decides where `craft` connects to."""

    host: str = ""  # empty: the local socket; else unix:PATH or HOST:PORT
    api_key: str = ""
    ca_file: str = ""
    autostart: bool = True


def find_paths(env: Mapping[str, str] | None = None) -> Paths:
    """The folders, from CRAFT_CONFIG, CRAFT_DATA_DIR, CRAFT_STATE_DIR, CRAFT_RUNTIME_DIR or platformdirs."""
    import platformdirs

    env = os.environ if env is None else env
    dirs = platformdirs.PlatformDirs("craft", appauthor=False)
    config = env.get("CRAFT_CONFIG")
    return Paths(
        config_file=Path(config) if config else dirs.user_config_path / "config.toml",
        data_dir=Path(env.get("CRAFT_DATA_DIR") or dirs.user_data_path).absolute(),
        state_dir=Path(env.get("CRAFT_STATE_DIR") or dirs.user_state_path).absolute(),
        runtime_dir=Path(env.get("CRAFT_RUNTIME_DIR") or _usual_runtime_dir(dirs)).absolute(),
    )


def _usual_runtime_dir(dirs: PlatformDirs) -> Path:
    """Without XDG_RUNTIME_DIR (ssh, cron) platformdirs has a folder in /tmp, and warns; users need no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return dirs.user_runtime_path


def client(env: Mapping[str, str] | None = None) -> Client:
    """The client's settings: CRAFT_HOST, CRAFT_API_KEY(_FILE), CRAFT_CA, CRAFT_AUTOSTART. Raises CONFIG_INVALID."""
    env = os.environ if env is None else env
    return Client(
        host=env.get("CRAFT_HOST", ""),
        api_key=_api_key(env),
        ca_file=env.get("CRAFT_CA", ""),
        autostart=env.get("CRAFT_AUTOSTART", "1") not in ("0", "no", "false"),
    )


def _api_key(env: Mapping[str, str]) -> str:
    source, key = "CRAFT_API_KEY", texts.unmarked(env.get("CRAFT_API_KEY", "")).strip()
    if not key and (path := env.get("CRAFT_API_KEY_FILE")):
        source = path
        try:
            key = texts.decoded(Path(path).read_bytes()).strip()
        except (OSError, UnicodeDecodeError) as exc:
            message = f"CRAFT_API_KEY_FILE: {path} cannot be read ({exc})"
            raise CraftError("CONFIG_INVALID", message, "name a file of yours that holds the key") from exc
    if key and not re.fullmatch(r"[!-~]{1,512}", key):  # what a header may hold
        raise CraftError("CONFIG_INVALID", f"{source} holds no key", "it is one word: craft_..., of letters and digits")
    return key


_OWN_VARIABLES = (
    *("CRAFT_CONFIG", "CRAFT_DATA_DIR", "CRAFT_STATE_DIR", "CRAFT_RUNTIME_DIR"),
    *("CRAFT_HOST", "CRAFT_API_KEY", "CRAFT_API_KEY_FILE", "CRAFT_CA", "CRAFT_AUTOSTART"),
    "CRAFT_JOIN_TOKEN",
)


def complaints(env: Mapping[str, str] | None = None) -> list[str]:
    """A line about each CRAFT_ variable that craft does not know, and that would do nothing without a word."""
    env = os.environ if env is None else env
    known = [*_OWN_VARIABLES]
    for section, schema in sections_of(Settings).items():
        known += [variable_name(section, name) for name in get_type_hints(schema)]
    return [_unknown_variable(name, known) for name in sorted(env) if name.startswith("CRAFT_") and name not in known]


def _unknown_variable(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"{name} is no variable of craft's" + (f"; did you mean {near[0]}?" if near else ": see `craft config list`")


def user_config_home(env: Mapping[str, str] | None = None) -> Path:
    """Where systemd looks for a user's units, among others: XDG_CONFIG_HOME, which must be absolute to count."""
    env = os.environ if env is None else env
    given = Path(env.get("XDG_CONFIG_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".config"


def take_join_token() -> str:
    """What lets this machine join another's daemon; "" where the environment has none. No child process gets it."""
    return os.environ.pop("CRAFT_JOIN_TOKEN", "")


def editor(env: Mapping[str, str] | None = None) -> str:
    """The command of the user's editor, "" where none is named. VISUAL is for terminals that can be drawn upon."""
    env = os.environ if env is None else env
    visual = "" if env.get("TERM", "dumb") == "dumb" else env.get("VISUAL", "")
    return visual or env.get("EDITOR", "")


def notify_socket(env: Mapping[str, str] | None = None) -> str:
    """Where systemd wants to hear that the daemon is ready; empty: nowhere."""
    env = os.environ if env is None else env
    return env.get("NOTIFY_SOCKET", "")


def load(config_file: Path, env: Mapping[str, str] | None = None) -> Settings:
    """Read file and environment. Raises CONFIG_INVALID naming file:line or variable."""
    env = os.environ if env is None else env
    written = read_file(config_file)
    sections: dict[str, Any] = {}
    for section, schema in sections_of(Settings).items():
        values = dict(written.get(section, {}))
        for name in get_type_hints(schema):
            variable = variable_name(section, name)
            if variable in env:
                values[name] = parse(env[variable], section, name, variable)
        sections[section] = schema(**values)
    tiers = {name: TierSettings(**values) for name, values in written.get(TIERS, {}).items()}
    return Settings(**sections, tiers=tiers)


def read_file(config_file: Path) -> dict[str, dict[str, Any]]:
    """The checked contents of config.toml, {} where there is none."""
    text, written = _parsed(config_file)
    for fault in _faults(config_file, text, written):
        raise fault
    return written


def faults(config_file: Path) -> list[CraftError]:
    """Everything that is wrong with the file, each with its line."""
    try:
        text, written = _parsed(config_file)
    except CraftError as exc:
        return [exc]
    return list(_faults(config_file, text, written))


def _parsed(config_file: Path) -> tuple[str, dict[str, Any]]:
    """The file's text and the TOML in it."""
    try:
        text = config_file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        message = f"{shown(config_file)} cannot be read: {why}"
        raise CraftError("CONFIG_INVALID", message, "see that it is a text file that you may read") from exc
    import tomllib  # most have no file

    try:
        written = tomllib.loads(text)
    except RecursionError as exc:
        raise CraftError("CONFIG_INVALID", f"{config_file}: nested too deeply", "see `craft config path`") from exc
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"at line (\d+)", str(exc))
        line = int(found.group(1)) if found else text.count("\n") + 1
        raise _bad(config_file, line, f"not valid TOML: {exc}") from exc
    return text, written


def parse(text: str, section: str, name: str, source: str) -> Any:
    """A setting's value from text (an environment variable, `craft config set`). Raises CONFIG_INVALID."""
    schema = sections_of(Settings)[section]
    value = _converted(text, get_type_hints(schema)[name], source)
    if complaint := _complaint(schema, name, value):
        raise CraftError("CONFIG_INVALID", f"{source}: {complaint}", "see `craft config list`")
    return value


def _converted(text: str, kind: type, source: str) -> Any:
    if kind is bool:
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off"):
            return False
    try:
        if kind is not bool:
            return kind(text)
    except ValueError:
        pass
    raise CraftError("CONFIG_INVALID", f"{source}: {text!r} is not a {_KINDS[kind]}", f"give {source} a {_KINDS[kind]}")


def _complaint(schema: type, name: str, value: Any) -> str:
    """Why a value of the right type will not do, "" if it will."""
    rules: dict[str, Rule | None] = {one.name: one.metadata.get("rule") for one in dataclasses.fields(schema)}
    rule = rules[name]
    return "" if rule is None else rule.complaint(value)


_KINDS: dict[type, str] = {bool: "boolean", int: "whole number", float: "number", str: "string"}


def _faults(config_file: Path, text: str, written: dict[str, Any]) -> Iterator[CraftError]:
    known = sections_of(Settings)
    for section, values in written.items():
        if section == TIERS and isinstance(values, dict):
            yield from _faults_of_tiers(config_file, text, values)
        elif section in known and isinstance(values, dict):
            yield from _faults_of_section(config_file, text, section, known[section], values)
        else:
            yield _bad(config_file, _line_of(text, section), f"unknown section [{section}]", [*known, f"{TIERS}.NAME"])


def _faults_of_tiers(config_file: Path, text: str, tiers: dict[str, Any]) -> Iterator[CraftError]:
    for name, values in tiers.items():
        section = f"{TIERS}.{name}"
        if not isinstance(values, dict):
            yield _bad(config_file, _line_of(text, name, TIERS), f"unknown key {section}", [f"[{TIERS}.NAME]"])
        elif not re.fullmatch(_TIER_NAME, name):
            yield _bad(config_file, _line_of(text, TIERS), f"{name[:40]!r} is no tier's name: take letters and digits")
        else:
            yield from _faults_of_section(config_file, text, section, TierSettings, values)


def _faults_of_section(
    config_file: Path, text: str, section: str, schema: type, values: dict[str, Any]
) -> Iterator[CraftError]:
    kinds = get_type_hints(schema)
    for name, value in values.items():
        line = _line_of(text, name, section)
        if name not in kinds:
            yield _bad(config_file, line, f"unknown key {section}.{name}", list(kinds))
        elif not _fits(value, kinds[name]):
            yield _bad(config_file, line, f"{section}.{name} must be a {_KINDS[kinds[name]]}")
        elif complaint := _complaint(schema, name, value):
            yield _bad(config_file, line, f"{section}.{name} {complaint}")


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _line_of(text: str, name: str, section: str = "") -> int:
    inside = not section
    for number, line in enumerate(texts.lines(text), 1):
        header = re.match(r"\s*\[\s*([^\]]+?)\s*\]", line)
        if header and section:
            inside = header.group(1) == section
        if not section and header and header.group(1).split(".")[0] == name:
            return number
        if inside and re.match(rf"\s*\"?{re.escape(name)}\"?\s*=", line):
            return number
    return 1


def _bad(config_file: Path, line: int, why: str, known: list[str] | None = None) -> CraftError:
    hint = f"known here: {', '.join(known)}" if known else f"edit {config_file}, or see `craft config path`"
    return CraftError("CONFIG_INVALID", f"{config_file}:{line}: {why}", hint)
