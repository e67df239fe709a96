-- Images of unfinished jobs that were deleted: they were drawn, and are not drawn again.
CREATE TABLE removed_images (
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    "index" INTEGER NOT NULL,
    PRIMARY KEY (job_id, "index")
) WITHOUT ROWID;
