"""The schema: numbered migrations, and what is checked before a database is opened for writing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import apsw
from craft_protos.reasons import CraftError
from craft_protos.version import __version__

_FOLDER = Path(__file__).parent / "migrations"
_APPLICATION_ID = 0x43524654  # "CRFT"
_CHECKED_BYTES = 64 << 20  # beyond this a full check would cost the start too much


@dataclass(frozen=True)
class Migration:
    number: int
    sql: str


def migrations() -> list[Migration]:
    """In order, from store/migrations/NNNN_name.sql."""
    found = [Migration(int(path.name[:4]), path.read_text(encoding="utf-8")) for path in _FOLDER.glob("*.sql")]
    return sorted(found, key=lambda migration: migration.number)


def check(path: Path) -> None:
    """Look without writing: raises STORE_CORRUPT or STORE_NEWER, and leaves every byte as it was."""
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        connection = _open_for_reading(path)
        try:
            _check_content(path, connection)
        finally:
            connection.close()
    except (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError, apsw.IOError) as exc:
        raise corrupt(path, str(exc)) from exc


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema up to this craft's; each migration is one transaction."""
    version = user_version(connection)
    for migration in migrations():
        if migration.number > version:
            with connection:
                connection.execute(migration.sql)
                connection.execute(f"PRAGMA user_version = {migration.number}")
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('craft_version', ?)", (__version__,))


def user_version(connection: apsw.Connection) -> int:
    """The number of the last migration that was applied."""
    return int(connection.pragma("user_version"))


def corrupt(path: Path, why: str) -> CraftError:
    """STORE_CORRUPT with the command that brings the last good copy back."""
    backup = backup_of(path)
    restore = f"mv {path} {path}.damaged && rm -f {path}-wal {path}-shm"
    if backup.exists():
        restore += f" && cp {backup} {path}"
    return CraftError("STORE_CORRUPT", f"{path}: the database is damaged ({why})", f"restore: {restore}")


def backup_of(path: Path) -> Path:
    return path.with_name(path.name + ".bak")


def _open_for_reading(path: Path) -> apsw.Connection:
    # Without a log of its own, `immutable` keeps SQLite from making -wal and -shm files.
    has_log = path.with_name(path.name + "-wal").exists()
    name = re.sub(r"[?#%]", lambda found: f"%{ord(found.group()):02x}", str(path))
    uri = f"file:{name}?mode=ro" + ("" if has_log else "&immutable=1")
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def _check_content(path: Path, connection: apsw.Connection) -> None:
    version, known = user_version(connection), migrations()[-1].number
    if version > known:
        raise CraftError(
            "STORE_NEWER",
            f"{path}: the database was made by craft {_maker(connection)} (schema {version}; this craft knows {known})",
            "install that craft again, or set CRAFT_DATA_DIR to another folder",
        )
    is_new = (
        version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    )  # a first start cut short
    if not is_new and connection.pragma("application_id") != _APPLICATION_ID:
        raise corrupt(path, "it is not a database of craft's")
    if path.stat().st_size <= _CHECKED_BYTES:
        result = connection.pragma("quick_check")
        if result != "ok":
            raise corrupt(path, str(result).splitlines()[-1])


def _maker(connection: apsw.Connection) -> str:
    try:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'craft_version'").get or "?")
    except apsw.SQLError:
        return "?"
