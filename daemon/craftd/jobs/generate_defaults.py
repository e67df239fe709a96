"""[generate] as the configuration file has it now: what `craft config set` changes there needs no restart."""

from __future__ import annotations

import logging
from pathlib import Path

from craft_protos import config
from craft_protos.reasons import CraftError
from craft_protos.settings import GenerateSettings

from craftd.models.registry import BUILT_IN

_log = logging.getLogger("craft.jobs")

_Stamp = tuple[int, int, int] | None


class GenerateDefaults:
    """`settings`: those of the daemon's start, which hold until the file is another one."""

    def __init__(self, config_file: Path, settings: GenerateSettings) -> None:
        self._file = config_file
        self._settings = settings
        self._stamp = _stamp(config_file)

    @property
    def settings(self) -> GenerateSettings:
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read()
        return self._settings

    @property
    def model(self) -> str:
        """The one to take where none is named."""
        return self.settings.model or BUILT_IN

    def _read(self) -> None:
        try:
            self._settings = config.load(self._file).generate
        except CraftError as exc:
            _log.warning("%s; [generate] stays as it was", exc.message)


def _stamp(file: Path) -> _Stamp:
    """Of one state of the file; None where it cannot be seen."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
