"""The settings: what each is called, may be, is where nothing else is said, and means."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import field
from typing import TypeVar, get_type_hints

from craft_protos import rungs
from craft_protos.frozen import dataclass
from craft_protos.generate import SYNTAXES
from craft_protos.rules import Address, Addresses, Choice, Form, Range, Rule, Sampler

T = TypeVar("T")
_A_DAY_S = 86400.0
_A_PATH = Form(r"(?s)|/.*", "an absolute path")  # a daemon's folder is /
_A_SIZE = r"|[1-9]\d{0,4}x[1-9]\d{0,4}"
TIERS = "tiers"
AUTO_DEVICES = "auto"
_A_DEVICE = r"(?:cpu|mps|cuda(?::\d{1,3})?)(?:\*[1-9]\d?)?"


def setting(default: T, means: str, rule: Rule | None = None, *, unit: str = "") -> T:
    """A field of a section: what it means is a line for users, and its unit a word behind its value."""
    made: T = field(default=default, metadata={"rule": rule, "means": means, "unit": unit})
    return made


@dataclass(frozen=True)
class DaemonSettings:
    """[daemon]: the front."""

    listen: str = setting("", "TCP address, HOST:PORT, to serve at beside the socket", Address(may_be_empty=True))
    tls_cert: str = setting("", "PEM file; needed where daemon.listen is no loopback address", _A_PATH)
    tls_key: str = setting("", "PEM file of its key", _A_PATH)
    queue_limit: int = setting(512, "Jobs that may wait", Range(1, 1_000_000), unit="jobs")
    grace_s: float = setting(30.0, "Running jobs may go on so long at the daemon's end", Range(0, _A_DAY_S), unit="s")
    lease_s: float = setting(
        30.0, "A job that is waited for is cancelled so long after its command vanished", Range(0.1, _A_DAY_S), unit="s"
    )
    keep_alive_s: float = setting(
        300.0, "An idle model stays in memory so long; 0: not at all, -1: for ever", Range(-1, 1e9), unit="s"
    )
    log_level: str = setting(
        "info", "What is logged: debug, info, warning or error", Choice(("debug", "info", "warning", "error"))
    )


@dataclass(frozen=True)
class WorkerSettings:
    """[worker]: the process that draws."""

    # craftd.fakeworker draws without torch
    module: str = setting(
        "craftd.worker", "Python module that draws, run with python -m", Form(r"[A-Za-z_][\w.]*", "a module's name")
    )
    device: str = setting(
        "auto",
        "What it computes on: auto, cpu, mps, cuda or cuda:N",
        Form(r"auto|cpu|mps|cuda(:\d{1,3})?", "auto, cpu, mps, cuda or cuda:N"),
    )
    devices: str = setting(
        AUTO_DEVICES,
        "A worker for each, comma between, such as cuda:0,cuda:1 or cpu*2; auto: worker.device, or every CUDA device",
        Form(rf"auto|{_A_DEVICE}(?:,\s?{_A_DEVICE}){{0,63}}", "auto, or devices such as cuda:0,cuda:1 or cpu*2"),
    )
    precision: str = setting(
        "auto", "What it computes in: auto, fp32, fp16 or bf16", Choice(("auto", "fp32", "fp16", "bf16"))
    )
    offload: str = setting(
        "auto",
        f"How much of a model that does not fit is on a CUDA device at once: auto (the most that fits), "
        f"{', '.join(rungs.RUNGS)}",
        Choice((rungs.AUTO, *rungs.RUNGS)),
    )
    threads: int = setting(0, "Threads that compute; 0: torch's own choice", Range(0, 1024), unit="threads")
    max_rows: int = setting(32, "Pictures that are drawn at once", Range(1, 1024), unit="pictures")
    stall_timeout_s: float = setting(
        120.0, "A worker without progress so long while drawing is replaced", Range(0.1, _A_DAY_S), unit="s"
    )
    load_timeout_s: float = setting(900.0, "The same while a model loads", Range(1, _A_DAY_S), unit="s")
    listen: str = setting(
        "", "Address, HOST:PORT, that workers on other machines connect to; empty: none do", Address(may_be_empty=True)
    )
    line_timeout_s: float = setting(
        30.0, "A worker on another machine that is silent so long is taken to be gone", Range(1, 3600), unit="s"
    )
    files_gib: float = setting(
        100.0, "A worker on another machine keeps so many of the daemon's files there", Range(0.001, 1e6), unit="GiB"
    )


@dataclass(frozen=True)
class GenerateSettings:
    """[generate]: what `craft generate` uses where nothing else is said."""

    model: str = setting("", "Model to draw with; empty: the daemon's choice")
    sampler: str = setting("", "Sampler; empty: the model's own", Sampler())
    format: str = setting("png", "Files that are written: png, jpeg or webp", Choice(("png", "jpeg", "webp")))
    steps: int = setting(0, "Denoising steps, of every model; 0: the model's own", Range(0, 100_000), unit="steps")
    size: str = setting(
        "", "WIDTHxHEIGHT, of every model; empty: the model's own", Form(_A_SIZE, "a size such as 768x512")
    )
    guidance: float = setting(-1.0, "Guidance scale, of every model; -1: the model's own", Range(-1, 1000))
    prompt_syntax: str = setting(
        "craft", "How prompts are written: craft, a1111 or plain (words alone)", Choice(SYNTAXES)
    )
    preview: bool = setting(False, "Each step's picture inside the terminal, while it is drawn")

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height in pixels; 0, 0 where the model's own are meant."""
        width, _, height = self.size.partition("x")
        return (int(width), int(height)) if self.size else (0, 0)


