-- The former epochs of this database, which was restored from copies of them: up to `last`, it has
-- their events. A restore applies this to copies that are older than the table.
CREATE TABLE IF NOT EXISTS headwater_inherited (
    former TEXT    PRIMARY KEY,
    last   INTEGER NOT NULL
) WITHOUT ROWID;
