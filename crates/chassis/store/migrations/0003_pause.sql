-- Projections that an operator holds where they are. Stays over restarts, and over a rebuild.
CREATE TABLE headwater_pause (
    projection TEXT    PRIMARY KEY,
    since      INTEGER NOT NULL,  -- ms since 1970
    reason     TEXT    NOT NULL
) WITHOUT ROWID;
