-- Where the relay knows its newest event to be stored: a note beside the tail of the stream, which
-- is the truth. Written now and then, so that it may be behind; it is never ahead.
CREATE TABLE headwater_relay (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    epoch          TEXT    NOT NULL,
    stream_created INTEGER NOT NULL,  -- ns since 1970: which stream the sequence belongs to
    sequence       INTEGER NOT NULL,
    position       INTEGER NOT NULL
);
