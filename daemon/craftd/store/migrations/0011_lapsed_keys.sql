-- A key is suspended while its owner's subscription lapses; what an admin suspended is is_suspended's affair.
ALTER TABLE keys ADD COLUMN is_lapsed INTEGER NOT NULL DEFAULT 0;
