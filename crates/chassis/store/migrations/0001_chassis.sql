-- Whose database this is, and which life of it: a database that is made anew has another epoch.
CREATE TABLE headwater_database (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    owner      TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    created_at INTEGER NOT NULL  -- ms since 1970
);

-- The source's append-only event log: the truth. Never updated, never deleted from.
-- AUTOINCREMENT: a position that was once committed is never given again;
-- one that was rolled back is, so there are no gaps.
CREATE TABLE headwater_outbox (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    subject     TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    payload     BLOB    NOT NULL,
    traceparent TEXT,
    recorded_at INTEGER NOT NULL  -- ms since 1970
);
CREATE TRIGGER headwater_outbox_is_append_only_update BEFORE UPDATE ON headwater_outbox
BEGIN SELECT RAISE(ABORT, 'the outbox is append-only'); END;
CREATE TRIGGER headwater_outbox_is_append_only_delete BEFORE DELETE ON headwater_outbox
BEGIN SELECT RAISE(ABORT, 'the outbox is append-only'); END;

-- One row an answered create; see idempotency.rs.
CREATE TABLE headwater_idempotency (
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB,              -- NULL: forgotten, its object was erased
    entity      TEXT    NOT NULL,
    answer      TEXT,              -- NULL: forgotten
    recorded_at INTEGER NOT NULL,  -- ms since 1970
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX headwater_idempotency_by_age ON headwater_idempotency (recorded_at);
CREATE INDEX headwater_idempotency_by_entity ON headwater_idempotency (entity);

-- The version each projection's tables were folded with.
CREATE TABLE headwater_projection (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) WITHOUT ROWID;

-- How far a projection has read each source's stream, and the source's life it was last told of.
CREATE TABLE headwater_checkpoint (
    projection     TEXT    NOT NULL,
    source         TEXT    NOT NULL,
    stream_created INTEGER NOT NULL,  -- ns since 1970: which stream the sequence belongs to
    sequence       INTEGER NOT NULL,
    epoch          TEXT,
    PRIMARY KEY (projection, source)
) WITHOUT ROWID;

-- How far a projection has applied each life of each source: the order that counts.
CREATE TABLE headwater_position (
    projection TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    PRIMARY KEY (projection, source, epoch)
) WITHOUT ROWID;

-- Events a projection could not apply, and those that wait behind them in the same lane.
CREATE TABLE headwater_dead_letter (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    projection  TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    lane        TEXT    NOT NULL,
    epoch       TEXT,
    position    INTEGER,
    sequence    INTEGER,
    subject     TEXT    NOT NULL,
    payload     BLOB    NOT NULL,
    reason      TEXT    NOT NULL,
    recorded_at INTEGER NOT NULL  -- ms since 1970
);
CREATE INDEX headwater_dead_letter_by_lane ON headwater_dead_letter (projection, source, lane);
