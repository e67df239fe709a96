-- Pictures that drawing begins from; their files lie in the inputs folder by sha256.
CREATE TABLE inputs (
    owner TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    width INTEGER NOT NULL, -- upright
    height INTEGER NOT NULL,
    has_alpha INTEGER NOT NULL,
    use_time REAL NOT NULL, -- when it was sent, or a job needed it last
    PRIMARY KEY (owner, sha256)
) WITHOUT ROWID;
CREATE INDEX inputs_by_sha256 ON inputs (sha256);
