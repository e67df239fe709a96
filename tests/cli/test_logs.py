"""What the daemon writes into its log, as `craft daemon logs` shows it."""

from __future__ import annotations

import json
import logging

from craft_cli.commands.daemon import _readable
from craft_protos import records
from craftd.logs import JsonLines

AT = 1767225600.25  # 2026-01-01


def _record(message: str, *, exc: BaseException | None = None, **extra: object) -> str:
    info = None if exc is None else (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("craft.jobs", logging.WARNING, __file__, 1, message, None, info)
    record.created = AT
    vars(record).update(extra)
    return JsonLines().format(record)


def _raised() -> Exception:
    try:
        raise ValueError("no\x1b[31m luck\nat all")
    except ValueError as exc:
        return exc


def test_a_line() -> None:
    line = _record("job ended", job="j1", total_s=0.5)
    assert list(json.loads(line)) == [*records.HEAD, "job", "total_s"]
    assert _readable(line) == "2026-01-01T00:00:00.250+00:00 warning craft.jobs job ended job=j1 total_s=0.5"


def test_a_traceback_has_its_lines() -> None:
    shown = _readable(_record("unexpected error in a request", exc=_raised(), job="j1")).split("\n")
    assert shown[0] == "2026-01-01T00:00:00.250+00:00 warning craft.jobs unexpected error in a request job=j1"
    assert shown[1] == "Traceback (most recent call last):"
    assert shown[2].startswith('  File "') and shown[3] == '    raise ValueError("no\\x1b[31m luck\\nat all")'
    assert shown[-2:] == ["ValueError: no [31m luck", "at all"]


def test_what_is_no_record_is_shown_as_it_is() -> None:
    assert _readable("Killed\x1b[2J") == "Killed [2J"
    assert _readable('["a list"]') == '["a list"]'
