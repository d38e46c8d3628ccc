-- When each effect was first started: its "now". Never moves.
CREATE TABLE headwater_effect (
    name          TEXT    PRIMARY KEY,
    started_at    INTEGER NOT NULL,  -- ms since 1970
    failing_since INTEGER            -- ms since 1970; NULL: the last attempt succeeded
) WITHOUT ROWID;

-- With which event of each epoch of a source an effect begins.
CREATE TABLE headwater_effect_epoch (
    effect  TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    epoch   TEXT    NOT NULL,
    first   INTEGER NOT NULL,  -- the position of that event
    seen_at INTEGER NOT NULL,  -- ms since 1970: when an event of the epoch was last applied
    PRIMARY KEY (effect, source, epoch)
) WITHOUT ROWID;

-- The ledger: work that effects still have to do. A row is removed when its work is done or dead.
CREATE TABLE headwater_intent (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    effect      TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    epoch       TEXT    NOT NULL,
    position    INTEGER NOT NULL,
    subject     TEXT    NOT NULL,
    payload     BLOB    NOT NULL,
    traceparent TEXT,
    key         TEXT,                -- intents of one key are performed in order; NULL: in any
    wanted_at   INTEGER NOT NULL,    -- ms since 1970: when it was or will be due first
    due_at      INTEGER NOT NULL,    -- ms since 1970: when it is due now
    attempts    INTEGER NOT NULL DEFAULT 0,
    failure     TEXT                 -- why the last attempt failed
);
CREATE INDEX headwater_intent_by_due ON headwater_intent (effect, due_at);
CREATE INDEX headwater_intent_by_key ON headwater_intent (effect, key, id);
