"""craftd as a service of the user's session: a systemd unit, or a launchd agent on macOS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from craft_protos.paths import Paths
from craft_protos.reasons import CraftError

_LABEL = "craft.craftd"
_MARK = "craft data folder:"


@dataclass(frozen=True)
class Service:
    """One service file, and the commands that its manager knows."""

    file: Path
    text: str
    enable: list[str]
    start_command: list[str]
    disable: list[str]
    reload: list[str]

    def install(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise CraftError("OUTPUT_FAILED", f"{self.file} cannot be written: {error.strerror}") from error

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
    except OSError:
        return None
    return service if f"{_MARK} {paths.data_dir}" in text.replace("-->", "").splitlines()[0].rstrip() else None


def describe(paths: Paths) -> Service:
    """This system's service for this data folder."""
    return _launchd(paths) if sys.platform == "darwin" else _systemd(paths)


def _systemd(paths: Paths) -> Service:
    home = Path.home() / ".config"
    quoted = "".join(f'Environment="{name}={value}"\n' for name, value in _environment(paths).items())
    text = (
        f"# {_MARK} {paths.data_dir}\n"
        "[Unit]\nDescription=craft: text-to-image daemon\n\n"
        f'[Service]\nType=notify\nExecStart="{sys.executable}" -P -m craftd\n{quoted}'
        "Restart=on-failure\nKillMode=mixed\nTimeoutStopSec=90\n\n"
        "[Install]\nWantedBy=default.target\n"
    )
    systemctl = ["systemctl", "--user"]
    return Service(
        file=home / "systemd" / "user" / "craftd.service",
        text=text,
        enable=[*systemctl, "enable", "--now", "craftd.service"],
        start_command=[*systemctl, "start", "craftd.service"],
        disable=[*systemctl, "disable", "--now", "craftd.service"],
        reload=[*systemctl, "daemon-reload"],
    )


def _launchd(paths: Paths) -> Service:
    from xml.sax.saxutils import escape

    file = Path.home() / "Library" / "LaunchAgents" / f"{_LABEL}.plist"
    words = "".join(f"<string>{escape(word)}</string>" for word in (sys.executable, "-P", "-m", "craftd"))
    pairs = "".join(f"<key>{name}</key><string>{escape(value)}</string>" for name, value in _environment(paths).items())
    text = (
        f"<!-- {_MARK} {paths.data_dir} -->\n"
        '<plist version="1.0"><dict>'
        f"<key>Label</key><string>{_LABEL}</string><key>ProgramArguments</key><array>{words}</array>"
        f"<key>EnvironmentVariables</key><dict>{pairs}</dict>"
        "<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>"
        "</dict></plist>\n"
    )
    domain = f"gui/{os.getuid()}"
    return Service(
        file=file,
        text=text,
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
