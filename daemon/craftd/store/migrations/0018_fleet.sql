-- Workers on other machines: who was invited, and who has joined.
CREATE TABLE fleet_invitations (
    token_sha256 TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    expire_time REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE fleet_workers (
    name TEXT NOT NULL PRIMARY KEY,
    join_time REAL NOT NULL,
    serial TEXT NOT NULL, -- of its certificate; hexadecimal, as is the next
    former_serial TEXT NOT NULL -- of the one before, which it may still show once
) WITHOUT ROWID;
