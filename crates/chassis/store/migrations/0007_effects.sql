CREATE TABLE headwater_effect (
    name          TEXT    PRIMARY KEY,
    failing_since INTEGER            -- ms since 1970; NULL: the last attempt succeeded
) WITHOUT ROWID;

-- When an effect was first started with each source. Never moves.
CREATE TABLE headwater_effect_source (
    effect     TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    started_at INTEGER NOT NULL,  -- ms since 1970; 0: it begins with the first event
    PRIMARY KEY (effect, source)
) WITHOUT ROWID;

-- With which event of each epoch of a source an effect begins.
CREATE TABLE headwater_effect_epoch (
    effect  TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    epoch   TEXT    NOT NULL,
    first   INTEGER NOT NULL,  -- the position of that event
    PRIMARY KEY (effect, source, epoch)
) WITHOUT ROWID;

-- What the epochs of a source inherited, by its answers: up to `last`, an epoch has the events of
-- the former one.
CREATE TABLE headwater_effect_inherited (
    effect  TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    epoch   TEXT    NOT NULL,
    former  TEXT    NOT NULL,  -- the epoch itself has a row, too
    last    INTEGER NOT NULL,
    PRIMARY KEY (effect, source, epoch, former)
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
    waits       INTEGER NOT NULL,    -- 1: for an earlier one of its key
    is_timer    INTEGER NOT NULL,    -- 1: held until all is read that was recorded when it was due
    is_newer    INTEGER NOT NULL DEFAULT 0, -- 1: held, in a newer version than the program knows
    wanted_at   INTEGER NOT NULL,    -- ms since 1970: when it was or will be due first
    due_at      INTEGER NOT NULL,    -- ms since 1970: when it is due now
    attempts    INTEGER NOT NULL DEFAULT 0,
    failure     TEXT                 -- why the last attempt failed
);
CREATE INDEX headwater_intent_by_due
    ON headwater_intent (effect, waits, is_newer, is_timer, due_at);
CREATE INDEX headwater_intent_by_key ON headwater_intent (effect, key, id);
CREATE INDEX headwater_intent_failed ON headwater_intent (effect, id) WHERE attempts > 0;
