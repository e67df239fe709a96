"""craftd as a service of the user's session: a systemd unit, or a launchd agent on macOS."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from craft_protos import config, files
from craft_protos.frozen import dataclass
from craft_protos.paths import Paths
from craft_protos.settings import DaemonSettings

_LABEL = "craft.craftd"
_MARK = "craft data folder:"
_STOP_MARGIN_S = 30  # to write what is left to write


@dataclass(frozen=True)
class Service:
    """One service file, and the commands that its manager knows."""

    file: Path
    text: str
    folder_in: Callable[[str], str]  # the data folder that such a file's text names
    enable: list[str]
    start_command: list[str]
    disable: list[str]
    reload: list[str]

    def install(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise files.unwritable(self.file, error, "see XDG_CONFIG_HOME, and that the folder is yours") from error

    def uninstall(self) -> bool:
        """Whether there was one."""
        if not self.file.exists():
            return False
        _run(self.disable)
        self.file.unlink()
        _run(self.reload)
        return True

    def start(self) -> bool:
        """Whether the service's manager could start it (there may be none, as under cron)."""
        return _run(self.start_command)

    def activate(self) -> bool:
        """Make the manager read the file, start the service now and at every login."""
        _run(self.reload)
        return _run(self.enable)


def installed(paths: Paths) -> Service | None:
    """The installed service, if it serves this data folder."""
    service = describe(paths)
    try:
        text = service.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return service if service.folder_in(text) == str(paths.data_dir) else None


def describe(paths: Paths, grace_s: float = DaemonSettings.grace_s) -> Service:
    """This system's service for this data folder; `grace_s`: what its daemon takes to stop."""
    stop_s = math.ceil(grace_s) + _STOP_MARGIN_S
    return _launchd(paths, stop_s) if sys.platform == "darwin" else _systemd(paths, stop_s)


def _systemd(paths: Paths, stop_s: int) -> Service:
    folder = f"# {_MARK} "
    lines = [
        f"{folder}{_escaped(str(paths.data_dir))}",
        "[Unit]",
        "Description=craft: text-to-image daemon",
        "",
        "[Service]",
        "Type=notify",
        f'ExecStart="{_escaped(sys.executable)}" -P -m craftd',
        *(f'Environment="{name}={_escaped(value)}"' for name, value in _environment(paths).items()),
        "Restart=on-failure",
        "KillMode=mixed",
        f"TimeoutStopSec={stop_s}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]

    def folder_in(text: str) -> str:
        return _unescaped(text.partition("\n")[0].removeprefix(folder))

    systemctl = ["systemctl", "--user"]
    return Service(
        file=config.user_config_home() / "systemd" / "user" / "craftd.service",
        text="".join(f"{line}\n" for line in lines),
        folder_in=folder_in,
        enable=[*systemctl, "enable", "--now", "craftd.service"],
        start_command=[*systemctl, "start", "craftd.service"],
        disable=[*systemctl, "disable", "--now", "craftd.service"],
        reload=[*systemctl, "daemon-reload"],
    )


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "%": "%%"}


def _escaped(text: str) -> str:
    """For use between a unit file's double quotes."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _unescaped(text: str) -> str:
    plain = {written: meant for meant, written in _ESCAPES.items()}
    return re.sub(r"\\.|%%", lambda found: plain.get(found[0], found[0]), text)


def _launchd(paths: Paths, stop_s: int) -> Service:
    import plistlib  # macOS alone needs it
    from xml.parsers.expat import ExpatError

    file = Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    agent = {
        "Label": _LABEL,
        "ProgramArguments": [sys.executable, "-P", "-m", "craftd"],
        "EnvironmentVariables": _environment(paths),
        "KeepAlive": {"SuccessfulExit": False},
        "RunAtLoad": True,
        "ExitTimeOut": stop_s,
    }

    def folder_in(text: str) -> str:
        try:
            return str(plistlib.loads(text.encode())["EnvironmentVariables"]["CRAFT_DATA_DIR"])
        except (ValueError, ExpatError, LookupError, TypeError):  # not ours
            return ""

    domain = f"gui/{os.getuid()}"
    return Service(
        file=file,
        text=plistlib.dumps(agent, sort_keys=False).decode(),
        folder_in=folder_in,
        enable=["launchctl", "bootstrap", domain, str(file)],
        start_command=["launchctl", "kickstart", f"{domain}/{_LABEL}"],
        disable=["launchctl", "bootout", f"{domain}/{_LABEL}"],
        reload=["true"],
    )


def _environment(paths: Paths) -> dict[str, str]:
    """The folders in use, so that the service and this shell mean the same daemon."""
    return {
        "CRAFT_CONFIG": str(paths.config_file.absolute()),
        "CRAFT_DATA_DIR": str(paths.data_dir),
        "CRAFT_STATE_DIR": str(paths.state_dir),
        "CRAFT_RUNTIME_DIR": str(paths.runtime_dir),
    }


def _run(command: list[str]) -> bool:
    """Whether the command exists and succeeds."""
    if shutil.which(command[0]) is None:
        return False
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
