-- The only place that knows names, e-mail addresses and password hashes.
CREATE TABLE user (
    id            BLOB    NOT NULL PRIMARY KEY,  -- UUID
    name          TEXT    NOT NULL,
    email         TEXT    NOT NULL,
    email_key     TEXT    NOT NULL,  -- lower case: what a login is looked up by
    password_hash TEXT,              -- argon2id; NULL: no password yet, so no login
    registered_at INTEGER NOT NULL,  -- ms since 1970
    fingerprint   BLOB    NOT NULL,  -- of the request that registered it: the same one again is no conflict
    position      INTEGER NOT NULL   -- of the event that registered it
) WITHOUT ROWID;

-- An address leads to one login. People who cannot log in may share one.
CREATE UNIQUE INDEX user_login ON user (email_key) WHERE password_hash IS NOT NULL;

-- What is left of users who were erased: that there was one.
CREATE TABLE erased_user (
    id       BLOB    NOT NULL PRIMARY KEY,  -- UUID
    position INTEGER NOT NULL               -- of the event that erased it
) WITHOUT ROWID;
