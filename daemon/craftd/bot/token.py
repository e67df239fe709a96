"""The bot's token, from a file that nobody else can read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from craft_protos.reasons import CraftError

_SETTING = "telegram.token_file"
_FORM = re.compile(r"\d{3,20}:[A-Za-z0-9_-]{20,200}")
_MOST_BYTES = 4096


def load(path: str) -> str:
    """Raises CONFIG_INVALID, which never holds what is in the file."""
    if not path:
        raise _bad("is not set", "put BotFather's token into a file of yours, and name it; see docs/telegram.md")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not hold the start
        with os.fdopen(descriptor, "rb") as file:
            _check(Path(path), os.fstat(file.fileno()).st_mode)
            text = file.read(_MOST_BYTES).decode("ascii").strip()
    except OSError as exc:
        raise _bad(f"{path} cannot be read ({exc.strerror})", "name a file of yours") from exc
    except UnicodeDecodeError as exc:
        raise _bad(f"{path} holds no token", "it is one line from BotFather: 123456789:AA...") from exc
    if not _FORM.fullmatch(text):
        raise _bad(f"{path} holds no token", "it is one line from BotFather: 123456789:AA...")
    return text


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise _bad(f"{path} is not a file", "name a file of yours")
    if mode & 0o077:
        raise _bad(f"{path} can be read or written by others (mode {mode & 0o777:o})", f"chmod 600 {path}")


def _bad(why: str, hint: str) -> CraftError:
    return CraftError("CONFIG_INVALID", f"{_SETTING}: {why}", hint)
