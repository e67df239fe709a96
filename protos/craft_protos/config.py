"""The configuration: its schema, and the only reader of the environment and of TOML.

Each setting comes from, in this order: the environment (`CRAFT_<SECTION>_<NAME>`),
`config.toml`, the default below. A key that is unknown, ill-typed or out of its range
is an error that names file and line.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints

from craft_protos.paths import Paths
from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from platformdirs import PlatformDirs


T = TypeVar("T")
_A_DAY_S = 86400.0


class Rule(Protocol):
    """What a value of the right type must be besides."""

    def complaint(self, value: Any) -> str:
        """ "" where nothing is wrong."""
        ...


@dataclass(frozen=True)
class Range:
    least: float
    most: float

    def complaint(self, value: float) -> str:
        return "" if self.least <= value <= self.most else f"must be from {self.least} to {self.most}, not {value}"


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]

    def complaint(self, value: str) -> str:
        return "" if value in self.values else f"must be one of {', '.join(self.values)}, not {value!r}"


@dataclass(frozen=True)
class Form:
    pattern: str
    meaning: str

    def complaint(self, value: str) -> str:
        return "" if re.fullmatch(self.pattern, value) else f"must be {self.meaning}, not {value!r}"


class Sampler:
    def complaint(self, value: str) -> str:
        from craft_protos import samplers  # few have one set

        try:
            if value:
                samplers.canonical(value)
        except CraftError as exc:
            return f"names no sampler: {value!r}; {exc.hint}"
        return ""


def _setting(default: T, rule: Rule) -> T:
    """A field with its rule."""
    made: T = field(default=default, metadata={"rule": rule})
    return made


@dataclass(frozen=True)
class DaemonSettings:
    """[daemon]: the front."""

    queue_limit: int = _setting(512, Range(1, 1_000_000))
    grace_s: float = _setting(30.0, Range(0, _A_DAY_S))  # how long running jobs may go on at SIGTERM
    lease_s: float = _setting(30.0, Range(0.1, _A_DAY_S))  # a leased job without a watcher is cancelled after this
    keep_alive_s: float = _setting(300.0, Range(-1, 1e9))  # an idle model stays in memory; 0: not at all, -1: for ever
    log_level: str = _setting("info", Choice(("debug", "info", "warning", "error")))


@dataclass(frozen=True)
class WorkerSettings:
    """[worker]: the process that draws."""

    # run with `python -m`; craftd.fakeworker draws without torch
    module: str = _setting("craftd.worker", Form(r"[A-Za-z_][\w.]*", "a module's name"))
    device: str = _setting("auto", Form(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, mps, cuda or cuda:N"))
    precision: str = _setting("auto", Choice(("auto", "fp32", "fp16", "bf16")))
    threads: int = _setting(0, Range(0, 1024))  # 0: torch's own choice
    max_rows: int = _setting(32, Range(1, 1024))  # images in the batch at once
    stall_timeout_s: float = _setting(120.0, Range(0.1, _A_DAY_S))  # no progress so long while drawing: replaced
    load_timeout_s: float = _setting(900.0, Range(1, _A_DAY_S))  # the same while a model loads


@dataclass(frozen=True)
class GenerateSettings:
    """[generate]: what `craft generate` uses where nothing else is said."""

    model: str = ""
    sampler: str = _setting("", Sampler())
    format: str = _setting("png", Choice(("png", "jpeg", "webp")))


@dataclass(frozen=True)
class LimitSettings:
    """[limits]: what one request may ask for."""

    max_side: int = _setting(4096, Range(64, 65536))  # pixels
    max_pixels: int = _setting(4096 * 4096, Range(64 * 64, 65536 * 65536))
    max_steps: int = _setting(1000, Range(1, 100_000))
    max_count: int = _setting(256, Range(1, 100_000))
    max_prompt_chars: int = _setting(20_000, Range(1, 1_000_000))
    max_pictures: int = _setting(1000, Range(3, 100_000))  # of a training
    max_picture_bytes: int = _setting(50_000_000, Range(1, 10**10))  # one of them, as a file
    max_dataset_bytes: int = _setting(2_000_000_000, Range(1, 10**12))  # all of them


@dataclass(frozen=True)
class ImageSettings:
    """[images]: how long pictures are kept."""

    keep_days: float = _setting(0.0, Range(0, 100_000))  # older ones are deleted; 0: kept for ever
    max_gib: float = _setting(0.0, Range(0, 1e9))  # beyond that the oldest are deleted; 0: no limit


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    images: ImageSettings = field(default_factory=ImageSettings)


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
    """The client's settings: CRAFT_HOST, CRAFT_API_KEY, CRAFT_CA, CRAFT_AUTOSTART."""
    env = os.environ if env is None else env
    return Client(
        host=env.get("CRAFT_HOST", ""),
        api_key=env.get("CRAFT_API_KEY", ""),
        ca_file=env.get("CRAFT_CA", ""),
        autostart=env.get("CRAFT_AUTOSTART", "1") not in ("0", "no", "false"),
    )


def user_config_home(env: Mapping[str, str] | None = None) -> Path:
    """Where systemd looks for a user's units, among others: XDG_CONFIG_HOME, which must be absolute to count."""
    env = os.environ if env is None else env
    given = Path(env.get("XDG_CONFIG_HOME", ""))
    return given if given.is_absolute() else Path.home() / ".config"


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
    return Settings(**sections)


def read_file(config_file: Path) -> dict[str, dict[str, Any]]:
    """The checked contents of config.toml, {} where there is none."""
    try:
        text = config_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise _bad(config_file, 1, f"cannot be read ({exc})") from exc
    import tomllib  # most have no file

    try:
        written = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"at line (\d+)", str(exc))
        line = int(found.group(1)) if found else text.count("\n") + 1
        raise _bad(config_file, line, f"not valid TOML: {exc}") from exc
    _check(config_file, text, written)
    return written


def sections_of(schema: type) -> dict[str, type]:
    """Section name -> its dataclass."""
    return {f.name: get_type_hints(schema)[f.name] for f in dataclasses.fields(schema)}


def variable_name(section: str, name: str) -> str:
    """The environment variable that overrides a setting."""
    return f"CRAFT_{section}_{name}".upper()


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


def _check(config_file: Path, text: str, written: dict[str, Any]) -> None:
    known = sections_of(Settings)
    for section, values in written.items():
        if section not in known or not isinstance(values, dict):
            raise _bad(config_file, _line_of(text, section), f"unknown section [{section}]", list(known))
        kinds = get_type_hints(known[section])
        for name, value in values.items():
            line = _line_of(text, name, section)
            if name not in kinds:
                raise _bad(config_file, line, f"unknown key {section}.{name}", list(kinds))
            if not _fits(value, kinds[name]):
                raise _bad(config_file, line, f"{section}.{name} must be a {_KINDS[kinds[name]]}")
            if complaint := _complaint(known[section], name, value):
                raise _bad(config_file, line, f"{section}.{name} {complaint}")


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _line_of(text: str, name: str, section: str = "") -> int:
    inside = not section
    for number, line in enumerate(text.splitlines(), 1):
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
