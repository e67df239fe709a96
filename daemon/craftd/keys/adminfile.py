"""The first key, from a file: for containers, where nobody is there to copy it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from craft_protos import api_key, texts
from craft_protos.api_key import Presented
from craft_protos.reasons import CraftError

_SETTING = "keys.admin_key_file"
_MOST_BYTES = 4096


def load(path: Path) -> Presented:
    """The key in the file; where there is none, a new one is written to it. Raises CONFIG_INVALID."""
    try:
        return _read(path)
    except FileNotFoundError:
        return _make(path)
    except (OSError, UnicodeDecodeError) as exc:
        raise _bad(path, f"cannot be read ({exc})") from exc


def _read(path: Path) -> Presented:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise _bad(path, "is not a file")
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise _bad(path, f"can be read or written by others (mode {mode & 0o777:o})", f"chmod 600 {path}")
        text = texts.decoded(file.read(_MOST_BYTES)).encode().decode("ascii").strip()
    presented = api_key.parse(text)
    if presented is None:
        raise _bad(path, "holds no key of craft's", "`craft keys create --owner admin --admin` prints one")
    return presented


def _make(path: Path) -> Presented:
    made = api_key.new()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(made.text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise _bad(path, f"is not there, and cannot be made ({exc.strerror})") from exc
    return made


def _bad(path: Path, why: str, hint: str = "") -> CraftError:
    return CraftError("CONFIG_INVALID", f"{_SETTING}: {path} {why}", hint or f"see to the file, or unset {_SETTING}")
