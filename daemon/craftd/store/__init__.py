"""The database: one file, one owner of its connection, plain SQL."""
