"""[generate] is what the configuration file says now."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from craft_protos.settings import GenerateSettings
from craftd.jobs.generate_defaults import GenerateDefaults


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MODEL", "SAMPLER", "FORMAT"):
        monkeypatch.delenv(f"CRAFT_GENERATE_{name}", raising=False)
    return tmp_path / "config.toml"


def test_the_file_is_followed(file: Path) -> None:
    generating = GenerateDefaults(file, GenerateSettings(model="at-start"))
    assert generating.model == "at-start"
    file.write_text('[generate]\nmodel = "sdxl"\nsampler = "Heun"\n')
    assert (generating.model, generating.settings.sampler, generating.settings.format) == ("sdxl", "Heun", "png")
    file.write_text('[generate]\nsampler = "Heun"\n')
    assert (generating.model, generating.settings.model) == ("pocket", "")
    file.unlink()
    assert generating.settings == GenerateSettings()


def test_the_environment_of_the_daemon_comes_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generating = GenerateDefaults(file, GenerateSettings())
    monkeypatch.setenv("CRAFT_GENERATE_MODEL", "mine")
    file.write_text('[generate]\nmodel = "sdxl"\n')
    assert generating.model == "mine"


def test_a_broken_file_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text('[generate]\nmodel = "sdxl"\n')
    generating = GenerateDefaults(file, GenerateSettings(model="sdxl"))
    file.write_text("[generate\n")
    with caplog.at_level(logging.WARNING, "craft.jobs"):
        assert [generating.model, generating.model] == ["sdxl", "sdxl"]
    (said,) = caplog.messages
    assert f"{file}:1" in said
    file.write_text('[generate]\nmodel = "sd3"\n')
    assert generating.model == "sd3"
