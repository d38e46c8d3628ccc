CREATE TABLE placed_order (
    id          BLOB    NOT NULL PRIMARY KEY,  -- UUID
    user_id     BLOB    NOT NULL,              -- UUID
    placed_at   INTEGER NOT NULL,              -- ms since 1970
    fingerprint BLOB    NOT NULL,  -- of the request that placed it: the same one again is no conflict
    position    INTEGER NOT NULL   -- of its event
) WITHOUT ROWID;
CREATE INDEX placed_order_by_user ON placed_order (user_id, id);

CREATE TABLE order_line (
    order_id   BLOB    NOT NULL REFERENCES placed_order ON DELETE CASCADE,
    line       INTEGER NOT NULL,  -- 0, 1, 2 …
    product_id BLOB    NOT NULL,  -- UUID
    PRIMARY KEY (order_id, line)
) WITHOUT ROWID;

-- This service's own copy of what it needs to know of others, folded from their events.
CREATE TABLE known_user (
    id     BLOB    NOT NULL PRIMARY KEY,  -- UUID
    erased INTEGER NOT NULL               -- 1: erased, for ever
) WITHOUT ROWID;

CREATE TABLE known_product (
    id BLOB NOT NULL PRIMARY KEY  -- UUID
) WITHOUT ROWID;
