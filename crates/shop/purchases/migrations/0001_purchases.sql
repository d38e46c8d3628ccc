-- Users and products have small numbers of this store's own, so that a pair of them, of which
-- there are the most by far, takes 20 bytes and not 48. The numbers depend on the order in which
-- events came; nothing outside ever sees them.
CREATE TABLE user (
    number INTEGER PRIMARY KEY,
    id     BLOB    NOT NULL UNIQUE,  -- UUID
    state  INTEGER NOT NULL          -- 0: only heard of, by an order; 1: registered; 2: erased, for ever
);

CREATE TABLE product (
    number INTEGER PRIMARY KEY,
    id     BLOB NOT NULL UNIQUE,  -- UUID
    title  TEXT,                  -- NULL: only heard of, by an order
    image  TEXT
);

-- One row for each product that a user ever ordered.
CREATE TABLE purchase (
    user             INTEGER NOT NULL,
    product          INTEGER NOT NULL,
    first_ordered_at INTEGER NOT NULL,  -- ms since 1970
    PRIMARY KEY (user, product)
) WITHOUT ROWID;
