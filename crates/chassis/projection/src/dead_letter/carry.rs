//! Copies dead letters and decisions between two stores, one of which replaces the other.

use std::path::Path;

use headwater_store::connection::{Inspection, with_attached};

/// Copies the discarded letters of the store `from` to the store `to`, and removes them from those
/// that wait there. Also copies the confirmed epochs, up to which sequence they were classified (so
/// that a rebuild needs no source), and the events that were found to be altered.
pub fn carry_over(from: &Path, to: &Path) -> rusqlite::Result<()> {
    with_attached(
        to,
        from,
        "BEGIN IMMEDIATE;
         INSERT INTO main.headwater_discarded SELECT * FROM other.headwater_discarded AS theirs
         WHERE NOT EXISTS (SELECT 1 FROM main.headwater_discarded AS own WHERE own.id = theirs.id);
         DELETE FROM main.headwater_dead_letter AS letter
         WHERE EXISTS (SELECT 1 FROM main.headwater_discarded AS discarded
             WHERE discarded.projection = letter.projection AND discarded.source = letter.source
             AND discarded.epoch IS letter.epoch
             AND coalesce(discarded.position, discarded.sequence)
                 IS coalesce(letter.position, letter.sequence));
         INSERT INTO main.headwater_epoch SELECT * FROM other.headwater_epoch WHERE true
         ON CONFLICT DO NOTHING;
         INSERT OR REPLACE INTO main.headwater_judged
             SELECT projection, source, stream_created, sequence FROM other.headwater_checkpoint;
         INSERT INTO main.headwater_anomaly SELECT * FROM other.headwater_anomaly
         WHERE kind = 'altered' ON CONFLICT DO NOTHING;
         COMMIT",
    )
}

/// An event, in words, that is a dead letter at fault in the store `next`, and that the store
/// `live` has passed without a dead letter; if there is one.
pub fn only_in(next: &Path, live: &Path) -> rusqlite::Result<Option<String>> {
    let live = Inspection::open(live)?;
    let next = Inspection::open(next)?;
    let mut letters = next.connection().prepare(
        "SELECT projection, source, epoch, position, sequence, subject
         FROM headwater_dead_letter WHERE NOT waiting",
    )?;
    let mut letters = letters.query([])?;
    while let Some(letter) = letters.next()? {
        let text = |column: usize| letter.get::<_, Option<String>>(column);
        let number = |column: usize| letter.get::<_, Option<i64>>(column);
        let is_applied: bool = live.connection().query_row(
            "SELECT (EXISTS (SELECT 1 FROM headwater_position
                     WHERE projection = ?1 AND source = ?2 AND epoch = ?3 AND position >= ?4)
                 OR ?3 IS NULL AND EXISTS (SELECT 1 FROM headwater_checkpoint
                     WHERE projection = ?1 AND source = ?2 AND sequence >= ?5))
             AND NOT EXISTS (SELECT 1 FROM headwater_dead_letter
                 WHERE projection = ?1 AND source = ?2 AND epoch IS ?3
                 AND coalesce(position, sequence) IS coalesce(?4, ?5))
             AND NOT EXISTS (SELECT 1 FROM headwater_discarded
                 WHERE projection = ?1 AND source = ?2 AND epoch IS ?3
                 AND coalesce(position, sequence) IS coalesce(?4, ?5))",
            rusqlite::params![text(0)?, text(1)?, text(2)?, number(3)?, number(4)?],
            |row| row.get(0),
        )?;
        if is_applied {
            let at = number(3)?.or(number(4)?).unwrap_or(0);
            let subject = text(5)?.unwrap_or_default();
            // The reason may quote personal data, and this ends up in health endpoints.
            return Ok(Some(format!("{subject} at {at}")));
        }
    }
    Ok(None)
}
