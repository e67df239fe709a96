"""Files of pictures: whole or not at all, and nothing that exists is overwritten unasked."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from craft_protos import files
from craft_protos.reasons import CraftError


def write(path: Path, data: bytes, *, force: bool) -> None:
    """The whole file or nothing, under its name or not at all."""
    write_all(path, (data,), force=force)


def write_all(path: Path, parts: Iterable[bytes], *, force: bool) -> None:
    """The same, of bytes that come one after the other, and may raise."""
    try:
        if is_special(path):
            with path.open("wb") as file:
                file.writelines(parts)
            return
        _write_file(Path(os.path.realpath(path)) if force else path, parts, force)
    except FileExistsError:
        raise exists(path) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise files.unwritable(path, error) from error


def _write_file(path: Path, parts: Iterable[bytes], force: bool) -> None:
    _make_folder(path.parent)
    temporary = path.with_name(_temporary_name())
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        if force:
            temporary.replace(path)
        else:
            _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """With those that it lies in. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder") from None


def _temporary_name() -> str:
    return f".craft-{os.urandom(6).hex()}.part"


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name, unless somebody else has taken it since."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if is_taken(path):
            raise FileExistsError from None
        temporary.rename(path)


def exists(path: Path) -> CraftError:
    return CraftError("OUTPUT_EXISTS", f"{path} exists", "--force overwrites it; -o gives another name")


def is_taken(path: Path) -> bool:
    return os.path.lexists(path) and not is_special(path)


def is_special(path: Path) -> bool:
    """A device or a pipe, such as /dev/null or bash's >(command): written to, never replaced."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check(path: Path) -> None:
    folder = path.parent
    if is_special(path):
        return
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise files.unwritable(path, error) from error
    try:
        _make_folder(folder)
    except OSError as error:
        raise files.unwritable(path, error) from error
    if not os.access(folder, os.W_OK):
        raise files.unwritable(path, _refusal(folder))
    if path.is_dir():
        raise CraftError("OUTPUT_FAILED", f"{path} cannot be written: it is a folder", "choose another with -o")
    try:
        _try_file(path)
    except OSError as error:
        raise files.unwritable(path, error) from error


def _try_file(path: Path) -> None:
    """Makes a file beside it and removes it again: permissions do not tell of /proc, of quotas or of a full disk."""
    temporary = path.with_name(_temporary_name())
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    temporary.unlink()


def _refusal(folder: Path) -> OSError:
    """Why nothing can be written there: access() tells only that."""
    read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return OSError(errno.EROFS if read_only else errno.EACCES, f"{folder} is read-only")
