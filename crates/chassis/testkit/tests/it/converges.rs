//! `converges` accepts a right projection, and reports planted faults so that they are understood.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater::database::{Migration, Tx};
use headwater::{ApplyError, Envelope, Event, Projection};
use headwater_testkit::{converges, events};
use sea_orm::{ConnectionTrait as _, DbErr, Statement, Value};

/// An item on a shelf got a label.
#[derive(Clone, PartialEq, prost::Message)]
struct Labelled {
    #[prost(string, tag = "1")]
    item: String,
    #[prost(string, tag = "2")]
    label: String,
    #[prost(int64, tag = "3")]
    at: i64,
}

impl Event for Labelled {
    const SUBJECT: &'static str = "shelf.v1.labelled";
    fn key(&self) -> &str {
        &self.item
    }
}

/// An item was sold, under the label that the till shows for it.
#[derive(Clone, PartialEq, prost::Message)]
struct Sold {
    #[prost(string, tag = "1")]
    item: String,
    #[prost(string, tag = "2")]
    label: String,
    #[prost(int64, tag = "3")]
    at: i64,
}

impl Event for Sold {
    const SUBJECT: &'static str = "till.v1.sold";
    fn key(&self) -> &str {
        &self.item
    }
}

const MIGRATIONS: &[Migration] = &[Migration::sql(
    "0001_item",
    "CREATE TABLE item (
         id    TEXT    NOT NULL PRIMARY KEY,
         label TEXT    NOT NULL,
         at    INTEGER NOT NULL,
         sold  INTEGER NOT NULL
     );
     CREATE TABLE sale (number INTEGER NOT NULL PRIMARY KEY, item TEXT NOT NULL);",
)];

/// What is wrong with the projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// A sale counts only if the item is known already.
    NeedsTheItemFirst,
    /// The label that comes last wins, whenever it was given.
    LastArrivalWins,
    /// Counts in memory what it applies, also what is rolled back.
    CountsInMemory,
    /// Remembers in memory which rows exist.
    RemembersRows,
    /// Numbers rows by the sequence in the stream.
    NumbersBySequence,
    /// Keeps the size of its batches.
    KeepsBatches,
    /// Counts in a table that is gone when the store is opened again.
    CountsInTemp,
    /// Refuses a sale of an unknown item for ever.
    RefusesTheUnknown,
}

/// The newest label of each item and how often it was sold; and each sale.
#[derive(Debug)]
struct Items {
    fault: Fault,
    sold: AtomicI64,
    known: Mutex<Vec<String>>,
}

impl Items {
    fn with(fault: Fault) -> Self {
        Self {
            fault,
            sold: AtomicI64::new(0),
            known: Mutex::default(),
        }
    }

    fn save_label(&self, tx: &Tx, item: &str, label: &str, at: i64) -> Result<(), DbErr> {
        let newest = match self.fault {
            Fault::LastArrivalWins => "TRUE",
            _ => "(excluded.at, excluded.label) > (at, label)",
        };
        let sql = format!(
            "INSERT INTO item VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE
             SET label = excluded.label, at = excluded.at WHERE {newest}"
        );
        run(tx, &sql, [item.into(), label.into(), at.into()])
    }

    fn save_sale(&self, tx: &Tx, event: &Envelope, sold: &Sold) -> Result<(), ApplyError> {
        let Sold { item, label, at } = sold;
        let known = "SELECT 1 FROM item WHERE id = ?";
        let known = Statement::from_sql_and_values(tx.get_database_backend(), known, [item.into()]);
        let is_known = tx.query_one_raw(known)?.is_some();
        match self.fault {
            Fault::NeedsTheItemFirst if !is_known => return Ok(()),
            Fault::RefusesTheUnknown if !is_known => {
                return Err(ApplyError::Poison(format!("{item} is unknown")));
            }
            Fault::RemembersRows => {
                let mut known = self.known.lock().expect("no panic");
                if !known.contains(item) {
                    self.save_label(tx, item, label, *at)?;
                    known.push(item.clone());
                }
            }
            _ => self.save_label(tx, item, label, *at)?,
        }
        if self.fault == Fault::CountsInTemp {
            let table = "CREATE TEMP TABLE IF NOT EXISTS counted (item TEXT NOT NULL)";
            run(tx, table, [])?;
            run(tx, "INSERT INTO counted VALUES (?)", [item.into()])?;
        }
        let sold = match self.fault {
            Fault::CountsInMemory => 1 + self.sold.fetch_add(1, Ordering::SeqCst),
            _ => 1,
        };
        let set = match self.fault {
            Fault::CountsInMemory => "UPDATE item SET sold = ? WHERE id = ?",
            Fault::CountsInTemp => {
                "UPDATE item SET sold = ? * (SELECT count(*) FROM counted) WHERE id = ?"
            }
            _ => "UPDATE item SET sold = sold + ? WHERE id = ?",
        };
        run(tx, set, [sold.into(), item.into()])?;
        let number = match self.fault {
            Fault::NumbersBySequence => event.sequence,
            _ => event.id.as_ref().map(|id| id.position),
        };
        let number = number.map(|number| i64::try_from(number).expect("a small number"));
        let sale = "INSERT OR REPLACE INTO sale VALUES (?, ?)";
        Ok(run(tx, sale, [number.into(), item.into()])?)
    }
}

