CREATE TABLE review (
    id          BLOB    NOT NULL PRIMARY KEY,  -- UUID
    product_id  BLOB    NOT NULL,              -- UUID
    stars       INTEGER NOT NULL,
    fingerprint BLOB    NOT NULL,  -- of the request: sent again, it is not a conflict
    position    INTEGER NOT NULL   -- of the event
) WITHOUT ROWID;
