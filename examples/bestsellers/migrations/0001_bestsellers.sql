CREATE TABLE bestseller (
    product BLOB    NOT NULL PRIMARY KEY,  -- UUID
    title   TEXT,                          -- NULL: known only from an order
    lines   INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
