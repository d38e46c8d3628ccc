//! Lists and finds dead letters.

use headwater_nats::control::{Filter, Letter, ListAnswer};
use headwater_store::number::unsigned;
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};

use crate::dead_letter::refusal::Refusal;
use crate::dead_letter::sql::{counted, statement};

pub(super) const COLUMNS: &str = "id, projection, source, lane, epoch, position, sequence, subject, payload, \
                       reason, recorded_at";

/// The number of dead letters of all projections in this database.
pub fn left(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    counted(db, "SELECT count(*) AS n FROM headwater_dead_letter", [])
}

/// The filter's condition: parameters 1 to 4, as [`bound`] gives them.
pub(super) const FILTER: &str = "(?1 IS NULL OR source = ?1) AND (?2 IS NULL OR lane = ?2) \
                                 AND (?3 IS NULL OR instr(reason, ?3) > 0) \
                                 AND (?4 IS NULL OR waiting = ?4)";

/// The parameters of [`FILTER`].
pub(super) fn bound(filter: &Filter) -> [Value; 4] {
    [
        filter.source.clone().into(),
        filter.lane.clone().into(),
        filter.error.clone().into(),
        filter.waiting.into(),
    ]
}

/// A page of the dead letters, or of the discarded ones, of all projections in this database.
pub fn list(
    db: &impl ConnectionTrait,
    table: Table,
    filter: &Filter,
    after: u64,
    limit: usize,
) -> Result<ListAnswer, DbErr> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let select = table.select();
    let sql = format!("SELECT * FROM ({select}) WHERE {FILTER} AND id > ?5 ORDER BY id LIMIT ?6");
    let [source, lane, error, waiting] = bound(filter);
    let values = [source, lane, error, waiting, after.into(), limit.into()];
    let rows = db.query_all_raw(statement(db, &sql, values))?;
    let total = format!("SELECT count(*) AS n FROM ({select}) WHERE {FILTER}");
    Ok(ListAnswer {
        letters: rows.iter().map(letter).collect::<Result<_, _>>()?,
        total: counted(db, &total, bound(filter))?,
    })
}

/// The projection of a letter that exists and is at fault.
pub fn at_fault(db: &impl ConnectionTrait, id: u64) -> Result<Option<String>, DbErr> {
    let sql = "SELECT projection FROM headwater_dead_letter WHERE id = ? AND NOT waiting";
    let Ok(id) = i64::try_from(id) else {
        return Ok(None);
    };
    let row = db.query_one_raw(statement(db, sql, [id.into()]))?;
    row.map(|row| row.try_get_by("projection")).transpose()
}

/// Which letters.
#[derive(Debug, Clone, Copy)]
pub enum Table {
    /// Letters that wait.
    Dead,
    /// Letters that were discarded.
    Discarded,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Dead => "headwater_dead_letter",
            Self::Discarded => "headwater_discarded",
        }
    }

    pub(super) fn select(self) -> String {
        let more = match self {
            Self::Dead => "waiting, NULL AS discarded_because, NULL AS discarded_at",
            Self::Discarded => "0 AS waiting, discarded_because, discarded_at",
        };
        format!("SELECT {COLUMNS}, {more} FROM {}", self.name())
    }
}

/// One dead letter and its payload.
pub fn find(db: &impl ConnectionTrait, id: u64) -> Result<(Letter, Vec<u8>), Refusal> {
    let known = i64::try_from(id).map_err(|_| Refusal::Unknown(id))?;
    let sql = format!("{} WHERE id = ?", Table::Dead.select());
    let row = db
        .query_one_raw(statement(db, &sql, [known.into()]))?
        .ok_or(Refusal::Unknown(id))?;
    Ok((letter(&row)?, row.try_get_by("payload")?))
}

pub(super) fn letter(row: &QueryResult) -> Result<Letter, DbErr> {
    let payload: Vec<u8> = row.try_get_by("payload")?;
    let number = |column: &str| {
        let value: Option<i64> = row.try_get_by(column)?;
        Ok::<_, DbErr>(value.map(unsigned))
    };
    Ok(Letter {
        id: unsigned(row.try_get_by("id")?),
        projection: row.try_get_by("projection")?,
        source: row.try_get_by("source")?,
        lane: row.try_get_by("lane")?,
        waiting: row.try_get_by("waiting")?,
        epoch: row.try_get_by("epoch")?,
        position: number("position")?,
        sequence: number("sequence")?,
        subject: row.try_get_by("subject")?,
        reason: row.try_get_by("reason")?,
        recorded_at: row.try_get_by("recorded_at")?,
        bytes: payload.len() as u64,
        payload: None,
        outbox: None,
        discarded_because: row.try_get_by("discarded_because")?,
        discarded_at: row.try_get_by("discarded_at")?,
    })
}
