-- Users who were erased and whose orders are still being removed, a part at a time. Nobody is shown
-- any of them: `known_user` says that they are erased.
CREATE TABLE erasing (
    user_id BLOB NOT NULL PRIMARY KEY  -- UUID
) WITHOUT ROWID;
