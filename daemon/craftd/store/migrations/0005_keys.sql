CREATE TABLE keys (
    id TEXT PRIMARY KEY, -- the public part
    owner TEXT NOT NULL UNIQUE, -- an owner has one key
    secret_sha256 BLOB NOT NULL, -- all that is kept of the secret
    role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
    tier TEXT NOT NULL,
    is_suspended INTEGER NOT NULL DEFAULT 0,
    create_time REAL NOT NULL,
    last_used_time REAL -- null: never; written now and then
) WITHOUT ROWID;

-- For good: a ban outlives the key.
CREATE TABLE banned_owners (owner TEXT PRIMARY KEY, create_time REAL NOT NULL) WITHOUT ROWID;

ALTER TABLE jobs ADD COLUMN is_public INTEGER NOT NULL DEFAULT 0; -- its images need no key, but their whole id

CREATE INDEX jobs_by_owner ON jobs (owner, seq);
