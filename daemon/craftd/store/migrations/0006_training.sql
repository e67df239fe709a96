-- Pictures that came to be trained on; their files lie in the datasets folder by sha256.
CREATE TABLE datasets (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, -- sha256 of the pictures and captions
    owner TEXT NOT NULL,
    left_out TEXT NOT NULL, -- JSON: [[file name, why], ...]
    create_time REAL NOT NULL, -- of the latest upload
    UNIQUE (owner, id)
);

CREATE TABLE dataset_pictures (
    dataset INTEGER NOT NULL REFERENCES datasets (seq) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    file_name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    caption TEXT NOT NULL,
    PRIMARY KEY (dataset, place)
) WITHOUT ROWID;

-- How far a train job is: what of it outlives the worker and the daemon.
CREATE TABLE trainings (
    job_id TEXT PRIMARY KEY REFERENCES jobs (id),
    checkpoint_step INTEGER NOT NULL DEFAULT 0, -- 0: none
    checkpoint_sha256 TEXT NOT NULL DEFAULT '',
    checkpoint_bytes INTEGER NOT NULL DEFAULT 0,
    made_sha256 TEXT NOT NULL DEFAULT '', -- the finished LoRA's file, while it is not registered
    lora TEXT NOT NULL DEFAULT '' -- id of the LoRA that it became
) WITHOUT ROWID;

CREATE TABLE training_steps (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    loss REAL NOT NULL,
    learning_rate REAL NOT NULL,
    PRIMARY KEY (job_id, step)
) WITHOUT ROWID;

CREATE TABLE training_samples (
    job_id TEXT NOT NULL REFERENCES jobs (id),
    step INTEGER NOT NULL,
    place INTEGER NOT NULL, -- among those of the step
    prompt TEXT NOT NULL,
    seed INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    file TEXT NOT NULL, -- its name in the job's folder
    PRIMARY KEY (job_id, step, place)
) WITHOUT ROWID;

-- A picture that a LoRA was trained to draw; null: none.
ALTER TABLE loras ADD COLUMN preview BLOB;

ALTER TABLE jobs ADD COLUMN lora TEXT NOT NULL DEFAULT ''; -- id of the LoRA that a train job became
