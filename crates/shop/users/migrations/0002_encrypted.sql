-- Personal data is encrypted with a key per person, so that it is erased everywhere with the key.
-- store.rs moves the rows and drops the old table.
DROP INDEX user_login;
ALTER TABLE user RENAME TO user_clear;
CREATE TABLE user (
    id            BLOB    NOT NULL PRIMARY KEY,  -- UUID
    key_slot      INTEGER NOT NULL,              -- of the person's key in the key file
    person        BLOB    NOT NULL,              -- encrypted: name, e-mail address, password hash
    fingerprint   BLOB    NOT NULL,              -- encrypted: of the request that registered it: the same one again is no conflict
    login         BLOB,                          -- keyed hash of the e-mail address; NULL: no password yet, so no login
    registered_at INTEGER NOT NULL,              -- ms since 1970
    position      INTEGER NOT NULL               -- of the event that registered it
) WITHOUT ROWID;

-- An address leads to one login. People who cannot log in may share one.
CREATE UNIQUE INDEX user_login ON user (login);
