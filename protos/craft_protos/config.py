"""The configuration: its schema, and the only reader of the environment and of TOML.

Each setting comes from, in this order: the environment (`CRAFT_<SECTION>_<NAME>`),
`config.toml`, the default below. A key that is unknown, ill-typed or out of its range
is an error that names file and line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from craft_protos import rungs, texts
from craft_protos.files import shown
from craft_protos.paths import Paths
from craft_protos.reasons import CraftError
from craft_protos.rules import Address, Addresses, Choice, Form, Range, Rule, Sampler, ruled

if TYPE_CHECKING:
    from platformdirs import PlatformDirs


T = TypeVar("T")
_A_DAY_S = 86400.0
_A_PATH = Form(r"(?s)|/.*", "an absolute path")  # a daemon's folder is /


@dataclass(frozen=True)
class DaemonSettings:
    """[daemon]: the front."""

    listen: str = ruled("", Address(may_be_empty=True))  # TCP, beside the socket
    tls_cert: str = ruled("", _A_PATH)  # PEM files, needed where `listen` is no loopback address
    tls_key: str = ruled("", _A_PATH)
    queue_limit: int = ruled(512, Range(1, 1_000_000))
    grace_s: float = ruled(30.0, Range(0, _A_DAY_S))  # how long running jobs may go on at SIGTERM
    lease_s: float = ruled(30.0, Range(0.1, _A_DAY_S))  # a leased job without a watcher is cancelled after this
    keep_alive_s: float = ruled(300.0, Range(-1, 1e9))  # an idle model stays in memory; 0: not at all, -1: for ever
    log_level: str = ruled("info", Choice(("debug", "info", "warning", "error")))


@dataclass(frozen=True)
class WorkerSettings:
    """[worker]: the process that draws."""

    # run with `python -m`; craftd.fakeworker draws without torch
    module: str = ruled("craftd.worker", Form(r"[A-Za-z_][\w.]*", "a module's name"))
    device: str = ruled("auto", Form(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, mps, cuda or cuda:N"))
    precision: str = ruled("auto", Choice(("auto", "fp32", "fp16", "bf16")))
    # how much of a model that does not fit is on a CUDA device at once; auto takes the most that fits
    offload: str = ruled("auto", Choice((rungs.AUTO, *rungs.RUNGS)))
    threads: int = ruled(0, Range(0, 1024))  # 0: torch's own choice
    max_rows: int = ruled(32, Range(1, 1024))  # images in the batch at once
    stall_timeout_s: float = ruled(120.0, Range(0.1, _A_DAY_S))  # no progress so long while drawing: replaced
    load_timeout_s: float = ruled(900.0, Range(1, _A_DAY_S))  # the same while a model loads


@dataclass(frozen=True)
class GenerateSettings:
    """[generate]: what `craft generate` uses where nothing else is said."""

    model: str = ""
    sampler: str = ruled("", Sampler())
    format: str = ruled("png", Choice(("png", "jpeg", "webp")))


@dataclass(frozen=True)
class LimitSettings:
    """[limits]: what one request may ask for."""

    max_side: int = ruled(4096, Range(64, 65536))  # pixels
    max_pixels: int = ruled(4096 * 4096, Range(64 * 64, 65536 * 65536))
    max_steps: int = ruled(1000, Range(1, 100_000))
    max_count: int = ruled(256, Range(1, 100_000))
    max_prompt_chars: int = ruled(20_000, Range(1, 1_000_000))
    max_pictures: int = ruled(1000, Range(3, 100_000))  # of a training
    max_picture_bytes: int = ruled(50_000_000, Range(1, 10**10))  # one of them, as a file
    max_dataset_bytes: int = ruled(2_000_000_000, Range(1, 10**12))  # all of them


@dataclass(frozen=True)
class ImageSettings:
    """[images]: how long pictures are kept."""

    keep_days: float = ruled(0.0, Range(0, 100_000))  # older ones are deleted; 0: kept for ever
    max_gib: float = ruled(50.0, Range(0, 1e9))  # beyond that the oldest are deleted; 0: no limit


@dataclass(frozen=True)
class KeepSettings:
    """[keep]: how long what is done with is remembered."""

    jobs_days: float = ruled(90.0, Range(0, 100_000))  # finished jobs without pictures; 0: for ever
    jobs_most: int = ruled(200_000, Range(0, 10**9))  # beyond that the oldest of them are forgotten; 0: no limit
    orphans_days: float = ruled(30.0, Range(0, 100_000))  # files that the database does not know; 0: for ever


@dataclass(frozen=True)
class KeySettings:
    """[keys]: how callers from afar are let in."""

    admin_key_file: str = ruled("", _A_PATH)  # holds an admin's key, and is made where it is missing
    failures_per_minute: int = ruled(30, Range(1, 1_000_000))  # wrong keys from one address; then they must wait


@dataclass(frozen=True)
class TierSettings:
    """[tiers.NAME]: how much a key may ask for."""

    requests_per_minute: int = ruled(600, Range(1, 1_000_000))
    images_in_flight: int = ruled(64, Range(1, 1_000_000))  # asked for and not drawn yet
    queue_share: float = ruled(0.5, Range(0, 1))  # of the queue's places; one at least


DEFAULT_TIER = "default"
_TIERS = "tiers"
_TIER_NAME = r"[A-Za-z0-9_-]{1,64}"


@dataclass(frozen=True)
class HttpSettings:
    """[http]: the face for callers that speak HTTP."""

    enabled: bool = False
    listen: str = ruled("127.0.0.1:7811", Address())
    public_url: str = ruled("", Form(r"|https?://[^\s/?#]+(/[^\s?#]*)?", "a URL"))  # what callers see it as
    # owners whose public pictures tell everybody what they were made from, comma between; *: all
    public_metadata: str = ""
    open_lists: bool = False  # the lists of names that VisionCraft's packages ask for without a key need none
    trusted_proxies: str = ruled("", Addresses())  # whose X-Forwarded-For and -Proto are believed, comma between
    allowed_hosts: str = ""  # names in Host headers that are taken besides, comma between
    allowed_origins: str = ruled(  # sites whose pages may call (CORS), comma between; *: all
        "", Form(r"|\*|https?://[^\s/,]+(\s*,\s*https?://[^\s/,]+)*", "origins such as https://example.org")
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


_LOOPBACK = r"(localhost|127(\.\d{1,3}){3}|\[::1\])"


@dataclass(frozen=True)
class TelegramSettings:
    """[telegram]: the bot that gives keys."""

    enabled: bool = False  # the daemon keeps the bot running
    token_file: str = ruled("", _A_PATH)  # holds the bot's token; refused if others can read it
    channel: str = ruled(  # whose members get keys
        "", Form(r"|@[A-Za-z]\w{3,63}|-?\d{1,20}", "a channel: @name, or its number")
    )
    api_url: str = ruled(  # the token travels there
        "https://api.telegram.org",
        Form(rf"https://[^\s/?#]+(/[^\s?#]*)?|http://{_LOOPBACK}(:\d{{1,5}})?(/[^\s?#]*)?", "an https:// URL"),
    )
    admins: str = ruled(  # accounts that may ban, and that hear of trouble
        "", Form(r"|\d{1,15}(\s*,\s*\d{1,15})*", "account numbers, comma between")
    )
    invite_url: str = ruled("", Form(r"|https?://[^\s]+", "a URL"))  # where one joins the channel
    draw: bool = False  # /draw PROMPT
    texts_file: str = ruled("", _A_PATH)  # answers in other words than craft's own
    sweep_every_s: float = ruled(43200.0, Range(1, _A_DAY_S))  # asks Telegram about every key's owner
    commands_per_minute: int = ruled(20, Range(1, 10_000))  # commands of one account that are answered

    @property
    def admin_accounts(self) -> tuple[int, ...]:
        return tuple(int(one) for one in self.admins.split(",") if one.strip())


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    keep: KeepSettings = field(default_factory=KeepSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    telegram: TelegramSettings = field(default_factory=TelegramSettings)
    tiers: Mapping[str, TierSettings] = field(default_factory=dict)

    def tier(self, name: str) -> TierSettings:
        """A key's tier; one that was taken out of the configuration is the default one."""
        return self.tiers.get(name) or self.tiers.get(DEFAULT_TIER) or TierSettings()


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
    tiers = {name: TierSettings(**values) for name, values in written.get(_TIERS, {}).items()}
    return Settings(**sections, tiers=tiers)


