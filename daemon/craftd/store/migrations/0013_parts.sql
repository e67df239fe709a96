-- Text encoders and VAEs that lie in files of their own.
CREATE TABLE parts (
    name TEXT PRIMARY KEY,
    path BLOB NOT NULL,
    kind TEXT NOT NULL, -- an id of craftd.architectures.parts
    sha256 TEXT NOT NULL, -- of its weights
    source TEXT NOT NULL,
    tokenizer BLOB, -- the folder that brings its vocabulary
    is_downloaded INTEGER NOT NULL, -- by craft
    create_time REAL NOT NULL
) WITHOUT ROWID;

-- Which models have which of them in the place of what.
CREATE TABLE model_parts (
    model TEXT NOT NULL,
    component TEXT NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (model, component)
) WITHOUT ROWID;
