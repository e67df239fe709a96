-- LoRAs have owners: two may have one of the same name, or the same file. What was here is shared, as it was.
CREATE TABLE owned_loras (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    path BLOB NOT NULL, -- where the file lies: its name need not be UTF-8
    is_owned INTEGER NOT NULL, -- in craft's own folder: goes with the last row that has its path
    file_name TEXT NOT NULL, -- as whoever brought it called it
    source TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, -- with the next two: how it looked when its contents were known
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    weight REAL NOT NULL, -- where a job names none
    "trigger" TEXT NOT NULL,
    findings TEXT NOT NULL, -- JSON: what the check found in it
    create_time REAL NOT NULL,
    preview BLOB, -- a picture that it was trained to draw; null: none
    owner TEXT NOT NULL,
    is_shared INTEGER NOT NULL, -- every key draws with it; else its owner and admins alone
    UNIQUE (owner, name),
    UNIQUE (owner, sha256)
);
INSERT INTO owned_loras
    SELECT seq, id, name, sha256, path, is_owned, file_name, source, size_bytes, mtime_ns, inode, weight, "trigger",
        findings, create_time, preview, 'local', 1 FROM loras;
DROP TABLE loras;
ALTER TABLE owned_loras RENAME TO loras;

CREATE TRIGGER loras_forget_their_fits AFTER DELETE ON loras
WHEN NOT EXISTS (SELECT 1 FROM loras WHERE sha256 = OLD.sha256) BEGIN
    DELETE FROM lora_fits WHERE sha256 = OLD.sha256;
END;
