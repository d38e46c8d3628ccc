-- When the projection had been folded to the end of all its sources for the first time, in ms
-- since 1970. NULL: what its tables show is not whole yet.
ALTER TABLE headwater_projection ADD COLUMN completed_at INTEGER;

-- 1: not at fault itself, it waits behind another one of its lane.
ALTER TABLE headwater_dead_letter ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
UPDATE headwater_dead_letter SET waiting = 1 WHERE reason = 'waits behind a parked event';

-- Dead letters that a person gave up, with the reason. A rebuild leaves them out, too.
CREATE TABLE headwater_discarded (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    projection        TEXT    NOT NULL,
    source            TEXT    NOT NULL,
    lane              TEXT    NOT NULL,
    epoch             TEXT,
    position          INTEGER,
    sequence          INTEGER,
    subject           TEXT    NOT NULL,
    payload           BLOB    NOT NULL,
    reason            TEXT    NOT NULL,
    recorded_at       INTEGER NOT NULL,  -- ms since 1970
    discarded_because TEXT    NOT NULL,
    discarded_at      INTEGER NOT NULL   -- ms since 1970
);
