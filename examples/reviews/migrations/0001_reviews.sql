CREATE TABLE review (
    id          BLOB    NOT NULL PRIMARY KEY,  -- UUID
    product_id  BLOB    NOT NULL,              -- UUID
    stars       INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,  -- of the request that wrote it: the same one again is no conflict
    position    INTEGER NOT NULL   -- of its event
) WITHOUT ROWID;
