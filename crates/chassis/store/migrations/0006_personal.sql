-- The secret of this database's keyed hashes; NULL: it is in the key file.
ALTER TABLE headwater_database ADD COLUMN secret BLOB;
-- The id of the key file that belongs to this database; NULL: it has none.
ALTER TABLE headwater_database ADD COLUMN key_file BLOB;
-- How many slots the key file has at least.
ALTER TABLE headwater_database ADD COLUMN key_slots INTEGER NOT NULL DEFAULT 0;
-- 1: tables with clear text were removed, and the file and its log still have to be cleared of it.
ALTER TABLE headwater_database ADD COLUMN scrub_due INTEGER NOT NULL DEFAULT 0;
UPDATE headwater_database SET scrub_due = 1;

-- Keys of people who were erased. Kept, so that they are destroyed again where the key file was put
-- back from an older copy.
CREATE TABLE headwater_destroyed_key (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    slot INTEGER NOT NULL
);

-- One row an answered create; see idempotency.rs, which moves the rows and drops the old table.
DROP INDEX headwater_idempotency_by_age;
DROP INDEX headwater_idempotency_by_entity;
ALTER TABLE headwater_idempotency RENAME TO headwater_idempotency_clear;
CREATE TABLE headwater_idempotency (
    scope       TEXT    NOT NULL,
    key         BLOB    NOT NULL,  -- keyed hash of what the client sent
    fingerprint BLOB,              -- keyed hash of the command; NULL: forgotten, its object was erased
    entity      TEXT    NOT NULL,
    answer      BLOB,              -- JSON; NULL: forgotten
    key_slot    INTEGER,           -- of the person's key that encrypts fingerprint and answer; NULL: they are not personal
    recorded_at INTEGER NOT NULL,  -- ms since 1970
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX headwater_idempotency_by_age ON headwater_idempotency (recorded_at);
CREATE INDEX headwater_idempotency_by_entity ON headwater_idempotency (entity);
