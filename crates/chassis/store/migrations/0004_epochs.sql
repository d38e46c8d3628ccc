-- Epochs that a source has said are its own. NULL: its present one; else the last position of a
-- former one: beyond it there can be no event of ours.
CREATE TABLE headwater_epoch (
    projection TEXT NOT NULL,
    source     TEXT NOT NULL,
    epoch      TEXT NOT NULL,
    last       INTEGER,
    PRIMARY KEY (projection, source, epoch)
) WITHOUT ROWID;

-- What was applied before sources were asked counts as confirmed.
INSERT INTO headwater_epoch (projection, source, epoch, last)
SELECT at.projection, at.source, at.epoch, iif(at.epoch = checkpoint.epoch, NULL, at.position)
FROM headwater_position AS at
LEFT JOIN headwater_checkpoint AS checkpoint
    ON checkpoint.projection = at.projection AND checkpoint.source = at.source;

-- Up to where the store that this one is to replace has judged the epochs of a stream's events:
-- what it has not confirmed up to there was refused.
CREATE TABLE headwater_judged (
    projection     TEXT    NOT NULL,
    source         TEXT    NOT NULL,
    stream_created INTEGER NOT NULL,  -- ns since 1970: which stream
    sequence       INTEGER NOT NULL,
    PRIMARY KEY (projection, source)
) WITHOUT ROWID;

-- Events in a source's stream that are not as its relay publishes them, by kind (anomaly.rs).
CREATE TABLE headwater_anomaly (
    projection     TEXT    NOT NULL,
    source         TEXT    NOT NULL,
    kind           TEXT    NOT NULL,
    stream_created INTEGER NOT NULL,  -- ns since 1970: which stream they are in
    events         INTEGER NOT NULL,
    sequence       INTEGER NOT NULL,  -- of the last of them
    subject        TEXT    NOT NULL,  -- of the last of them
    PRIMARY KEY (projection, source, kind)
) WITHOUT ROWID;

-- The first parked position of a source is read with each answer.
CREATE INDEX headwater_dead_letter_by_position
    ON headwater_dead_letter (projection, source, epoch, position);
