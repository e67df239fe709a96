-- URLs that are to hear of a job's end, until they have.
CREATE TABLE webhooks (
    job_id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    url TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, -- in vain
    next_time REAL NOT NULL DEFAULT 0 -- not sent before
) WITHOUT ROWID;