fn run<const N: usize>(tx: &Tx, sql: &str, values: [Value; N]) -> Result<(), DbErr> {
    let backend = tx.get_database_backend();
    tx.run_raw(Statement::from_sql_and_values(backend, sql, values))
}

impl Projection for Items {
    const NAME: &'static str = "items";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["shelf", "till"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            match event.kind() {
                Labelled::SUBJECT => {
                    let Labelled { item, label, at } = event.decode()?;
                    self.save_label(tx, &item, &label, at)?;
                }
                Sold::SUBJECT => self.save_sale(tx, event, &event.decode()?)?,
                _ => return Err(ApplyError::unknown(event)),
            }
        }
        if self.fault == Fault::KeepsBatches {
            let number = 1000 + events.len() as u64;
            let sale = "INSERT OR REPLACE INTO sale VALUES (?, 'batch')";
            run(tx, sale, [number.into()])?;
        }
        Ok(())
    }
}

fn labelled(label: &str, at: i64) -> Labelled {
    let (item, label) = ("mug".to_owned(), label.to_owned());
    Labelled { item, label, at }
}

fn sold(label: &str, at: i64) -> Sold {
    let (item, label) = ("mug".to_owned(), label.to_owned());
    Sold { item, label, at }
}

fn history() -> Vec<Envelope> {
    events![
        labelled("Cup", 1),
        labelled("Mug", 3),
        sold("Cup", 2),
        sold("Mug", 4)
    ]
}

/// The report about a fault; none if it is not found.
async fn report(fault: Fault, events: Vec<Envelope>) -> Option<String> {
    let check = converges(move || Items::with(fault), MIGRATIONS, events);
    check.seed(7).report().await
}

#[tokio::test]
async fn a_projection_that_converges_passes() {
    assert_eq!(report(Fault::None, history()).await, None);
}

#[tokio::test]
async fn two_interleavings_that_end_differently_are_shown_side_by_side() {
    let report = report(Fault::NeedsTheItemFirst, history()).await.unwrap();
    let expected = "\
the projection items does not converge
  > shelf:1 labelled  |  till:1 sold
  > till:1 sold       |  shelf:1 labelled
    shelf:2 labelled  |  shelf:2 labelled
    till:2 sold       |  till:2 sold

  item, only left: id='mug' label='Mug' at=4 sold=2
  item, only right: id='mug' label='Mug' at=4 sold=1
  sale, only left: number=1 item='mug'

To repeat it: HEADWATER_SEED=7";
    assert_eq!(report, expected);
}

#[tokio::test]
async fn every_planted_fault_is_found() {
    for (fault, shown) in [
        (Fault::LastArrivalWins, "> shelf:2 labelled"),
        (Fault::RefusesTheUnknown, "dead letters, only right"),
        (Fault::CountsInMemory, "(rolled back: till:1 sold)"),
        (Fault::RemembersRows, "(the process starts again)"),
        (Fault::NumbersBySequence, "(published again: till:1)"),
        (Fault::KeepsBatches, " + "),
        (Fault::CountsInTemp, "item, only right: "),
    ] {
        let report = report(fault, history()).await;
        let report = report.unwrap_or_else(|| panic!("{fault:?} is not found"));
        assert!(report.contains(shown), "{fault:?}: {report}");
    }
}

#[tokio::test]
async fn batches_of_one_source_are_tried_with_every_seed() {
    for seed in 0..20 {
        let events = events![labelled("Cup", 1), labelled("Mug", 3)];
        let check = converges(|| Items::with(Fault::KeepsBatches), MIGRATIONS, events);
        let report = check.seed(seed).report().await.unwrap();
        let expected = "
  > shelf:1 labelled  |  shelf:1 labelled + shelf:2 labelled
  > shelf:2 labelled  |
";
        assert!(report.contains(expected), "{report}");
    }
}

#[tokio::test]
async fn background_work_that_loses_later_events_is_found() {
    let settle = |tx: &Tx| run(tx, "UPDATE item SET at = ?", [100.into()]);
    let check = converges(|| Items::with(Fault::None), MIGRATIONS, history());
    let report = check.settled_by(settle).seed(7).report().await.unwrap();
    assert!(report.contains("(the background work runs)"), "{report}");
}

#[tokio::test]
#[should_panic(expected = "what `then` reads, only right: ")]
async fn what_is_read_in_the_end_must_be_the_same() {
    let reads = AtomicI64::new(0);
    let check = converges(|| Items::with(Fault::None), MIGRATIONS, history());
    check
        .then(move |_| Ok(reads.fetch_add(1, Ordering::SeqCst)))
        .await;
}

#[tokio::test]
async fn a_long_history_is_checked_along_random_interleavings() {
    let history = || (0..20).flat_map(|at| events![labelled("Mug", at), sold("Cup", at)]);
    assert_eq!(report(Fault::None, history().collect()).await, None);
    let report = report(Fault::LastArrivalWins, history().collect()).await;
    let report = report.unwrap();
    assert!(report.contains("equal steps"), "{report}");
}

#[tokio::test]
async fn events_that_can_never_be_applied_prove_nothing() {
    let strange = Envelope {
        subject: "till.v1.opened.0".into(),
        ..headwater_testkit::envelope(&sold("Mug", 1))
    };
    let report = report(Fault::None, vec![strange]).await.unwrap();
    assert!(report.contains("unknown event till.v1.opened"), "{report}");
}
