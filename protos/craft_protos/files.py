"""What the operating system says of files, as errors that a user may see: the one place that maps them, by kind.

reading   77 FILE_FORBIDDEN    it is not allowed
          66 NO_INPUT          whatever else keeps it from being read
writing   77 OUTPUT_FORBIDDEN
          73 OUTPUT_EXISTS, OUTPUT_IMPOSSIBLE   no file of that name can be made
          74 OUTPUT_FAILED     the disk is full, broken, or the folder is gone
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from craft_protos.reasons import CraftError

Name = str | os.PathLike[str]

_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ)
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EPIPE)
_SHOWN = 100  # characters of a name, of which the longest have thousands


def unreadable(name: Name, error: OSError, hint: str = "see that you may read it") -> CraftError:
    """For what was to be read."""
    reason = "FILE_FORBIDDEN" if error.errno in _FORBIDDEN else "NO_INPUT"
    return CraftError(reason, f"{shown(name)} cannot be read: {_why(error)}", hint)


def unwritable(name: Name, error: OSError, hint: str = "choose another with -o") -> CraftError:
    """For what was to be written."""
    message = f"{shown(name)} cannot be written: {_why(error)}"
    if error.errno == errno.EEXIST:
        return CraftError("OUTPUT_EXISTS", f"{shown(name)} exists", hint)
    if error.errno in _FORBIDDEN:
        return CraftError("OUTPUT_FORBIDDEN", message, hint)
    return CraftError("OUTPUT_IMPOSSIBLE" if error.errno in _NO_NAME else "OUTPUT_FAILED", message, hint)


def trouble(error: OSError) -> CraftError:
    """For what nobody foresaw: it is no bug that a system refuses something."""
    name = str(error.filename) if error.filename else "what craft needs"
    if error.errno in _WRITING:
        return unwritable(name, error, "see `craft config path`, and that there is room")
    return unreadable(name, error, "see `craft config path`, and that you may read it")


def is_there(path: Name) -> bool:
    """Of these three, each is False where the system will not say: a name too long, a folder not to be entered."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Name) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Name) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def why_not(path: Name) -> CraftError | None:
    """Why it cannot be read; None where it is there."""
    try:
        Path(path).stat()
    except OSError as error:
        return unreadable(path, error, "give the path of what is there")
    return None


def shown(name: Name) -> str:
    """A name of any length, for a message."""
    text = os.fspath(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
