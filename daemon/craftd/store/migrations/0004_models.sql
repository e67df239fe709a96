-- Models that were added or pulled, beside those that lie in the models folder.
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    path BLOB NOT NULL, -- a diffusers folder, or a checkpoint of one file
    source TEXT NOT NULL, -- a path, or ORG/NAME@sha, or ORG/NAME@sha:file
    files TEXT NOT NULL, -- JSON: the names of the folder's files that are the model's; null: as the folder says
    create_time REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE model_aliases (
    alias TEXT PRIMARY KEY,
    model TEXT NOT NULL
) WITHOUT ROWID;

-- Files in the Hugging Face cache that are there because craft downloaded them: its to delete.
CREATE TABLE model_downloads (path BLOB PRIMARY KEY) WITHOUT ROWID;
