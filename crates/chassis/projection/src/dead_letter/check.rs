//! Compares letters with the outboxes of their events.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater_nats::bus::Bus;
use headwater_nats::control::{InOutbox, Letter};
use headwater_store::number::signed;
use headwater_store::{Database, Tx};
use headwater_telemetry::causes;
use sea_orm::{ConnectionTrait, DbErr};

use crate::dead_letter::letters::{Table, letter};
use crate::dead_letter::refusal::Refusal;
use crate::dead_letter::scope::Scope;
use crate::dead_letter::sql::statement;
use crate::outbox::{self, Outbox};

/// The most letters compared at once.
const PAGE_MAX: i64 = 1000;

/// The most bytes of their payloads; one letter always fits.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Letters that were compared with their outboxes, ordered by id.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Their ids are greater than this one.
    after: u64,
    /// The id of the last one; `None` if there are no more.
    pub(super) upto: Option<u64>,
    /// Content that differs in the outboxes.
    corrections: Vec<Correction>,
    /// Letters whose position the outbox does not have, and why.
    pub(super) foreign: HashMap<u64, String>,
}

#[derive(Debug)]
struct Correction {
    id: u64,
    subject: String,
    payload: Vec<u8>,
}

/// Compares the first letters of `projection` in `scope` with an id above `after`.
pub(super) async fn check(
    db: &Database,
    bus: &Bus,
    projection: &'static str,
    scope: &Scope,
    after: u64,
) -> Result<Checked, Refusal> {
    let wanted = scope.clone();
    let letters = db
        .read(move |snapshot| page(snapshot, projection, &wanted, after))
        .await?;
    let mut positions: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (letter, _) in &letters {
        if let Some(position) = letter.position {
            let of_source = positions.entry(&letter.source).or_default();
            of_source.insert(position);
        }
    }
    let mut outboxes: BTreeMap<String, Outbox> = BTreeMap::new();
    for (source, positions) in positions {
        let positions: Vec<u64> = positions.into_iter().collect();
        let outbox = outbox::at(bus, source, &positions).await;
        let outbox = outbox.map_err(|error| Refusal::SourceAway {
            source_name: source.to_owned(),
            why: causes(error.as_ref()),
        })?;
        outboxes.insert(source.to_owned(), outbox);
    }
    let mut checked = Checked {
        after,
        upto: letters.last().map(|(letter, _)| letter.id),
        ..Checked::default()
    };
    for (letter, payload) in letters {
        if let Some(outbox) = outboxes.get(&letter.source) {
            checked.note(&letter, &payload, outbox);
        }
    }
    Ok(checked)
}

impl Checked {
    fn note(&mut self, letter: &Letter, payload: &[u8], outbox: &Outbox) {
        let (Some(epoch), Some(position)) = (&letter.epoch, letter.position) else {
            return;
        };
        if **epoch != *outbox.epoch {
            return;
        }
        match outbox.rows.get(&position) {
            None => {
                let source = &letter.source;
                let reason = format!(
                    "the outbox of {source} has no position {position}: this is not an event of \
                     {source}; discard it"
                );
                self.foreign.insert(letter.id, reason);
            }
            Some(row) if row.subject == letter.subject && row.payload == payload => {}
            Some(row) => {
                tracing::warn!(
                    projection = letter.projection,
                    source = letter.source,
                    event.subject = letter.subject,
                    event.position = position,
                    "dead letter differs from the outbox: it takes the outbox's content"
                );
                self.corrections.push(Correction {
                    id: letter.id,
                    subject: row.subject.clone(),
                    payload: row.payload.clone(),
                });
            }
        }
    }

    /// Whether the letter `id` was compared.
    pub(super) fn has(&self, id: u64) -> bool {
        id > self.after && self.upto.is_some_and(|upto| id <= upto)
    }

    /// Writes the outboxes' content into the letters.
    pub(super) fn correct(&self, tx: &Tx) -> Result<(), DbErr> {
        self.corrections.iter().try_for_each(|correction| {
            tx.run_raw(statement(
                tx,
                "UPDATE headwater_dead_letter SET subject = ?, payload = ? WHERE id = ?",
                [
                    correction.subject.as_str().into(),
                    correction.payload.clone().into(),
                    signed(correction.id).into(),
                ],
            ))
        })
    }
}

fn page(
    db: &impl ConnectionTrait,
    projection: &str,
    scope: &Scope,
    after: u64,
) -> Result<Vec<(Letter, Vec<u8>)>, DbErr> {
    let (source, key) = match scope {
        Scope::All(_) | Scope::Unblocked => (None, None),
        Scope::BlockedKey { source, name } => (source.as_deref(), Some(name.as_str())),
    };
    let sql = format!(
        "{} WHERE projection = ? AND id > ? AND source = coalesce(?, source)
         AND lane = coalesce(?, lane) ORDER BY id LIMIT ?",
        Table::Dead.select()
    );
    let values = [
        projection.into(),
        signed(after).into(),
        source.into(),
        key.into(),
        PAGE_MAX.into(),
    ];
    let rows = db.query_all_raw(statement(db, &sql, values))?;
    let mut bytes = 0;
    let mut letters = Vec::new();
    for row in &rows {
        let payload: Vec<u8> = row.try_get_by("payload")?;
        bytes += payload.len();
        if bytes > PAGE_BYTES_MAX && !letters.is_empty() {
            break;
        }
        letters.push((letter(row)?, payload));
    }
    Ok(letters)
}

/// What the outbox of a letter's source has at its position; `None` for a letter without a
/// position.
pub async fn in_outbox(bus: &Bus, letter: &Letter, payload: &[u8]) -> Option<InOutbox> {
    let (epoch, position) = letter.epoch.as_ref().zip(letter.position)?;
    let outbox = match outbox::at(bus, &letter.source, &[position]).await {
        Ok(outbox) => outbox,
        Err(error) => return Some(InOutbox::Unknown(causes(error.as_ref()))),
    };
    if **epoch != *outbox.epoch {
        let why = format!("the epoch of {} is {} now", letter.source, outbox.epoch);
        return Some(InOutbox::Unknown(why));
    }
    Some(match outbox.rows.get(&position) {
        None => InOutbox::Missing,
        Some(row) if row.subject == letter.subject && row.payload == payload => InOutbox::Same,
        Some(row) => InOutbox::Other {
            subject: row.subject.clone(),
            bytes: row.payload.len() as u64,
            payload: Some(BASE64_STANDARD.encode(&row.payload)),
        },
    })
}
