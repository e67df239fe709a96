"""Completions that need to ask: names and ids, from a daemon that runs already. None is started, or waited for long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from craft_protos.formats import FORMATS
from craft_protos.reasons import CraftError

if TYPE_CHECKING:
    from craft_protos import jobs_pb2

    from craft_cli.connection.client import Client

T = TypeVar("T")
Candidates = list[tuple[str, str]]  # a word, and what a shell may say of it
_TIMEOUT_S = 1.0  # a model that is new is looked at first
_RECENT = 50
_LONGEST = 50


def models(incomplete: str) -> list[str]:
    """Names and aliases."""
    known = _asked(lambda client: client.list_models(_TIMEOUT_S))
    return _beginning((name for one in known for name in (one.name, *one.aliases)), incomplete)


def parts(incomplete: str) -> list[str]:
    return _beginning((one.name for one in _asked(lambda client: client.list_parts(_TIMEOUT_S))), incomplete)


def controls(incomplete: str) -> list[str]:
    """Control models, which are parts."""
    known = _asked(lambda client: client.list_parts(_TIMEOUT_S))
    return _beginning((one.name for one in known if one.kind.startswith("control-")), incomplete)


def loras(incomplete: str) -> list[str]:
    return _beginning((one.name for one in _asked(lambda client: client.list_loras(timeout_s=_TIMEOUT_S))), incomplete)


def jobs(incomplete: str) -> Candidates:
    """The newest ones' ids."""
    return _of_jobs(incomplete, is_any=True)


def unfinished_jobs(incomplete: str) -> Candidates:
    return _of_jobs(incomplete, is_any=False)


def images(incomplete: str) -> Candidates:
    """The newest ones' ids."""
    known = _asked(lambda client: client.list_images("", _RECENT, _TIMEOUT_S))
    return [(one.id, _short(one.prompt)) for one in known if one.id.startswith(incomplete)]


def keys(incomplete: str) -> list[str]:
    return _beginning((key.owner for key in _asked(lambda client: client.list_keys(_TIMEOUT_S))), incomplete)


def samplers(incomplete: str) -> list[str]:
    from craft_protos.samplers import SAMPLERS

    names = [name.replace(" ", "-") for name in SAMPLERS]  # one word; any case and punctuation is understood
    return [incomplete + name[len(incomplete) :] for name in names if name.lower().startswith(incomplete.lower())]


def workers(incomplete: str) -> list[str]:
    return _beginning((one.name for one in _asked(lambda client: client.status(_TIMEOUT_S).workers)), incomplete)


def formats(incomplete: str) -> list[str]:
    return _beginning(FORMATS, incomplete)


def lora_forms(incomplete: str) -> list[str]:
    return _beginning(("peft", "kohya", "comfyui"), incomplete)


def presets(incomplete: str) -> list[str]:
    from craft_cli.generate import few_steps, presets

    return _beginning(dict.fromkeys([*presets.names(), *few_steps.PRESETS]), incomplete)


def settings(incomplete: str) -> list[str]:
    from craft_cli.commands.config import names

    return _beginning(names(), incomplete)


def _of_jobs(incomplete: str, *, is_any: bool) -> Candidates:
    from craft_protos import jobs_pb2

    from craft_cli.render import shapes

    states = [] if is_any else [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]
    known = _asked(lambda client: client.list_jobs(states, _RECENT, _TIMEOUT_S))
    return [
        (job.id, f"{shapes.state_of(job.state).lower()}: {_subject(job)}")
        for job in known
        if job.id.startswith(incomplete)
    ]


def _subject(job: jobs_pb2.Job) -> str:
    return _short(f"LoRA {job.train.name}" if job.HasField("train") else job.generate.prompt)


def _asked(question: Callable[[Client], Iterable[T]]) -> list[T]:
    """The daemon's answer; empty where none runs, or says nothing in time."""
    from craft_cli.connection.session import Session

    try:
        return list(question(Session(autostart=False).client))
    except CraftError:
        return []


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _short(text: str) -> str:
    from rich.markup import escape  # Typer reads what a shell says of a word as rich's markup

    from craft_cli import errors

    line = errors.one_line(text)
    return escape(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…")