@dataclass(frozen=True)
class PromptSettings:
    """[prompts]: what prompts may draw upon."""

    wildcards: str = setting("", "Folder of NAME.txt files, of which __NAME__ in a prompt takes a line", _A_PATH)


@dataclass(frozen=True)
class LimitSettings:
    """[limits]: what one request may ask for."""

    max_side: int = setting(4096, "Longest side of a picture", Range(64, 65536), unit="pixels")
    max_pixels: int = setting(4096 * 4096, "Most pixels of a picture", Range(64 * 64, 65536 * 65536), unit="pixels")
    max_steps: int = setting(1000, "Most denoising steps", Range(1, 100_000), unit="steps")
    max_count: int = setting(256, "Most pictures of one request", Range(1, 100_000), unit="pictures")
    max_prompt_chars: int = setting(20_000, "Longest prompt", Range(1, 1_000_000), unit="characters")
    max_pictures: int = setting(1000, "Most pictures of a training", Range(3, 100_000), unit="pictures")
    max_picture_bytes: int = setting(50_000_000, "Largest file of a sent picture", Range(1, 10**10), unit="bytes")
    max_dataset_bytes: int = setting(2_000_000_000, "All pictures of a training", Range(1, 10**12), unit="bytes")
    max_inputs_bytes: int = setting(2_000_000_000, "All a caller sent to draw from", Range(1, 10**12), unit="bytes")


@dataclass(frozen=True)
class ImageSettings:
    """[images]: how long pictures are kept."""

    keep_days: float = setting(0.0, "Older pictures are deleted; 0: kept for ever", Range(0, 100_000), unit="days")
    max_gib: float = setting(50.0, "Beyond that the oldest are deleted; 0: no limit", Range(0, 1e9), unit="GiB")


@dataclass(frozen=True)
class KeepSettings:
    """[keep]: how long what is done with is remembered."""

    jobs_days: float = setting(
        90.0, "Finished jobs without pictures are remembered so long; 0: for ever", Range(0, 100_000), unit="days"
    )
    jobs_most: int = setting(
        200_000, "Beyond that the oldest of them are forgotten; 0: no limit", Range(0, 10**9), unit="jobs"
    )
    orphans_days: float = setting(
        30.0, "Files that the database does not know are kept so long; 0: for ever", Range(0, 100_000), unit="days"
    )


@dataclass(frozen=True)
class KeySettings:
    """[keys]: how callers from afar are let in."""

    admin_key_file: str = setting("", "File with an admin's key; made where it is missing", _A_PATH)
    failures_per_minute: int = setting(
        30, "Wrong keys from one address; then it must wait", Range(1, 1_000_000), unit="per minute"
    )


@dataclass(frozen=True)
class TierSettings:
    """[tiers.NAME]: how much a key may ask for."""

    requests_per_minute: int = setting(600, "Requests of one key", Range(1, 1_000_000), unit="per minute")
    images_in_flight: int = setting(64, "Pictures asked for and not drawn yet", Range(1, 1_000_000), unit="pictures")
    queue_share: float = setting(0.5, "Share of the queue's places; one at least", Range(0, 1))
    loras: int = setting(100, "LoRAs of its own", Range(0, 1_000_000), unit="LoRAs")
    lora_bytes: int = setting(20_000_000_000, "All files of its own LoRAs", Range(0, 10**15), unit="bytes")


DEFAULT_TIER = "default"


