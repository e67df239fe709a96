"""The configuration's schema: what each setting may be, whoever sets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_type_hints

import pytest
from craft_protos import config
from craft_protos.reasons import CraftError
from craft_protos.settings import Settings, sections_of, variable_name

UNUSABLE = [
    ("daemon", "queue_limit", "0"),
    ("daemon", "listen", "127.0.0.1:65536"),
    ("http", "listen", "127.0.0.1:99999"),  # the system would take it for 34463
    ("http", "listen", ""),
    ("daemon", "grace_s", "nan"),
    ("daemon", "grace_s", "-1"),
    ("daemon", "lease_s", "0"),
    ("daemon", "keep_alive_s", "inf"),
    ("daemon", "keep_alive_s", "nan"),
    ("daemon", "log_level", "loud"),
    ("worker", "module", ""),
    ("worker", "module", "-c"),
    ("worker", "device", "gpu"),
    ("worker", "precision", "fp8"),
    ("worker", "threads", "-1"),
    ("worker", "max_rows", "0"),
    ("worker", "stall_timeout_s", "0"),
    ("worker", "load_timeout_s", "inf"),
    ("generate", "sampler", "Eul"),
    ("generate", "format", "gif"),
    ("limits", "max_side", "0"),
    ("limits", "max_pixels", "0"),
    ("limits", "max_steps", "0"),
    ("limits", "max_count", "-3"),
    ("limits", "max_prompt_chars", "0"),
]


@pytest.mark.parametrize(("section", "name", "value"), UNUSABLE)
def test_what_would_make_craft_unusable_is_refused_wherever_it_stands(
    section: str, name: str, value: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    is_text = get_type_hints(sections_of(Settings)[section])[name] is str
    file.write_text(f"[{section}]\n\n{name} = {json.dumps(value) if is_text else value}\n")
    with pytest.raises(CraftError) as refused:
        config.load(file, {})
    assert refused.value.reason == "CONFIG_INVALID"
    assert refused.value.message.startswith(f"{file}:3: {section}.{name} ")
    variable = variable_name(section, name)
    with pytest.raises(CraftError, match=f"^{variable}: ") as refused:
        config.load(tmp_path / "none.toml", {variable: value})
    assert refused.value.exit_code == 78


@pytest.mark.parametrize(
    ("section", "name", "value", "taken"),
    [
        ("daemon", "keep_alive_s", "-1", -1.0),
        ("daemon", "grace_s", "0", 0.0),
        ("worker", "device", "cuda:1", "cuda:1"),
        ("generate", "sampler", "dpm++_2m karras", "dpm++_2m karras"),
        ("generate", "sampler", "", ""),
        ("generate", "model", "any/thing", "any/thing"),
    ],
)
def test_what_is_within_is_taken(section: str, name: str, value: str, taken: object, tmp_path: Path) -> None:
    settings = config.load(tmp_path / "none.toml", {variable_name(section, name): value})
    assert getattr(getattr(settings, section), name) == taken


def test_the_defaults_keep_their_own_rules(tmp_path: Path) -> None:
    defaults = Settings()
    lines = []
    for section, schema in sections_of(Settings).items():
        lines.append(f"[{section}]")
        values = getattr(defaults, section)
        lines += [f"{name} = {json.dumps(getattr(values, name))}" for name in get_type_hints(schema)]
    file = tmp_path / "config.toml"
    file.write_text("\n".join(lines))
    assert config.load(file, {}) == defaults


@pytest.mark.parametrize("contents", [b"\xff\xfe", b"a = " + b"[" * 100_000])
def test_a_file_that_cannot_be_read_is_named_without_a_line(contents: bytes, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(contents)
    with pytest.raises(CraftError) as refused:
        config.load(file, {})
    assert refused.value.reason == "CONFIG_INVALID"
    assert refused.value.message.startswith((f"{file} ", f"{file}: "))
    assert refused.value.hint
