-- Pictures that come several times in an epoch, and masks beside them; mask_sha256 '': it has none.
ALTER TABLE dataset_pictures ADD COLUMN repeats INTEGER NOT NULL DEFAULT 1;
ALTER TABLE dataset_pictures ADD COLUMN mask_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE dataset_pictures ADD COLUMN mask_bytes INTEGER NOT NULL DEFAULT 0;
