-- When a purchase was last ordered, and how often. Most are ordered once, and then both numbers
-- take one byte each: SQLite stores 0 and 1 in the row's header. A store of an earlier version has
-- the defaults until it is rebuilt, which begins at once.
ALTER TABLE purchase ADD COLUMN span  INTEGER NOT NULL DEFAULT 0;  -- ms from the first order to the last
ALTER TABLE purchase ADD COLUMN times INTEGER NOT NULL DEFAULT 1;  -- the orders with the product

-- The users with the newest orders, a few hundred. A time in each user's row, with an index, would
-- cost every order more than all else that is done with it.
CREATE TABLE recent (
    user       INTEGER PRIMARY KEY,
    ordered_at INTEGER NOT NULL  -- ms since 1970
);
CREATE INDEX recent_by_time ON recent (ordered_at);

-- Full-text index of the titles. It holds no text itself; the triggers keep it equal to `product`.
CREATE VIRTUAL TABLE titles USING fts5 (
    title, content = 'product', content_rowid = 'number', prefix = '2 3',
    tokenize = "unicode61 remove_diacritics 2"
);
INSERT INTO titles (titles) VALUES ('rebuild');
CREATE TRIGGER titles_insert AFTER INSERT ON product WHEN new.title IS NOT NULL BEGIN
    INSERT INTO titles (rowid, title) VALUES (new.number, new.title);
END;
CREATE TRIGGER titles_update AFTER UPDATE OF title ON product WHEN old.title IS NOT new.title BEGIN
    INSERT INTO titles (titles, rowid, title)
        SELECT 'delete', old.number, old.title WHERE old.title IS NOT NULL;
    INSERT INTO titles (rowid, title) SELECT new.number, new.title WHERE new.title IS NOT NULL;
END;
