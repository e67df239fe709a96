-- What an image's owner says of it; is_public null: as its job was asked for.
ALTER TABLE images ADD COLUMN is_favourite INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN is_public INTEGER;
