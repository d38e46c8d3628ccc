-- Users who were erased and whose purchases are still being removed, a part at a time. Nobody is
-- shown any of them: the user's state says that they are erased.
CREATE TABLE erasing (
    user INTEGER PRIMARY KEY
);
