CREATE TABLE deadline (
    order_id TEXT PRIMARY KEY,
    state    TEXT NOT NULL  -- open, paid or cancelled
) WITHOUT ROWID;
