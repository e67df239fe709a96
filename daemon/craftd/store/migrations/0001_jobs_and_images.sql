CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of arrival
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    request_id TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    kind TEXT NOT NULL,
    spec TEXT NOT NULL, -- JSON, resolved
    priority INTEGER NOT NULL, -- 0: interactive, 1: batch
    lease INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    is_suspect INTEGER NOT NULL DEFAULT 0, -- was running when a worker died: runs alone from then on
    create_time REAL NOT NULL, -- all times: seconds since 1970
    expire_time REAL,
    start_time REAL,
    finish_time REAL,
    load_s REAL NOT NULL DEFAULT 0,
    denoise_s REAL NOT NULL DEFAULT 0,
    error_reason TEXT,
    error_message TEXT,
    error_hint TEXT,
    UNIQUE (owner, request_id)
);

CREATE INDEX jobs_unfinished ON jobs (seq) WHERE state IN ('QUEUED', 'RUNNING');

CREATE TABLE images (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    job_id TEXT NOT NULL REFERENCES jobs (id),
    "index" INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    file TEXT NOT NULL, -- its name in the images folder
    sha256 TEXT NOT NULL,
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    create_time REAL NOT NULL,
    model TEXT NOT NULL,
    prompt TEXT NOT NULL,
    provenance TEXT NOT NULL,
    UNIQUE (job_id, "index") -- an image is drawn once
);

-- What a file's contents hash to, as long as it looks the same.
CREATE TABLE file_hashes (
    path TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL
) WITHOUT ROWID;
