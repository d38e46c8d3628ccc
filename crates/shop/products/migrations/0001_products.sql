CREATE TABLE product (
    id          BLOB    NOT NULL PRIMARY KEY,  -- UUID
    title       TEXT    NOT NULL,
    image       TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,  -- of the request that created it: the same one again is no conflict
    position    INTEGER NOT NULL   -- of the event that last changed it
) WITHOUT ROWID;

-- Uploaded pictures, by what is in them: an upload that comes again changes nothing.
CREATE TABLE image (
    id           TEXT NOT NULL PRIMARY KEY,  -- SHA-256 of the bytes, in hex
    content_type TEXT NOT NULL,
    bytes        BLOB NOT NULL
);