def read_file(config_file: Path) -> dict[str, dict[str, Any]]:
    """The checked contents of config.toml, {} where there is none."""
    try:
        text = config_file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
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
    _check(config_file, text, written)
    return written


def sections_of(schema: type) -> dict[str, type]:
    """Section name -> its dataclass."""
    return {f.name: get_type_hints(schema)[f.name] for f in dataclasses.fields(schema) if f.name != _TIERS}


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
        if section == _TIERS and isinstance(values, dict):
            _check_tiers(config_file, text, values)
        elif section in known and isinstance(values, dict):
            _check_section(config_file, text, section, known[section], values)
        else:
            raise _bad(config_file, _line_of(text, section), f"unknown section [{section}]", [*known, f"{_TIERS}.NAME"])


def _check_tiers(config_file: Path, text: str, tiers: dict[str, Any]) -> None:
    for name, values in tiers.items():
        section = f"{_TIERS}.{name}"
        if not isinstance(values, dict):
            raise _bad(config_file, _line_of(text, name, _TIERS), f"unknown key {section}", [f"[{_TIERS}.NAME]"])
        if not re.fullmatch(_TIER_NAME, name):
            raise _bad(config_file, _line_of(text, _TIERS), f"{name[:40]!r} is no tier's name: take letters and digits")
        _check_section(config_file, text, section, TierSettings, values)


def _check_section(config_file: Path, text: str, section: str, schema: type, values: dict[str, Any]) -> None:
    kinds = get_type_hints(schema)
    for name, value in values.items():
        line = _line_of(text, name, section)
        if name not in kinds:
            raise _bad(config_file, line, f"unknown key {section}.{name}", list(kinds))
        if not _fits(value, kinds[name]):
            raise _bad(config_file, line, f"{section}.{name} must be a {_KINDS[kinds[name]]}")
        if complaint := _complaint(schema, name, value):
            raise _bad(config_file, line, f"{section}.{name} {complaint}")


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