@dataclass(frozen=True)
class HttpSettings:
    """[http]: the face for callers that speak HTTP."""

    enabled: bool = setting(False, "Serve HTTP")
    listen: str = setting("127.0.0.1:7811", "Address, HOST:PORT, to serve HTTP at", Address())
    tls_cert: str = setting("", "PEM file; with it HTTP is served over TLS alone", _A_PATH)
    tls_key: str = setting("", "PEM file of its key", _A_PATH)
    public_url: str = setting("", "URL that callers see it as", Form(r"|https?://[^\s/?#]+(/[^\s?#]*)?", "a URL"))
    public_metadata: str = setting(
        "", "Owners whose public pictures tell everybody what they were made from, comma between; *: all"
    )
    # VisionCraft's packages ask for them without a key
    open_lists: bool = setting(False, "The lists of names need no key")
    mcp: bool = setting(False, "Serve the Model Context Protocol at /mcp, for agents; needs the extra mcp")
    trusted_proxies: str = setting(
        "", "Addresses whose X-Forwarded-For and -Proto are believed, comma between", Addresses()
    )
    allowed_hosts: str = setting("", "Names in Host headers that are taken besides, comma between")
    allowed_origins: str = setting(
        "",
        "Sites whose pages may call (CORS), comma between; *: all",
        Form(r"|\*|https?://[^\s/,]+(\s*,\s*https?://[^\s/,]+)*", "origins such as https://example.org"),
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


@dataclass(frozen=True)
class WebhookSettings:
    """[webhooks]: URLs of callers that hear of their jobs' ends."""

    hosts: str = setting("", "Who may be told of jobs' ends: HOST, HOST:PORT, http://HOST:PORT, comma between")
    secret_file: str = setting("", "File with the secret that signs them; made where it is not there", _A_PATH)
    retry_s: float = setting(5.0, "Wait after a first try in vain; later ones wait longer", Range(0.01, 60), unit="s")


_LOOPBACK = r"(localhost|127(\.\d{1,3}){3}|\[::1\])"


@dataclass(frozen=True)
class TelegramSettings:
    """[telegram]: the bot that gives keys."""

    enabled: bool = setting(False, "The daemon keeps the bot running")
    token_file: str = setting("", "File with the bot's token; refused if others can read it", _A_PATH)
    channel: str = setting(
        "",
        "Channel whose members get keys: @name, or its number",
        Form(r"|@[A-Za-z]\w{3,63}|-?\d{1,20}", "a channel: @name, or its number"),
    )
    api_url: str = setting(
        "https://api.telegram.org",
        "Where Telegram's API is; the token travels there",
        Form(rf"https://[^\s/?#]+(/[^\s?#]*)?|http://{_LOOPBACK}(:\d{{1,5}})?(/[^\s?#]*)?", "an https:// URL"),
    )
    admins: str = setting(
        "",
        "Accounts that may ban, and that hear of trouble: numbers, comma between",
        Form(r"|\d{1,15}(\s*,\s*\d{1,15})*", "account numbers, comma between"),
    )
    invite_url: str = setting("", "Where one joins the channel", Form(r"|https?://[^\s]+", "a URL"))
    draw: bool = setting(False, "The bot draws: /draw PROMPT")
    texts_file: str = setting("", "File with answers in other words than craft's own", _A_PATH)
    sweep_every_s: float = setting(
        43200.0, "Asks Telegram about every key's owner so often", Range(1, _A_DAY_S), unit="s"
    )
    commands_per_minute: int = setting(
        20, "Commands of one account that are answered", Range(1, 10_000), unit="per minute"
    )

    @property
    def admin_accounts(self) -> tuple[int, ...]:
        return tuple(int(one) for one in self.admins.split(",") if one.strip())


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    daemon: DaemonSettings = field(default_factory=DaemonSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    prompts: PromptSettings = field(default_factory=PromptSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    keep: KeepSettings = field(default_factory=KeepSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    telegram: TelegramSettings = field(default_factory=TelegramSettings)
    webhooks: WebhookSettings = field(default_factory=WebhookSettings)
    tiers: Mapping[str, TierSettings] = field(default_factory=dict)

    def tier(self, name: str) -> TierSettings:
        """A key's tier; one that was taken out of the configuration is the default one."""
        return self.tiers.get(name) or self.tiers.get(DEFAULT_TIER) or TierSettings()


@functools.cache
def sections_of(schema: type) -> dict[str, type]:
    """Section name -> its dataclass."""
    kinds = get_type_hints(schema)
    return {f.name: kinds[f.name] for f in dataclasses.fields(schema) if f.name != TIERS}


def variable_name(section: str, name: str) -> str:
    """The environment variable that overrides a setting."""
    return f"CRAFT_{section}_{name}".upper()
