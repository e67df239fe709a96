-- What the check of a model's files found, as long as the folder looks the same to the same check.
CREATE TABLE verdicts (
    folder TEXT PRIMARY KEY,
    look TEXT NOT NULL,
    reason TEXT NOT NULL, -- empty: nothing is wrong
    message TEXT NOT NULL,
    hint TEXT NOT NULL
) WITHOUT ROWID;
