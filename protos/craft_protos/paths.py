"""Where everything lies. `config.py` decides the folders; this gives names to what is in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from craft_protos.frozen import dataclass

_LONGEST_SOCKET_PATH = 100  # bytes; the kernel allows 107 on Linux, 103 on macOS


@dataclass(frozen=True)
class Paths:
    """craft's folders and the files in them. Nothing here touches the disk."""

    config_file: Path
    data_dir: Path
    state_dir: Path
    runtime_dir: Path

    @property
    def database(self) -> Path:
        return self.data_dir / "craft.db"

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def loras_dir(self) -> Path:
        """Uploaded LoRAs; those that were linked lie elsewhere."""
        return self.data_dir / "loras"

    @property
    def datasets_dir(self) -> Path:
        """Pictures that are trained on, by sha256."""
        return self.data_dir / "datasets"

    @property
    def inputs_dir(self) -> Path:
        """Pictures that are drawn from, by sha256."""
        return self.data_dir / "inputs"

    @property
    def training_dir(self) -> Path:
        """A folder for each train job: its checkpoint and samples."""
        return self.data_dir / "training"

    @property
    def room_file(self) -> Path:
        """Bytes that are given up when the disk is full."""
        return self.data_dir / "room"

    @property
    def webhook_secret(self) -> Path:
        """What webhooks are signed with, where webhooks.secret_file names no other."""
        return self.data_dir / "webhook.secret"

    @property
    def schedulers_dir(self) -> Path:
        """Configurations made for models whose own says another prediction than all the evidence."""
        return self.data_dir / "schedulers"

    @property
    def files_dir(self) -> Path:
        """Every file a worker may be asked to open, by sha256 (links, not copies)."""
        return self.data_dir / "files"

    @property
    def fleet_dir(self) -> Path:
        """The certificates of the worker port."""
        return self.state_dir / "fleet"

    @property
    def joined_dir(self) -> Path:
        """A folder for each daemon whose worker this machine is: its certificate, and that daemon's files."""
        return self.data_dir / "joined"

    @property
    def lock_file(self) -> Path:
        """Held with flock by the one daemon; its text is JSON: pid, address, version."""
        return self.data_dir / "craftd.lock"

    @property
    def start_lock_file(self) -> Path:
        """Held by a client while it starts the daemon."""
        return self.data_dir / "start.lock"

    @property
    def renewals_file(self) -> Path:
        """Which versions of craft have replaced daemons of which: each pair once."""
        return self.data_dir / "renewals.json"

    @property
    def bot_database(self) -> Path:
        """What the Telegram bot must remember."""
        return self.data_dir / "bot.db"

    @property
    def bot_lock_file(self) -> Path:
        """Held with flock by the one bot of this data folder."""
        return self.data_dir / "bot.lock"

    @property
    def log_file(self) -> Path:
        return self.state_dir / "craftd.log"

    @property
    def socket(self) -> Path:
        """The daemon's unix socket, one a data folder; a short path elsewhere where the usual one is too long."""
        digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]
        usual = self.runtime_dir / f"craftd-{digest}.sock"
        if len(str(usual).encode()) <= _LONGEST_SOCKET_PATH:
            return usual
        return Path("/tmp") / f"craft-{digest}" / "craftd.sock"

    @property
    def start_log_file(self) -> Path:
        """What a daemon said that did not come up."""
        return self.state_dir / "craftd-start.log"

    @property
    def owned(self) -> tuple[Path, ...]:
        """All that craft may make in its folders, which may hold what others have made."""
        databases = (self.database, self.bot_database)
        return (
            *(file for one in databases for file in sorted(one.parent.glob(f"{one.name}*"))),
            *(self.images_dir, self.models_dir, self.loras_dir, self.datasets_dir, self.inputs_dir),
            *(self.training_dir, self.room_file, self.schedulers_dir, self.files_dir, self.fleet_dir),
            *(self.joined_dir, self.lock_file, self.webhook_secret),
            *(self.start_lock_file, self.renewals_file, self.bot_lock_file, self.socket, self.start_log_file),
            *sorted(self.state_dir.glob(f"{self.log_file.name}*")),
            *(self.config_file, self.config_file.parent / "presets"),
        )
