"""The service files: what they say, and whose they are."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from craft_cli.connection import services
from craft_protos.paths import Paths

STRANGE = """it's "50%Q" \\n $HOME é --> <&"""


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "config home"


def _paths(data_dir: Path) -> Paths:
    return Paths(data_dir / "config.toml", data_dir, data_dir / "state", data_dir / "run")


def _environment(paths: Paths) -> dict[str, str]:
    return {
        "CRAFT_CONFIG": str(paths.config_file),
        "CRAFT_DATA_DIR": str(paths.data_dir),
        "CRAFT_STATE_DIR": str(paths.state_dir),
        "CRAFT_RUNTIME_DIR": str(paths.runtime_dir),
    }


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("name", ["data", STRANGE, "two\nlines"])
def test_a_service_is_found_by_its_own_data_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, name: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    mine = _paths(tmp_path / name)
    assert services.installed(mine) is None
    services.describe(mine).install()
    found = services.installed(mine)
    assert found is not None and found.file == services.describe(mine).file
    for other in (f"{name}2", name[:-1], f"{name}/data"):
        assert services.installed(_paths(tmp_path / other)) is None


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("text", ["", "\n", "# another's\n[Service]\n", "<plist/>", "\xff"])
def test_anothers_file_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, text: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    file = services.describe(_paths(tmp_path)).file
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="latin-1")
    assert services.installed(_paths(tmp_path)) is None


def test_a_unit_lies_where_systemd_looks(tmp_path: Path, config_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert services._systemd(_paths(tmp_path), 60).file == config_home / "systemd" / "user" / "craftd.service"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CONFIG_HOME", ignored)
        unit = services._systemd(_paths(tmp_path), 60).file
        assert unit == tmp_path / ".config" / "systemd" / "user" / "craftd.service"


def test_a_units_values_are_escaped_as_systemd_reads_them(tmp_path: Path) -> None:
    lines = services._systemd(_paths(Path("/x") / STRANGE), 60).text.splitlines()
    assert r'Environment="CRAFT_DATA_DIR=/x/it' "'" r's \"50%%Q\" \\n $HOME é --> <&"' in lines
    assert len([line for line in lines if line.startswith("Environment=")]) == 4


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["data", STRANGE])
def test_systemd_understands_the_unit(tmp_path: Path, name: str) -> None:
    service = services._systemd(_paths(tmp_path / name), 60)
    service.install()
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", service.file],
        env=dict(os.environ, XDG_RUNTIME_DIR=str(tmp_path / "run")),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.parametrize(("grace_s", "stop_s"), [(30.0, 60), (600.5, 631)])
def test_the_manager_waits_longer_than_the_daemons_grace(tmp_path: Path, grace_s: float, stop_s: int) -> None:
    assert f"\nTimeoutStopSec={stop_s}\n" in services.describe(_paths(tmp_path), grace_s).text


def test_the_launchd_agent(tmp_path: Path) -> None:
    paths = _paths(tmp_path / STRANGE)
    service = services._launchd(paths, 631)
    assert service.file == tmp_path / "Library" / "LaunchAgents" / "craft.craftd.plist"
    assert plistlib.loads(service.text.encode()) == {
        "Label": "craft.craftd",
        "ProgramArguments": [sys.executable, "-P", "-m", "craftd"],
        "EnvironmentVariables": _environment(paths),
        "KeepAlive": {"SuccessfulExit": False},
        "RunAtLoad": True,
        "ExitTimeOut": 631,
    }
