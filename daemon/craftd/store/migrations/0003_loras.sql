CREATE TABLE loras (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, -- the beginning of sha256
    name TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL UNIQUE,
    path BLOB NOT NULL, -- where the file lies: its name need not be UTF-8
    is_owned INTEGER NOT NULL, -- in craft's own folder: goes with the row
    file_name TEXT NOT NULL, -- as whoever brought it called it
    source TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, -- with the next two: how it looked when its contents were known
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    weight REAL NOT NULL, -- where a job names none
    "trigger" TEXT NOT NULL,
    findings TEXT NOT NULL, -- JSON: what the check found in it
    create_time REAL NOT NULL
);
