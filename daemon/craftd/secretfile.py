"""A secret in a file that a setting names: for the daemon's user alone to read, and made where it is not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from craft_protos import texts
from craft_protos.reasons import CraftError

_MOST_BYTES = 4096


@dataclass(frozen=True)
class SecretFile:
    """`setting`: what names it, for errors."""

    setting: str
    path: Path

    def bad(self, why: str, hint: str = "") -> CraftError:
        hint = hint or f"see to the file, or unset {self.setting}"
        return CraftError("CONFIG_INVALID", f"{self.setting}: {self.path} {why}", hint)


def load(file: SecretFile, make: Callable[[], str]) -> str:
    """What is in the file; where there is none, `make`'s is written to it. Raises CONFIG_INVALID."""
    try:
        return _read(file)
    except FileNotFoundError:
        return _write(file, make())
    except (OSError, UnicodeDecodeError) as exc:
        raise file.bad(f"cannot be read ({exc})") from exc


def _read(file: SecretFile) -> str:
    with file.path.open("rb") as opened:
        mode = os.fstat(opened.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise file.bad("is not a file")
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise file.bad(f"can be read or written by others (mode {mode & 0o777:o})", f"chmod 600 {file.path}")
        return texts.decoded(opened.read(_MOST_BYTES)).encode().decode("ascii").strip()


def _write(file: SecretFile, secret: str) -> str:
    try:
        descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secret + "\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as exc:
        raise file.bad(f"is not there, and cannot be made ({exc.strerror})") from exc
    return secret
